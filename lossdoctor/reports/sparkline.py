"""A signal over the run in one line of text, with the span of a finding marked underneath.

A column shows the median of its rows, or the extreme of them where that stands out: a spike of a single step among a
million stays visible. A column that holds a NaN or an Inf shows a mark of its own.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Sparkline", "sparkline"]

_RAMP = "▁▂▃▄▅▆▇█"
_ASCII_RAMP = ".:-=+*#@"
_NON_FINITE = "×"
_ASCII_NON_FINITE = "x"
_LEVELS = len(_RAMP)

_LOG_ABOVE = 100.0
"""Largest over smallest value from which on a positive signal is drawn on a logarithmic scale."""

_STANDS_OUT = 2.0
"""Levels by which an extreme must differ from its column's median to be drawn in its place."""

_WIDEN_TO = 48
"""Columns that a signal with few values is widened to, by repeating each."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The drawing. `bars` and `marks` have one character per column; `marks` has ``^`` under the finding's span.

    `low` and `high` are the smallest and largest finite value, `first` and `last` the steps drawn from and to, and
    `non_finite` the number of values that were NaN or Inf.
    """

    bars: str
    marks: str
    low: float
    high: float
    first: float
    last: float
    non_finite: int
    logarithmic: bool


def sparkline(
    steps: Values,
    values: Values,
    *,
    span: tuple[float, float] | None = None,
    width: int = 60,
    unicode: bool = True,
) -> Sparkline | None:
    """Draw `values` (rows,) at `steps` (rows,), ascending; None if there are no values.

    Columns are equal numbers of rows, so every column has something to show however uneven the steps are.
    `span` is the first and the last step to mark.

    >>> line = sparkline(np.arange(8.0), np.arange(8.0), span=(5, 7), width=8)
    >>> print(line.bars, line.marks, sep=chr(10))
    ▁▂▃▄▅▆▇█
         ^^^
    """
    if not len(values):
        return None
    ramp, mark = (_RAMP, _NON_FINITE) if unicode else (_ASCII_RAMP, _ASCII_NON_FINITE)
    finite = np.isfinite(values)
    known = values[finite]
    low, high = (float(known.min()), float(known.max())) if len(known) else (float("nan"), float("nan"))
    logarithmic = low > 0 and high / low > _LOG_ABOVE
    columns = min(width, len(values))
    edges = np.arange(columns + 1) * len(values) // columns
    repeat = max(1, min(width, _WIDEN_TO) // columns)
    bars = ""
    for begin, end in pairwise(edges):
        whole = bool(finite[begin:end].all())
        bars += ramp[_level(values[begin:end], low, high, logarithmic=logarithmic)] if whole else mark
    return Sparkline(
        bars="".join(bar * repeat for bar in bars),
        marks="".join(char * repeat for char in _marks(steps, edges, span)),
        low=low,
        high=high,
        first=float(steps[0]),
        last=float(steps[-1]),
        non_finite=len(values) - len(known),
        logarithmic=logarithmic,
    )


def _level(column: Values, low: float, high: float, *, logarithmic: bool) -> int:
    """The bar, 0 to 7, of one column of finite values."""
    shown = np.array([column.min(), np.median(column), column.max()])
    if logarithmic:
        shown, low, high = np.log(shown), float(np.log(low)), float(np.log(high))
    if high <= low:
        return _LEVELS // 2 - 1
    # Halves before the difference: high - low may overflow for values near the largest float.
    least, middle, most = (shown / 2 - low / 2) / (high / 2 - low / 2) * (_LEVELS - 1)
    above, below = most - middle, middle - least
    if max(above, below) >= _STANDS_OUT:
        middle = most if above >= below else least
    return round(float(np.clip(middle, 0, _LEVELS - 1)))


def _marks(steps: Values, edges: npt.NDArray[np.int64], span: tuple[float, float] | None) -> str:
    """One character per column: ``^`` where the span touches it. A span between two rows marks the later one."""
    if span is None:
        return " " * (len(edges) - 1)
    begin = min(int(np.searchsorted(steps, span[0], "left")), len(steps) - 1)
    end = max(int(np.searchsorted(steps, span[1], "right")), begin + 1)
    return "".join("^" if left < end and right > begin else " " for left, right in pairwise(edges))
