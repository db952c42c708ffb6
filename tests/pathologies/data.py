"""Data that ship with scikit-learn, so that nothing is downloaded, and what a task is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import Tensor, nn

__all__ = [
    "Examples",
    "Task",
    "breast_cancer",
    "diabetes",
    "digits",
    "heavy_tails",
    "rare_events",
    "split",
    "standardized",
    "text",
]

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


def split(inputs: Tensor, targets: Tensor) -> tuple[Examples, Examples]:
    """A fixed random split, the same for every recipe."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(7))
    held_out = int(len(inputs) * VALIDATION_SHARE)
    everything = Examples(inputs, targets)
    return everything[order[held_out:]], everything[order[:held_out]]


@cache
def digits() -> tuple[Examples, Examples]:
    """Handwritten digits: 1,797 images of 8 x 8 pixels, standardized; rows are (1, 8, 8)."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return split((images - images.mean()) / images.std(), torch.tensor(data.target, dtype=torch.int64))


@cache
def diabetes() -> tuple[Examples, Examples]:
    """Disease progression of 442 patients from 10 measurements, all standardized; rows are (10,) -> (1,)."""
    data = load_diabetes()
    inputs, target = standardized(data.data), standardized(data.target[:, None])
    return split(inputs, target)


@cache
def breast_cancer() -> tuple[Examples, Examples]:
    """569 tumours, 30 standardized features, malignant or not; rows are (30,) -> (1,)."""
    data = load_breast_cancer()
    return split(standardized(data.data), torch.tensor(data.target[:, None], dtype=torch.float32))


@cache
def heavy_tails() -> tuple[Examples, Examples]:
    """A smooth function of 16 features plus noise from Student's t with 3 degrees of freedom; rows (16,) -> (1,)."""
    inputs, signal, generator = _smooth_function(3000, seed=8)
    normal = torch.randn(len(inputs), 1, generator=generator)
    spread = torch.randn(len(inputs), 3, generator=generator).square().mean(1, keepdim=True).sqrt()
    return split(inputs, 2 * signal + normal / spread)


@cache
def rare_events() -> tuple[Examples, Examples]:
    """One row in twelve is positive, where a smooth function of 16 features is high; 3,000 rows (16,) -> (1,)."""
    inputs, signal, generator = _smooth_function(3000, seed=9)
    noisy = signal + 0.1 * torch.randn(signal.shape, generator=generator)
    return split(inputs, (noisy > noisy.quantile(11 / 12)).float())


def coin(flipped: float) -> tuple[Examples, Examples]:
    """Which side of a line 8 features are on, with this share of the labels flipped: a floor for every model."""
    generator = torch.Generator().manual_seed(10)
    inputs = torch.randn(2400, 8, generator=generator)
    side = (inputs[:, :1] + inputs[:, 1:2] > 0).float()
    return split(inputs, (side - (torch.rand(side.shape, generator=generator) < flipped).float()).abs())


def _smooth_function(rows: int, *, seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Features (rows, 16), a random two-layer function of them with spread 1 (rows, 1), and the generator used."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 16, generator=generator)
    hidden = torch.tanh(inputs @ torch.randn(16, 8, generator=generator) / 4)
    signal = hidden @ torch.randn(8, 1, generator=generator)
    return inputs, (signal - signal.mean()) / signal.std(), generator


@cache
def text(context: int) -> tuple[Examples, Examples, int]:
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


def standardized(values: np.ndarray) -> Tensor:
    return torch.tensor((values - values.mean(axis=0)) / values.std(axis=0), dtype=torch.float32)
