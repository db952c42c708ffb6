"""Curves of a run as comparisons need them: their noise, where two of them part, their final and best values."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lossdoctor.comparison.values import Estimate, Outcome, Parting, Reached
from lossdoctor.directions import higher_is_better
from lossdoctor.runs.tables import Run, Table
from lossdoctor.signals import SIGNALS

__all__ = ["Series", "all_equal", "elapsed", "outcome", "part", "reached", "series_of"]

Floats = npt.NDArray[np.float64]

_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
_OF_MEDIAN = 1.2533
"""Standard error of a median over that of a mean."""
_NORMAL = 1.96
_SURE = 4.0
"""Standard errors beyond which two curves are apart: many spans are looked at, and noise has tails."""
_IN_A_ROW = 3
_LEAST = 0.01
"""Share of the range of both curves below which a difference is none."""
_DENSE = 64
_ROWS = 8
"""Rows in a span of a dense curve at least."""
_SPAN = 20
_FINAL = 20
"""The end of a dense curve is its last twentieth."""
_BATCHES = 10
_STUDENT = 2.262
"""97.5 % quantile of Student's distribution with nine degrees of freedom."""
_FEW = 5
"""Values from which on noise can be told from a trend."""


@dataclass(frozen=True, slots=True)
class Series:
    """What was observed of a metric: `values` (rows,) at `steps` (rows,). `dense`: a row a step, or nearly so."""

    name: str
    steps: Floats
    values: Floats

    @property
    def dense(self) -> bool:
        """Whether single values say little: a training loss, batch by batch."""
        return len(self.values) >= _DENSE and self.name.startswith("train_")

    @property
    def finite(self) -> "Series":
        """Only what is finite."""
        keep = np.isfinite(self.values)
        return self if keep.all() else Series(self.name, self.steps[keep], self.values[keep])

    def smooth(self) -> "Series":
        """A dense curve by means over fiftieths of it, the others as they are; only what is finite."""
        one = self.finite
        width = len(one.values) // 50
        if not self.dense or width < 2:  # noqa: PLR2004  nothing to take a mean of
            return one
        rows = len(one.values) // width * width
        return Series(
            self.name, one.steps[:rows].reshape(-1, width)[:, -1], one.values[:rows].reshape(-1, width).mean(1)
        )


def series_of(run: Run) -> dict[str, Series]:
    """The metrics of a run by name: losses, accuracies, and whatever its owner reported."""
    found = _metrics(run.steps, ("train_loss", "train_accuracy"), "train_")
    return found | _metrics(run.evaluations, ("val_loss", "val_accuracy"), "val_")


def _metrics(table: Table, known: tuple[str, ...], prefix: str) -> dict[str, Series]:
    own = [name for name in table.columns if name.startswith(prefix) and name not in SIGNALS]
    found = {}
    for name in [*known, *own]:
        column = table.columns.get(name)
        if column is not None and column.values.ndim == 1 and (seen := column.mask()).any():
            found[name] = Series(name, table.step[seen], column.values[seen].astype(np.float64))
    return found


def elapsed(run: Run) -> Floats | None:
    """Seconds of training at every step row; pauses before a resume are left out. None where no time was recorded."""
    column = run.steps.columns.get("time")
    if column is None or len(column) < 2 or not np.isfinite(column.values).all():  # noqa: PLR2004  a span has two ends
        return None
    spans = np.maximum(np.diff(column.values.astype(np.float64), prepend=float(column.values[0])), 0.0)
    for mark in run.marks:
        row = int(np.searchsorted(run.steps.step, mark.step, "right"))
        if mark.name == "resume" and 0 < row < len(spans):
            spans[row] = 0.0
    return np.asarray(np.cumsum(spans))


