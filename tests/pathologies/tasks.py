"""Task families: small factories that give data, a model, a loss and a metric, each a real problem in miniature.

All data ship with scikit-learn, so nothing is downloaded and every training is a function of its seed. A new family is
one factory, entered in `TASKS`; its keyword arguments are what recipes may vary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from types import MappingProxyType

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TASKS", "Examples", "Task"]

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
)
VALIDATION_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs and targets, row by row."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.inputs)

    def __getitem__(self, rows: Tensor | slice) -> "Examples":
        """Some of the rows."""
        return Examples(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True, slots=True)
class Task:
    """A problem to train on. `build` makes a fresh model from torch's global generator."""

    name: str
    train: Examples
    validation: Examples
    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    accuracy: Callable[[Tensor, Tensor], Tensor] | None = None
    classes: int | None = None
    tokens_per_row: int | None = None


# ---------------------------------------------------------------------------------------------------------- data


def _split(inputs: Tensor, targets: Tensor) -> tuple[Examples, Examples]:
    """A fixed random split, the same for every recipe."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(7))
    held_out = int(len(inputs) * VALIDATION_SHARE)
    everything = Examples(inputs, targets)
    return everything[order[held_out:]], everything[order[:held_out]]


@cache
def _digits() -> tuple[Examples, Examples]:
    """Handwritten digits: 1,797 images of 8 x 8 pixels, standardized; rows are (1, 8, 8)."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return _split((images - images.mean()) / images.std(), torch.tensor(data.target, dtype=torch.int64))


@cache
def _diabetes() -> tuple[Examples, Examples]:
    """Disease progression of 442 patients from 10 measurements, all standardized; rows are (10,) -> (1,)."""
    data = load_diabetes()
    inputs, target = _standardized(data.data), _standardized(data.target[:, None])
    return _split(inputs, target)


@cache
def _breast_cancer() -> tuple[Examples, Examples]:
    """569 tumours, 30 standardized features, malignant or not; rows are (30,) -> (1,)."""
    data = load_breast_cancer()
    return _split(_standardized(data.data), torch.tensor(data.target[:, None], dtype=torch.float32))


@cache
def _text(context: int) -> tuple[Examples, Examples, int]:
    """Windows of English prose (the descriptions of scikit-learn's data sets, 43 kB), next-character targets.

    Every eighth passage of 512 characters is held out. Returns training windows, validation windows, both of shape
    (rows, context), and the size of the alphabet.
    """
    folder = files("sklearn.datasets.descr")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".rst"))
    prose = " ".join(" ".join((folder / name).read_text(encoding="utf-8").lower().split()) for name in names)
    alphabet = sorted(set(prose))
    codes = torch.tensor(np.searchsorted(alphabet, list(prose)), dtype=torch.int64)
    passages = codes[: len(codes) // 512 * 512].view(-1, 512)
    held_out = torch.arange(len(passages)) % 8 == 0

    def windows(rows: Tensor, stride: int) -> Examples:
        pieces = rows.unfold(1, context + 1, stride).reshape(-1, context + 1)
        return Examples(pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous())

    return windows(passages[~held_out], max(1, context // 4)), windows(passages[held_out], context), len(alphabet)


def _standardized(values: np.ndarray) -> Tensor:
    return torch.tensor((values - values.mean(axis=0)) / values.std(axis=0), dtype=torch.float32)


def _fraction_right(scores: Tensor, targets: Tensor) -> Tensor:
    """Share of rows (or tokens) whose highest score is the target's."""
    return (scores.argmax(-1) == targets).float().mean()


def _fraction_right_binary(scores: Tensor, targets: Tensor) -> Tensor:
    return ((scores > 0) == (targets > 0)).float().mean()


# -------------------------------------------------------------------------------------------------------- models


class Residual(nn.Module):
    """A block with a way around it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """Input plus what the block makes of it."""
        return inputs + self.inner(inputs)


class Leading(nn.Module):
    """Sees only the first `count` features: a model that was given too little to go on."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, inputs: Tensor) -> Tensor:
        """The first columns of (rows, features)."""
        return inputs[:, : self.count]


def _mlp(
    sizes: tuple[int, int],
    *,
    width: int = 64,
    depth: int = 2,
    activation: str = "relu",
    dropout: float = 0.0,
    norm: str | None = None,
    gain: float | None = None,
    features: int | None = None,
) -> nn.Module:
    """A plain stack of `depth` hidden layers; `gain` replaces torch's initialization by N(0, gain² / fan_in)."""
    inputs = features or sizes[0]
    layers: list[nn.Module] = [nn.Flatten()]
    if features is not None:
        layers.append(Leading(features))
    for index in range(depth):
        layers.append(nn.Linear(inputs if index == 0 else width, width))
        if norm is not None:
            layers.append(nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(width if depth else inputs, sizes[1]))
    model = nn.Sequential(*layers)
    if gain is not None:
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
                nn.init.zeros_(layer.bias)
    return model


def _convolution(inputs: int, outputs: int, norm: str | None, stride: int = 1) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)]
    if norm is not None:
        layers.append(nn.BatchNorm2d(outputs) if norm == "batch" else nn.GroupNorm(4, outputs))
    return layers


def _cnn(*, channels: int = 12, norm: str | None = "batch", dropout: float = 0.0, residual: int = 0) -> nn.Module:
    """Two convolutions (the second halves the image), `residual` residual blocks, a linear classifier."""
    blocks: list[nn.Module] = []
    for _ in range(residual):
        inner = [
            *_convolution(2 * channels, 2 * channels, norm),
            nn.ReLU(),
            *_convolution(2 * channels, 2 * channels, norm),
        ]
        blocks += [Residual(nn.Sequential(*inner)), nn.ReLU()]
    return nn.Sequential(
        *_convolution(1, channels, norm),
        nn.ReLU(),
        *_convolution(channels, 2 * channels, norm, stride=2),
        nn.ReLU(),
        *blocks,
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels * 16, 10),
    )


