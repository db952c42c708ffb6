"""A curve of bounded size that keeps every spike: what a live view remembers of a signal."""

import numpy as np
import numpy.typing as npt

__all__ = ["Trace"]

Floats = npt.NDArray[np.float64]

_BUCKETS = 512
"""Buckets at most; where there would be more, neighbours are merged in pairs."""


class Trace:
    """Values of one signal, added bit by bit.

    A bucket of rows keeps its last step, its lowest, mean and highest finite value, and whether one was not finite.
    """

    def __init__(self) -> None:
        self._width = 1
        self._buckets: list[tuple[float, float, float, float, int, bool]] = []
        self.last = float("nan")
        """The latest value."""

    def __len__(self) -> int:
        """Number of buckets."""
        return len(self._buckets)

    def add(self, steps: Floats, values: Floats) -> None:
        """Take in values (rows,) at steps (rows,), behind those so far."""
        if not len(values):
            return
        self.last = float(values[-1])
        begin = 0
        while begin < len(values):
            open_rows = self._buckets[-1][4] if self._buckets else self._width
            room = self._width - open_rows if open_rows < self._width else self._width
            end = min(begin + room, len(values))
            bucket = _bucket(steps[begin:end], values[begin:end])
            if open_rows < self._width:
                self._buckets[-1] = _merged(self._buckets[-1], bucket)
            else:
                self._buckets.append(bucket)
            begin = end
            if len(self._buckets) > _BUCKETS:
                pairs = [self._buckets[at : at + 2] for at in range(0, len(self._buckets), 2)]
                self._buckets = [_merged(*pair) if len(pair) > 1 else pair[0] for pair in pairs]
                self._width *= 2

    def points(self) -> tuple[Floats, Floats]:
        """Steps and values for drawing: three values a bucket, and a NaN where one was not finite."""
        steps: list[float] = []
        values: list[float] = []
        for step, low, mean, high, rows, broken in self._buckets:
            shown = [mean] if rows == 1 else [low, mean, high]
            shown = [np.nan] if broken else shown
            steps += [step] * len(shown)
            values += shown
        return np.array(steps), np.array(values)


def _bucket(steps: Floats, values: Floats) -> tuple[float, float, float, float, int, bool]:
    finite = values[np.isfinite(values)]
    broken = len(finite) < len(values)
    if not len(finite):
        return float(steps[-1]), np.inf, np.nan, -np.inf, len(values), True
    with np.errstate(over="ignore"):
        mean = float(finite.mean())
    return float(steps[-1]), float(finite.min()), mean, float(finite.max()), len(values), broken


def _merged(
    one: tuple[float, float, float, float, int, bool], other: tuple[float, float, float, float, int, bool]
) -> tuple[float, float, float, float, int, bool]:
    rows = one[4] + other[4]
    means = [(bucket[2], bucket[4]) for bucket in (one, other) if not np.isnan(bucket[2])]
    mean = sum(mean * (count / sum(count for _, count in means)) for mean, count in means) if means else np.nan
    return other[0], min(one[1], other[1]), mean, max(one[3], other[3]), rows, one[5] or other[5]