def outcome(series: Series) -> Outcome:
    """The final and the best value of a metric, with an interval from the noise within the run."""
    higher = higher_is_better(series.name)
    one = series.finite
    if not len(series.values):
        return Outcome(metric=series.name, higher_is_better=higher)
    final = _final(series)
    best: Estimate | None = None
    smooth = series.smooth()
    if higher is not None and len(smooth.values):
        row = int(np.argmax(smooth.values) if higher else np.argmin(smooth.values))
        spread = _NORMAL * _noise(one.values) / (np.sqrt(max(len(one.values) // 50, 1)) if series.dense else 1.0)
        best = _estimate(float(smooth.values[row]), spread, float(smooth.steps[row]))
    return Outcome(metric=series.name, higher_is_better=higher, final=final, best=best)


def _final(series: Series) -> Estimate:
    """The last value; of a dense curve the mean of its last twentieth, its error from means of batches of it."""
    step = float(series.steps[-1])
    if not series.dense:
        noise = _noise(series.finite.values[-max(len(series.values) // 2, _FEW) :])
        return _estimate(float(series.values[-1]), _NORMAL * noise, step)
    last = series.values[-max(len(series.values) // _FINAL, 2 * _BATCHES) :]
    if not np.isfinite(last).all():
        return _estimate(float("nan"), float("nan"), step)
    size = len(last) // _BATCHES
    means = last[-size * _BATCHES :].reshape(_BATCHES, size).mean(1)
    at = np.arange(_BATCHES) - (_BATCHES - 1) / 2
    rest = means - means.mean() - at * (at @ means) / (at @ at)  # what still falls is no noise
    error = float(np.sqrt((rest @ rest) / (_BATCHES - 2) / _BATCHES))
    return _estimate(float(last.mean()), _STUDENT * error, step)


def _estimate(value: float, spread: float, step: float) -> Estimate:
    if not np.isfinite(spread) or not np.isfinite(value):
        return Estimate(value=value, step=step)
    return Estimate(value=value, low=float(value - spread), high=float(value + spread), method="noise", step=step)


def _noise(values: Floats) -> float:
    """The standard deviation of what is left of a curve beside its trend; NaN for too few values.

    Second differences do not see a line; of white noise they have six times the variance.
    """
    if len(values) < _FEW:
        return float("nan")
    bends = np.abs(values[2:] - 2 * values[1:-1] + values[:-2]) / np.sqrt(6)
    robust = _SIGMA * float(np.median(bends))
    return robust or float(np.sqrt(np.mean(np.square(bends))))


def reached(series: Series, target: float, times: tuple[Floats, Floats] | None) -> Reached:
    """When a curve first reached a target; `times` are steps and the seconds of training at them."""
    higher = higher_is_better(series.name)
    smooth = series.smooth()
    there = smooth.values >= target if higher else smooth.values <= target
    if not there.any():
        return Reached()
    step = float(smooth.steps[int(np.argmax(there))])
    if times is None:
        return Reached(step=step)
    row = min(int(np.searchsorted(times[0], step)), len(times[0]) - 1)
    return Reached(step=step, seconds=float(times[1][row]))


def part(one: Series, other: Series, run: str) -> Parting:
    """Where `other`, the curve of `run`, leaves `one`.

    The common steps are cut into spans, each a twentieth of the steps before it. Two curves are apart where three
    spans in a row differ in the same direction by more than four standard errors, and by more than 1 % of the range.
    The error of a span is the larger of what the noise of its rows makes and what spans scatter around their trend.
    """
    common, left, right = np.intersect1d(one.steps, other.steps, return_indices=True)
    equal = _equal(one.values[left], other.values[right])
    identical = len(common) == len(one.steps) == len(other.steps) and bool(equal.all())
    same = len(common) if equal.all() else int(np.argmin(equal))
    low, high = max(one.steps[0], other.steps[0]), min(one.steps[-1], other.steps[-1])
    parted: float | None = None
    if not identical and low < high:
        parted = _first_apart(_within(one, low, high), _within(other, low, high))
    return Parting(
        run=run,
        signal=one.name,
        identical=identical,
        same_until=float(common[same - 1]) if same else None,
        parted_at=parted,
        compared_from=float(low) if low <= high else None,
        compared_to=float(high) if low <= high else None,
    )


def _equal(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))


def _within(series: Series, low: float, high: float) -> Series:
    keep = (series.steps >= low) & (series.steps <= high)
    return Series(series.name, series.steps[keep], series.values[keep])


def _first_apart(one: Series, other: Series) -> float | None:
    candidates = []
    for broken, sound in ((one, other), (other, one)):
        bad = np.flatnonzero(~np.isfinite(broken.values))
        if len(bad):
            step = float(broken.steps[bad[0]])
            before = sound.values[sound.steps <= step]
            if not len(before) or np.isfinite(before).all():
                candidates.append(step)
    one, other = one.finite, other.finite
    if min(len(one.values), len(other.values)) >= _FEW:
        candidates += _beyond_noise(one, other)
    return min(candidates, default=None)


def _beyond_noise(one: Series, other: Series) -> list[float]:
    """The first step of the first streak of spans that differ, if there is one."""
    edges = _edges(one, other)
    levels, errors = zip(*(_spans(series, edges) for series in (one, other)), strict=True)
    gap = levels[1] - levels[0]
    together = np.concatenate(levels)
    reach = float(np.ptp(together[np.isfinite(together)])) if np.isfinite(together).any() else 0.0
    error = np.sqrt(np.square(errors[0]) + np.square(errors[1]))
    apart = np.where(np.abs(gap) > np.maximum(_SURE * error, _LEAST * reach), np.sign(gap), 0.0)
    for row in range(len(apart) - _IN_A_ROW + 1):
        streak = apart[row : row + _IN_A_ROW]
        if streak[0] and (streak == streak[0]).all():
            return [float(min(series.steps[series.steps >= edges[row]][0] for series in (one, other)))]
    return []


def _edges(one: Series, other: Series) -> Floats:
    """The bounds of spans that hold rows of both curves."""
    dense = min(len(one.values), len(other.values)) >= _DENSE
    spacing = max(float(np.median(np.diff(series.steps))) for series in (one, other))
    smallest = spacing * (_ROWS if dense else 1)
    low, high = max(one.steps[0], other.steps[0]), min(one.steps[-1], other.steps[-1])
    edges = [float(low)]
    while edges[-1] + 2 * smallest <= high + spacing:
        edges.append(edges[-1] + max(smallest, (edges[-1] - low) / _SPAN if dense else 0.0))
    return np.array([*edges, float(high) + spacing])


def _spans(series: Series, edges: Floats) -> tuple[Floats, Floats]:
    """Median and standard error of every span; NaN where a curve has no row in it."""
    bounds = np.searchsorted(series.steps, edges, "left")
    levels = np.full(len(edges) - 1, np.nan)
    errors = np.full(len(edges) - 1, np.nan)
    for row, (begin, end) in enumerate(pairwise(bounds)):
        if end > begin:
            around = series.values[max(begin - _ROWS, 0) : end + _ROWS]
            rows = end - begin
            levels[row] = np.median(series.values[begin:end])
            errors[row] = _noise(around) * (_OF_MEDIAN if rows > 2 else 1.0) / np.sqrt(rows)  # noqa: PLR2004
    scatter = np.array([_noise(_known(levels[max(row - 5, 0) : row + 6])) for row in range(len(levels))])
    return levels, np.fmax(errors, scatter)


def _known(values: Floats) -> Floats:
    return np.asarray(values[np.isfinite(values)])


def all_equal(one: Mapping[str, Series], other: Mapping[str, Series]) -> bool:
    """Whether two runs have the same numbers at the same steps, in everything that is compared."""

    def equal(first: Series, second: Series) -> Any:
        return np.array_equal(first.steps, second.steps) and _equal(first.values, second.values).all()

    return bool(one) and one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
