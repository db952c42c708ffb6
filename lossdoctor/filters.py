"""Causal filters over blocks: what the statistics of the rule language are made of.

A filter is called with one block after another and carries what it needs from the past, so that any cut of a series
gives the same output to the last bit.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import bottleneck as bn
import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Count", "Held", "Lag", "Moving", "Running", "Streak", "Weighted", "is_constant"]

Array: TypeAlias = npt.NDArray[np.float64]


_FEW = 64
"""In shorter blocks there is nothing to gain by looking first."""


def _row(template: Array, value: float) -> Array:
    """One row shaped like the rows of `template`, filled with `value`."""
    return np.full((1, *template.shape[1:]), value)


class _Tail:
    """Keeps the last rows of a series, to put before the next block."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kept: Array | None = None

    def join(self, block: Array) -> Array:
        """The kept rows followed by `block`."""
        joined = block if self._kept is None else np.concatenate((self._kept, block))
        self._kept = joined[max(len(joined) - self._rows, 0) :].copy()
        return joined


class Lag:
    """The value n ticks ago; NaN for the first n ticks."""

    def __init__(self, ticks: int = 1) -> None:
        self._ticks = ticks
        self._kept: Array | None = None

    def __call__(self, block: Array) -> Array:
        """The block, so many ticks late."""
        kept = np.repeat(_row(block, np.nan), self._ticks, axis=0) if self._kept is None else self._kept
        joined = np.concatenate((kept, block))
        self._kept = joined[len(block) :].copy()
        if joined.ndim == 1 and len(block) and not block.strides[0] and is_constant(joined):
            return block
        return joined[: len(block)]


def is_constant(values: Array) -> bool:
    """Whether all values are the same number, or all are missing. Most series tell by their ends."""
    if not values.strides[0]:
        return True
    first, last = values[0], values[-1]
    if np.isnan(first):
        return bool(np.isnan(last) and np.isnan(values).all())
    return bool(first == last and (values == first).all())


class Moving:
    """An order statistic of the last `window` ticks: bottleneck's move_median or move_min.

    Decided once `enough` of them were seen, by default half of the window.
    """

    def __init__(self, window: int, *, enough: int | None = None, of: Callable[..., Array] = bn.move_median) -> None:
        self._window, self._of = window, of
        self._enough = -(-window // 2) if enough is None else enough
        self._tail = _Tail(window - 1)

    def __call__(self, block: Array) -> Array:
        """The statistic at every tick of the next block."""
        if not len(block):
            return block
        joined = self._tail.join(block)
        # bottleneck refuses a window that is longer than the series: pad with "not seen".
        short = self._window - len(joined)
        padded = joined if short <= 0 else np.concatenate((np.repeat(_row(joined, np.nan), short, axis=0), joined))
        if padded.ndim == 1 and is_constant(padded):  # settings and what was never recorded: nothing to sort
            before, enough = len(padded) - len(block), min(self._enough, self._window)
            if before + 1 >= enough:
                return np.broadcast_to(padded[0], len(block))
            return np.where(before + np.arange(1, len(block) + 1) >= enough, padded[0], np.nan)
        moved = self._of(padded, window=self._window, min_count=min(self._enough, self._window), axis=0)
        return moved[len(padded) - len(block) :]


class Weighted:
    """A fixed weighted sum over the last ticks, in a fixed order, so that rounding cannot depend on the cut."""

    def __init__(self, weights: Array) -> None:
        self._weights = weights
        self._tail = _Tail(len(weights) - 1)

    def __call__(self, block: Array) -> Array:
        """The sum at every tick of the next block; NaN before the first is whole."""
        joined = self._tail.join(block)
        short = len(self._weights) - 1 + len(block) - len(joined)
        if short:
            joined = np.concatenate((np.repeat(_row(joined, np.nan), short, axis=0), joined))
        total = np.zeros_like(block)
        for offset, weight in enumerate(self._weights):
            total += weight * joined[offset : offset + len(block)]
        return total


class Running:
    """A running reduction (`np.fmin`, `np.fmax`, ...) over everything so far."""

    def __init__(self, reduce: np.ufunc) -> None:
        self._reduce = reduce
        self._carry: Array | None = None

    def __call__(self, block: Array) -> Array:
        """The reduction at every tick of the next block."""
        if not len(block):
            return block
        carry = _row(block, np.nan) if self._carry is None else self._carry
        if len(block) > _FEW:
            last = self._reduce(carry[0], self._reduce.reduce(block))
            if np.array_equal(last, carry[0], equal_nan=True):
                return np.broadcast_to(carry, block.shape)
        run: Array = self._reduce.accumulate(np.concatenate((carry, block)))
        self._carry = run[-1:].copy()
        return run[1:]


class Held:
    """The value of `x` at the latest tick where `taken` was true; NaN before."""

    def __init__(self) -> None:
        self._carry: Array | None = None

    def __call__(self, x: Array, taken: npt.NDArray[np.bool_]) -> Array:
        """The values held over the next block; `taken` has the shape of `x`."""
        if not len(x):
            return x
        carry = _row(x, np.nan) if self._carry is None else self._carry
        if taken.all():
            self._carry = x[-1:].copy()
            return x
        if not taken.any():
            return np.broadcast_to(carry, x.shape)
        if x.ndim == 1:
            rows = np.flatnonzero(taken)
            bounds = np.concatenate(([0], rows, [len(x)]))
            held = np.repeat(np.concatenate((carry, x[rows])), bounds[1:] - bounds[:-1])
            self._carry = held[-1:].copy()
            return held
        ticks = np.arange(1, len(x) + 1).reshape(-1, *(1,) * (x.ndim - 1))
        latest = np.maximum.accumulate(np.where(taken, ticks, 0), axis=0)
        held = np.take_along_axis(np.concatenate((carry, x)), latest, axis=0)
        self._carry = held[-1:].copy()
        return held


class Count:
    """How many ticks so far the condition held."""

    def __init__(self) -> None:
        self._total: Any = 0

    def __call__(self, condition: Array) -> Array:
        """The count at every tick of the next block."""
        held = condition == 1
        if not held.any():
            return np.broadcast_to(np.asarray(self._total, dtype=np.float64), condition.shape)
        counted = np.cumsum(held, axis=0, dtype=np.int64) + self._total
        if len(condition):
            self._total = counted[-1]
        total: Array = counted.astype(np.float64)
        return total


class Streak:
    """How many ticks in a row the condition has held; an undecided tick neither extends nor breaks it."""

    def __init__(self) -> None:
        self._count, self._base = Count(), Running(np.fmax)

    def __call__(self, condition: Array) -> Array:
        """The streak at every tick of the next block."""
        if len(condition) > 1 and not condition.any():  # broken at every tick: what holds after the first, holds
            return np.broadcast_to(self(condition[:1]), condition.shape)
        total = self._count(condition)
        base = self._base(np.where(condition == 0, total, 0.0))
        streak: Array = total - base
        return streak
