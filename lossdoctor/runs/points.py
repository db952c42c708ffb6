"""Metrics that were stored one file or key each, every one with its own steps, laid beside each other in rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.readers.log import Series

__all__ = ["Points", "laid_out"]

_Floats = npt.NDArray[np.float64]
_ELSEWHERE = 0.5  # steps that differ by more than this share from the others' at the same time count something else


@dataclass(frozen=True, slots=True)
class Points:
    """One metric in the order it was logged: step and value of each point, and the time in seconds where known."""

    step: _Floats
    value: _Floats
    time: _Floats | None = None


def laid_out(points: Mapping[str, Points]) -> tuple[dict[str, Series], int]:
    """Rows by step, or by time where a training began anew, with a column "step"; and how many rows there are.

    A metric whose steps are all the same had none: its points are counted, or, where times are known, put at the steps
    of the others. So is a metric that counts otherwise (epochs, where the others count batches).
    """
    kept = {name: one for name, one in points.items() if len(one.value)}
    if not kept:
        return {}, 0
    placed = _with_common_steps(kept)
    names = list(placed)
    column = np.concatenate([np.full(len(kept[name].value), index) for index, name in enumerate(names)])
    step = np.concatenate([placed[name] for name in names])
    value = np.concatenate([kept[name].value for name in names])
    attempt = np.concatenate([_attempts(placed[name]) for name in names])
    times = [kept[name].time for name in names]
    if attempt.any() and all(time is not None for time in times):
        order = np.lexsort((step, np.concatenate([time for time in times if time is not None])))
        row = _rows_in_time(step[order], column[order])
    else:
        order = np.lexsort((column, step, attempt))
        ordered_step, ordered_attempt = step[order], attempt[order]
        new = (np.diff(ordered_step) != 0) | (np.diff(ordered_attempt) != 0)
        row = np.r_[0, np.cumsum(new)].astype(np.int64)
    rows = int(row[-1]) + 1
    first = np.r_[True, np.diff(row) > 0]
    series = {"step": Series(step[order][first], np.arange(rows, dtype=np.int64))}
    for index, name in enumerate(names):
        if name == "step":
            continue
        mine = column[order] == index
        at, values = row[mine], value[order][mine]
        last = np.r_[np.diff(at) > 0, True]  # of several values at one step the last one counts
        series[name] = Series(values[last], at[last])
    return series, rows


def _attempts(step: _Floats) -> npt.NDArray[np.int64]:
    """How often the steps have gone back before each point."""
    return np.concatenate([[0], np.cumsum(np.diff(step) < 0)]).astype(np.int64)


def _with_common_steps(points: Mapping[str, Points]) -> dict[str, _Floats]:
    counting = {name: one for name, one in points.items() if len(one.step) > 1 and np.ptp(one.step) > 0}
    if not counting:
        return {name: np.arange(len(one.step), dtype=np.float64) for name, one in points.items()}
    reference = max(counting.values(), key=lambda one: len(one.step))
    result = {}
    for name, one in points.items():
        stepless = len(one.step) > 1 and name not in counting
        if one.time is None or reference.time is None or (_attempts(reference.step).any() and not stepless):
            result[name] = np.arange(len(one.step), dtype=np.float64) if stepless else one.step
            continue
        at = np.searchsorted(reference.time, one.time, side="right") - 1
        beside = reference.step[np.maximum(at, 0)]
        away = np.abs(one.step - beside) > _ELSEWHERE * np.maximum(np.maximum(one.step, beside), 1)
        late = one.time - reference.time[0] > _ELSEWHERE * (reference.time[-1] - reference.time[0])
        other = len(one.step) > 1 and away[late].mean() > _ELSEWHERE if late.any() else False
        result[name] = beside if stepless or other else one.step
    return result


def _rows_in_time(step: _Floats, column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A row ends where the step changes or a metric comes again."""
    row = np.empty(len(step), dtype=np.int64)
    number, seen, before = -1, set[int](), None
    for index, (at, of) in enumerate(zip(step.tolist(), column.tolist(), strict=True)):
        if at != before or of in seen:
            number, before = number + 1, at
            seen.clear()
        seen.add(of)
        row[index] = number
    return row
