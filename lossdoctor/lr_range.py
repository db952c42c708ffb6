"""The learning-rate range test: which rates this model learns at, before hours are spent on one that it does not."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from lossdoctor.errors import UsageError
from lossdoctor.monitor import live_monitors
from lossdoctor.remedies.aside import Aside

__all__ = ["LearningRates", "find_lr"]

Floats = npt.NDArray[np.float64]

_ENOUGH = 8
"""Fewer losses show no shape."""
_BANDWIDTH = 0.04
"""Width of the smoothing kernel, as a share of the sweep."""
_SURE = 5.0
"""A fall or a rise counts from so many times the noise of the smoothed losses: the lowest of a hundred is chosen."""
_FAR = 4.0
"""Times the noise of a batch's loss that the last losses stand above the start where the sweep ends."""


@dataclass(frozen=True, slots=True)
class LearningRates:
    """What a range test has found. Rates that the losses do not show are None.

    `rates` and `losses` are (steps,); `smoothed` are the losses after smoothing over the logarithm of the rate.
    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    steepest: float | None
    """Where the loss falls fastest."""
    lowest: float | None
    """Where the loss is lowest: too high to train with."""
    before_rise: float | None
    """The last rate before the loss rises for good; None if it did not rise within the sweep."""
    suggestion: float | None
    """The steepest point, but between a tenth and a third of `lowest`; None if the loss did not fall."""
    stopped: str
    """Why the sweep ended: "diverged", "not finite" or "swept"."""

    @property
    def tenth(self) -> float | None:
        """A tenth of the lowest point's rate: the careful choice."""
        return None if self.lowest is None else self.lowest / 10

    @property
    def third(self) -> float | None:
        """A third of the lowest point's rate: the bold choice."""
        return None if self.lowest is None else self.lowest / 3

    def __str__(self) -> str:
        """One line."""
        if self.suggestion is None:
            return (
                f"no learning rate from {self.rates[0]:.1e} to {self.rates[-1]:.1e} brought the loss down beyond its "
                "noise: sweep further, take more steps, or look at the data"
            )
        rise = "" if self.before_rise is None else f"; the loss rises beyond {self.before_rise:.1e}"
        return (
            f"learning rate {self.suggestion:.1e} (steepest at {self.steepest:.1e}, lowest at {self.lowest:.1e}{rise})"
        )

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """Draw the sweep: a matplotlib figure, also saved to `path` if one is given."""
        from matplotlib.figure import Figure  # noqa: PLC0415 - heavy, and not needed without a plot

        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.semilogx(self.rates, self.losses, ".", color="0.7", markersize=4, label="loss of a batch")
        axes.semilogx(self.rates, self.smoothed, color="#0072B2", label="smoothed")
        low, high = float(np.min(self.smoothed)), float(np.max(self.smoothed[: max(len(self.smoothed) // 2, 1)]))
        margin = 0.3 * ((high - low) or abs(high) or 1.0)
        axes.set_ylim(low - margin, high + margin)
        marks = (("steepest", self.steepest, ":"), ("lowest", self.lowest, "--"), ("suggestion", self.suggestion, "-"))
        for name, rate, style in marks:
            if rate is not None:
                axes.axvline(rate, color="#D55E00", linestyle=style, linewidth=1, label=f"{name} {rate:.1e}")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.legend(frameon=False)
        if path is not None:
            figure.savefig(path)
        return figure


def find_lr(
    model: nn.Module,
    optimizer: Optimizer,
    train_step: Callable[[], Tensor | float] | None = None,
    *,
    loss_fn: Callable[[nn.Module, Any], Tensor] | None = None,
    loader: Iterable[Any] | None = None,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    scaler: GradScaler | None = None,
    scheduler: Any = None,
) -> LearningRates:
    """Sweep the learning rate from `lowest` to `highest` and see where the loss falls, then put everything back.

    Training steps are taken at a rate that grows exponentially until the loss has lost what it gained or is not finite
    (Smith 2017, Cyclical Learning Rates for Training Neural Networks; Gugger 2018). Groups keep the proportions of
    their rates; the rates that are returned are the largest group's. Model, optimizer, scaler, scheduler and random
    generators are afterwards as they were, bit for bit; a Monitor does not see the steps.

    Args:
        model: The model, in the mode it is to be trained in.
        optimizer: Its optimizer, as it is at the beginning of the training.
        train_step: Takes one training step (forward, backward, optimizer step) on its next batch; returns the loss.
        loss_fn: In place of `train_step`: `loss_fn(model, batch)` gives the loss of a batch, a scalar tensor.
        loader: The batches for `loss_fn`; begun anew when it ends.
        lowest: The first learning rate.
        highest: The last one.
        steps: Steps of the sweep, at least 8. More of them make a noisy loss clearer.
        scaler: The GradScaler, if `train_step` uses one.
        scheduler: The scheduler, if `train_step` steps one.

    Raises:
        UsageError: Neither `train_step` nor both `loss_fn` and `loader` are given, or a number is out of range.
    """
    if (train_step is None) == (loss_fn is None or loader is None):
        raise UsageError("find_lr: give either train_step, or loss_fn and loader")
    if not (0 < lowest < highest and math.isfinite(highest)):
        raise UsageError(f"find_lr(lowest={lowest}, highest={highest}): expected 0 < lowest < highest")
    if steps < _ENOUGH:
        raise UsageError(f"find_lr(steps={steps}): fewer than {_ENOUGH} steps show no shape")
    schedulers = [] if scheduler is None else [scheduler]
    with contextlib.ExitStack() as stack:
        for monitor in live_monitors():
            stack.enter_context(monitor.aside())
        aside = Aside(model, [optimizer], scaler=scaler, schedulers=schedulers, loaders=[loader])
        stack.enter_context(aside.held())
        step = train_step or _loop(model, optimizer, loss_fn, loader)  # type: ignore[arg-type]  # checked above
        rates = np.geomspace(lowest, highest, steps)
        losses, stopped = _sweep(optimizer, step, rates)
    return _read(rates[: len(losses)], np.array(losses), stopped)


def _loop(
    model: nn.Module, optimizer: Optimizer, loss_fn: Callable[[nn.Module, Any], Tensor], loader: Iterable[Any]
) -> Callable[[], Tensor]:
    def again() -> Iterator[Any]:
        while True:
            count = 0
            for count, batch in enumerate(loader, start=1):  # noqa: B007 - used after the loop
                yield batch
            if not count:
                raise UsageError("find_lr: the loader has no batches")

    batches = again()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model, next(batches))
        loss.backward()
        optimizer.step()
        return loss

    return step


def _sweep(optimizer: Optimizer, step: Callable[[], Tensor | float], rates: Floats) -> tuple[list[float], str]:
    groups = optimizer.param_groups
    largest = max(float(group["lr"]) for group in groups)
    shares = [float(group["lr"]) / largest if largest else 1.0 for group in groups]
    losses: list[float] = []
    for rate in rates:
        for group, share in zip(groups, shares, strict=True):
            _set(group, rate * share)
        value = step()
        loss = float(value.detach() if isinstance(value, Tensor) else value)
        if not math.isfinite(loss):
            return losses, "not finite"
        losses.append(loss)
        if _has_diverged(np.array(losses)):
            return losses, "diverged"
    return losses, "swept"


def _set(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        with torch.no_grad():
            group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _has_diverged(losses: Floats) -> bool:
    """Whether the last losses have given back all that was gained, and stand above the start by as much again."""
    if len(losses) < 2 * _ENOUGH:
        return False
    start, now = float(np.median(losses[:_ENOUGH])), float(np.median(losses[-3:]))
    gained = start - float(_smoothed(losses).min())
    return now > start + max(gained, _FAR * _noise(losses[: len(losses) // 2]))


def _noise(losses: Floats) -> float:
    """The robust standard deviation of a loss about its trend, from second differences."""
    if len(losses) < 3:  # noqa: PLR2004 - a second difference takes three
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(losses, 2))) / math.sqrt(6))


def _kernel(count: int) -> Floats:
    """What local lines under a Gaussian kernel make of `count` values: a matrix (count, count)."""
    at = np.arange(count, dtype=np.float64)
    width = max(_BANDWIDTH * count, 1.5)
    weights = np.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    middle = weights @ at
    spread = weights @ at**2 - middle**2
    kernel: Floats = weights * (1 + (at - middle)[:, None] * (at - middle[:, None]) / spread[:, None])
    return kernel


def _smoothed(losses: Floats) -> Floats:
    """Smoothed over the logarithm of the rate; the median of three takes single outliers away before."""
    padded = np.pad(losses, 1, mode="edge")
    robust = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    smooth: Floats = _kernel(len(losses)) @ robust
    return smooth


def _read(rates: Floats, losses: Floats, stopped: str) -> LearningRates:
    nothing: Mapping[str, None] = {"steepest": None, "lowest": None, "before_rise": None, "suggestion": None}
    if len(losses) < _ENOUGH:
        return LearningRates(rates, losses, losses, **nothing, stopped=stopped)
    smooth = _smoothed(losses)
    # What smoothing leaves of the noise, more of it at the ends.
    noise = _noise(losses) * np.sqrt(np.sum(_kernel(len(losses)) ** 2, axis=1))
    bottom = int(np.argmin(smooth))
    start = float(np.median(smooth[: max(len(smooth) // 8, 1)]))
    if start - smooth[bottom] <= max(_SURE * float(noise[bottom]), 1e-12 * abs(start)):
        return LearningRates(rates, losses, smooth, **nothing, stopped=stopped)
    slope = np.gradient(smooth, np.log(rates))
    steepest = float(rates[int(np.argmin(slope[: bottom + 1]))])
    lowest = float(rates[bottom])
    risen = np.flatnonzero(
        smooth[bottom:] - smooth[bottom] > np.maximum(noise[bottom:], 0.05 * (start - smooth[bottom]))
    )
    before_rise = float(rates[bottom + risen[0] - 1]) if len(risen) and risen[0] else None
    return LearningRates(
        rates,
        losses,
        smooth,
        steepest=steepest,
        lowest=lowest,
        before_rise=before_rise,
        suggestion=min(max(steepest, lowest / 10), lowest / 3),
        stopped=stopped,
    )
