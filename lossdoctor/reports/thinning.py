"""Long curves made short without losing what stands out: the extremes of every stretch are kept, and every NaN.

A drawing of a thousand pixels cannot show a million values. Means would hide a spike of one step, so each stretch
keeps its smallest and its largest value at their own steps; values that are no numbers are kept apart as marks.
"""

from dataclasses import dataclass

import bottleneck as bn
import numpy as np
import numpy.typing as npt

__all__ = ["Thinned", "thin", "typical"]

Values = npt.NDArray[np.float64]

_SHORTEST_STRETCH = 4
"""Rows a stretch must have before thinning is worth it: two of them stay."""


@dataclass(frozen=True, slots=True)
class Thinned:
    """What is left of a curve: finite `values` (points,) at `steps` (points,), ascending.

    `gaps` are positions in `values` before which the line is broken, as nothing finite lies between. `non_finite` are
    steps at which the value was NaN or Inf, one a stretch; `non_finite_rows` counts all of them. `rows` is how many
    values there were.
    """

    steps: Values
    values: Values
    gaps: frozenset[int]
    non_finite: Values
    non_finite_rows: int
    rows: int


def thin(steps: Values, values: Values, stretches: int) -> Thinned:
    """Keep the extremes of each of at most `stretches` stretches with equal numbers of rows.

    `steps` and `values` are (rows,), `steps` never falling. At most two points a stretch are left, and the two ends.

    >>> spike = np.zeros(100_000)
    >>> spike[77_777] = 9.0
    >>> curve = thin(np.arange(100_000.0), spike, 100)
    >>> len(curve.values) <= 202, curve.steps[curve.values == 9.0]
    (True, array([77777.]))
    """
    finite = np.isfinite(values)
    bad = np.flatnonzero(~finite)
    size = -(-len(values) // max(stretches, 1))
    kept = np.flatnonzero(finite)
    if size >= _SHORTEST_STRETCH and len(kept):
        ends = kept[[0, -1]]
        lowest = np.argmin(_stretched(np.where(finite, values, np.inf), size, np.inf), axis=1)
        highest = np.argmax(_stretched(np.where(finite, values, -np.inf), size, -np.inf), axis=1)
        first = np.arange(len(lowest)) * size
        found = np.unique(np.concatenate([ends, first + lowest, first + highest]))
        kept = found[found < len(values)]
        kept = kept[finite[kept]]
    marks = bad if size < _SHORTEST_STRETCH else bad[np.unique(bad // size, return_index=True)[1]]
    return Thinned(
        steps=steps[kept],
        values=values[kept],
        gaps=_gaps(kept, finite, size if size >= _SHORTEST_STRETCH else 1),
        non_finite=steps[marks],
        non_finite_rows=len(bad),
        rows=len(values),
    )


def typical(steps: Values, values: Values, stretches: int) -> tuple[Values, Values]:
    """The median of the finite values of each stretch, at the step in its middle: what a noisy curve is about.

    >>> typical(np.arange(6.0), np.array([1.0, 1.2, 1.1, 3.0, np.nan, 3.2]), 2)
    (array([1., 4.]), array([1.1, 3.1]))
    """
    size = -(-len(values) // max(stretches, 1))
    known = np.where(np.isfinite(values), values, np.nan)
    middle = bn.nanmedian(_stretched(known, size, np.nan), axis=1)
    rows = np.flatnonzero(~np.isnan(middle))
    centre = np.minimum(rows * size + size // 2, len(values) - 1)
    return steps[centre], middle[rows]


def _stretched(values: Values, size: int, filling: float) -> Values:
    """`values` as (stretches, size), the last row filled up."""
    missing = -len(values) % size
    padded = np.concatenate([values, np.full(missing, filling)]) if missing else values
    return padded.reshape(-1, size)


def _gaps(kept: npt.NDArray[np.int64], finite: npt.NDArray[np.bool_], size: int) -> frozenset[int]:
    """Positions in `kept` before which more than `size` rows in a row were not finite (all of them, of few rows)."""
    if finite.all() or len(kept) < 2:  # noqa: PLR2004  a single point has no line
        return frozenset()
    missing = np.concatenate([[0], np.cumsum(~finite)])
    between = missing[kept[1:]] - missing[kept[:-1]]
    return frozenset((np.flatnonzero(between >= size) + 1).tolist())
