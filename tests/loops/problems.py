"""What the loops train: digits in DataLoaders, and the small models guides draw."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["ConvNet", "RegularizedNet", "digits_loaders", "plain_mlp"]

TRAINING_ROWS = 1280


def digits_loaders(batch_size: int = 32, *, seed: int = 0) -> tuple[DataLoader, DataLoader]:
    """A shuffling loader of 1,280 standardized images (1, 8, 8) and a plain one of the other 517."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    images = (images - images.mean()) / images.std()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(7))
    images, labels = images[order], torch.tensor(data.target, dtype=torch.int64)[order]
    train = TensorDataset(images[:TRAINING_ROWS], labels[:TRAINING_ROWS])
    validation = TensorDataset(images[TRAINING_ROWS:], labels[TRAINING_ROWS:])
    shuffle = torch.Generator().manual_seed(seed)
    return DataLoader(train, batch_size, shuffle=True, generator=shuffle), DataLoader(validation, 128)


def plain_mlp(width: int = 64) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


class ConvNet(nn.Module):
    """Convolutions with pooling, then a classifier with dropout."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.1),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Scores (rows, classes)."""
        return self.head(self.body(images))


class RegularizedNet(nn.Module):
    """Linear, batch norm, ReLU, dropout, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm, self.first_dropout = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout(0.3)
        self.second, self.second_norm, self.second_dropout = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.1)
        self.scores = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (rows, 10)."""
        hidden = self.first_dropout(torch.relu(self.first_norm(self.first(images.flatten(1)))))
        hidden = self.second_dropout(torch.relu(self.second_norm(self.second(hidden))))
        return self.scores(hidden)