class CharTransformer(nn.Module):
    """A decoder-only language model: causal self-attention with pre-normalization."""

    def __init__(
        self,
        alphabet: int,
        context: int,
        *,
        width: int = 48,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.0,
        pre_norm: bool = True,
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, width)
        self.positions = nn.Parameter(torch.randn(context, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=pre_norm
        )
        self.blocks = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.scores = nn.Linear(width, alphabet)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Scores (rows, context, alphabet) for the next character at each place of (rows, context)."""
        hidden = self.characters(codes) + self.positions
        return self.scores(self.blocks(hidden, mask=self.mask, is_causal=True))


class CharRecurrent(nn.Module):
    """A recurrent language model; `recurrent_gain` makes its recurrent matrix that multiple of a rotation."""

    def __init__(
        self,
        alphabet: int,
        *,
        kind: str = "gru",
        width: int = 64,
        dropout: float = 0.0,
        recurrent_gain: float | None = None,
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, 24)
        if kind == "gru":
            self.recurrence: nn.RNNBase = nn.GRU(24, width, batch_first=True)
        elif kind == "lstm":
            self.recurrence = nn.LSTM(24, width, batch_first=True)
        else:
            self.recurrence = nn.RNN(24, width, nonlinearity=kind, batch_first=True)
        if recurrent_gain is not None:
            nn.init.orthogonal_(self.recurrence.weight_hh_l0, gain=recurrent_gain)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        """Scores (rows, context, alphabet) for the next character."""
        hidden, _ = self.recurrence(self.characters(codes))
        return self.scores(self.dropout(hidden))


class Autoencoder(nn.Module):
    """64 pixels through a narrow code and back."""

    def __init__(self, *, width: int = 64, code: int = 8, activation: str = "relu") -> None:
        super().__init__()
        unit = ACTIVATIONS[activation]
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), unit(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), unit(), nn.Linear(width, 64))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (rows, 64)."""
        return self.decoder(self.encoder(images))


# --------------------------------------------------------------------------------------------------------- tasks


def digits_mlp(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a multilayer perceptron."""
    return _digits_task("digits_mlp", partial(_mlp, (64, 10), **model), smoothing)


def digits_cnn(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a convolutional network, with or without normalization and residual blocks."""
    return _digits_task("digits_cnn", partial(_cnn, **model), smoothing)


def _digits_task(name: str, build: Callable[[], nn.Module], smoothing: float) -> Task:
    train, validation = _digits()
    loss = partial(functional.cross_entropy, label_smoothing=smoothing)
    return Task(name, train, validation, build, loss, _fraction_right, classes=10)


def text_transformer(*, context: int = 32, **model: object) -> Task:
    """Next character by a small transformer."""
    return _text_task("text_transformer", context, lambda alphabet: CharTransformer(alphabet, context, **model))


def text_rnn(*, context: int = 32, **model: object) -> Task:
    """Next character by a recurrent network: gru, lstm, tanh or relu."""
    return _text_task("text_rnn", context, lambda alphabet: CharRecurrent(alphabet, **model))


def _text_task(name: str, context: int, build: Callable[[int], nn.Module]) -> Task:
    train, validation, alphabet = _text(context)

    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(scores.flatten(0, 1), targets.flatten())

    return Task(
        name, train, validation, partial(build, alphabet), loss, _fraction_right, alphabet, tokens_per_row=context
    )


def diabetes(**model: object) -> Task:
    """Regression on standardized targets: predicting the mean costs 1."""
    train, validation = _diabetes()
    return Task("diabetes", train, validation, partial(_mlp, (10, 1), **model), functional.mse_loss)


def breast_cancer(**model: object) -> Task:
    """Binary classification with logits."""
    train, validation = _breast_cancer()
    loss = functional.binary_cross_entropy_with_logits
    return Task(
        "breast_cancer", train, validation, partial(_mlp, (30, 1), **model), loss, _fraction_right_binary, classes=2
    )


def autoencoder(**model: object) -> Task:
    """Reconstruction of digits, as deviations from the mean image: reconstructing nothing but the mean costs 1."""
    train, validation = _digits()
    mean = train.inputs.mean(0)
    scale = (train.inputs - mean).std()
    train, validation = (
        Examples(part, part.flatten(1)) for part in ((train.inputs - mean) / scale, (validation.inputs - mean) / scale)
    )
    return Task("autoencoder", train, validation, partial(Autoencoder, **model), functional.mse_loss)


TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        factory.__name__: factory
        for factory in (digits_mlp, digits_cnn, text_transformer, text_rnn, diabetes, breast_cancer, autoencoder)
    }
)
