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

from tests.pathologies.models import Autoencoder, CharRecurrent, CharTransformer, cnn, mlp

__all__ = ["TASKS", "Examples", "Task"]

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


# --------------------------------------------------------------------------------------------------------- tasks


def digits_mlp(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a multilayer perceptron."""
    return _digits_task("digits_mlp", partial(mlp, (64, 10), **model), smoothing)


def digits_cnn(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a convolutional network, with or without normalization and residual blocks."""
    return _digits_task("digits_cnn", partial(cnn, **model), smoothing)


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
    return Task("diabetes", train, validation, partial(mlp, (10, 1), **model), functional.mse_loss)


def breast_cancer(**model: object) -> Task:
    """Binary classification with logits."""
    train, validation = _breast_cancer()
    loss = functional.binary_cross_entropy_with_logits
    return Task(
        "breast_cancer", train, validation, partial(mlp, (30, 1), **model), loss, _fraction_right_binary, classes=2
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
