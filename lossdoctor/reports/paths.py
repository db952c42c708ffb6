"""Paths of SVG: x counts steps, y parts of an axis, all in whole numbers, so that they are short and exact."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BOTTOM", "TALL", "TOP", "Path", "StepAxis", "dots", "through"]

Values = npt.NDArray[np.float64]

TALL = 10_000
"""Height of every field, in its own units."""

TOP, BOTTOM = 900, 9_700
"""Where a scale's high and low end are drawn; the band above is for what does not fit and what is no number."""

_COARSEST, _FINE, _FINEST = 1000, 100_000, 2_000_000
"""Widths of a field in its own units: one unit is a step where that is fine enough and not too fine."""


@dataclass(frozen=True, slots=True)
class Path:
    """One path: its data, its CSS classes, what it is called, and values its points cannot tell ("x:value ...")."""

    d: str
    classes: str
    label: str = ""
    beyond: str = ""


@dataclass(frozen=True, slots=True)
class StepAxis:
    """Where steps lie: x = (step - first) / unit, up to `width`."""

    first: float
    unit: float
    width: int

    @classmethod
    def over(cls, first: float, last: float) -> "StepAxis":
        """The axis from one step to another: one unit is a step, unless there are too few or too many of them."""
        span = last - first
        unit = 1.0 if _COARSEST <= span <= _FINEST else span / _FINE
        return cls(first, unit, max(round(span / unit), 1))

    def x(self, steps: Values) -> npt.NDArray[np.int64]:
        """Where steps lie, in units."""
        return np.round((steps - self.first) / self.unit).astype(np.int64)

    def at(self, step: float) -> int:
        """Where one step lies, in units."""
        return int(self.x(np.array([step]))[0])

    def percent(self, step: float) -> float:
        """Where one step lies, in percent of the width."""
        return round(100 * self.at(step) / self.width, 2)


def through(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], gaps: Iterable[int]) -> str:
    """A line through points, in relative coordinates: short, and exact as all are whole numbers."""
    if not len(x):
        return ""
    moves, dx, dy = {0, *gaps}, np.diff(x, prepend=0).tolist(), np.diff(y, prepend=0).tolist()
    parts: list[str] = []
    for row, (right, down) in enumerate(zip(dx, dy, strict=True)):
        parts.append(f"{'m' if row in moves else 'l'}{right}{'' if down < 0 else ' '}{down}")
        if row in moves and (row + 1 in moves or row + 1 == len(dx)):
            parts.append("h0")  # a point of its own is seen through its round cap
    return "M" + "".join(parts)[1:]


def dots(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64] | int) -> str:
    """Points, drawn by round caps of lines without a length."""
    heights = np.broadcast_to(y, x.shape).tolist()
    return "".join(f"M{right} {down}h0" for right, down in zip(x.tolist(), heights, strict=True))
