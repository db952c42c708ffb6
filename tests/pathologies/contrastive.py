"""Contrastive learning: what belongs together is to lie together, among all others of the batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PairedEncoders", "ViewEncoder", "fraction_matched", "matching_loss"]

_EVALUATION_SEED = 42


class ViewEncoder(nn.Module):
    """Two noisy views of each image through one encoder, as in SimCLR (Chen et al. 2020)."""

    def __init__(self, *, width: int = 64, size: int = 16, noise: float = 0.5, temperature: float = 0.2) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))
        self.noise = noise
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Similarities (rows, rows) of first views to second views, divided by the temperature."""
        generator = None if self.training else torch.Generator().manual_seed(_EVALUATION_SEED)
        views = torch.randn((2, *images.shape), generator=generator) * self.noise + images
        first, second = functional.normalize(self.projection(self.encoder(views.flatten(0, 1))), dim=-1).chunk(2)
        return first @ second.T / self.temperature


class PairedEncoders(nn.Module):
    """The upper and the lower half of each image through encoders of their own, with a learned scale, as in CLIP."""

    def __init__(self, *, width: int = 64, size: int = 16) -> None:
        super().__init__()
        self.upper = nn.Sequential(nn.Flatten(), nn.Linear(32, width), nn.GELU(), nn.Linear(width, size))
        self.lower = nn.Sequential(nn.Flatten(), nn.Linear(32, width), nn.GELU(), nn.Linear(width, size))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        """Scaled similarities (rows, rows) of upper halves to lower halves."""
        upper, lower = images.chunk(2, dim=2)
        first, second = functional.normalize(self.upper(upper), dim=-1), functional.normalize(self.lower(lower), dim=-1)
        return first @ second.T * self.log_scale.exp().clamp(max=100)


def matching_loss(similarities: Tensor, _targets: Tensor) -> Tensor:
    """Cross-entropy of finding the partner, both ways, averaged (InfoNCE); labels are not used."""
    partner = torch.arange(len(similarities))
    return (functional.cross_entropy(similarities, partner) + functional.cross_entropy(similarities.T, partner)) / 2


def fraction_matched(similarities: Tensor, _targets: Tensor) -> Tensor:
    """Share of rows whose most similar row is their partner."""
    return (similarities.argmax(-1) == torch.arange(len(similarities))).float().mean()
