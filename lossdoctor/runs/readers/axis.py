"""Which column of a log counts the training, and where trainings in it begin, end and are resumed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.languages import in_english
from lossdoctor.runs.readers.aliases import EPOCH_NAMES, STEP_NAMES
from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.names import understand

__all__ = ["Attempt", "Axis", "attempts", "axis_of", "is_cyclic", "restricted", "unwrapped"]

_ENOUGH = 0.5
"""Share of the rows that an axis must be on; on the others it is what it was before."""
_LIKE = 0.1
"""Passes that differ in length by less than this share are epochs whose batches are counted from 0 again."""
_JITTER = 2
"""Rows that may be late before going back means more than that they were written in another order."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Axis:
    """What a log counts: the column's name ("row" where there is none), and its value at every row."""

    name: str
    values: Floats
    epochs: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One training of a log: its rows, without those that a resume made void, and the steps it was resumed at."""

    rows: Rows
    step: Floats
    resumed: tuple[float, ...] = ()


def axis_of(log: Log) -> Axis:
    """The axis of a log: steps before epochs before the rows themselves.

    Where steps are counted from 0 again in every epoch, they are put behind each other; where rows know only their
    epoch, they divide it.
    """
    lower = {in_english(name).strip().lower(): name for name in reversed(list(log.series))}
    main = main_rows(log)
    step = _first(log, lower, STEP_NAMES)
    epoch = _first(log, lower, EPOCH_NAMES)
    if step is not None:
        values = _filled(log, step)
        if epoch is not None:
            values = _through_epochs(values, _filled(log, epoch), main, _logged(log, epoch))
        return Axis(step, values)
    if epoch is not None:
        return Axis(epoch, _divided(_filled(log, epoch), main), epochs=True)
    return Axis("row", np.arange(1.0, log.rows + 1))


def main_rows(log: Log) -> Rows:
    """The rows of the training: where the loss with the most points stands; all rows where there is no loss."""
    found: Rows = np.empty(0, np.int64)
    for name, series in log.series.items():
        known = understand(name)
        if known.role == "loss" and known.split in {"", "train"} and len(series.at) > len(found):
            found = series.at
    if len(found):
        return np.unique(found)
    measured = [series.at for name, series in log.series.items() if understand(name).role in {"loss", "accuracy"}]
    return np.unique(np.concatenate(measured)) if measured else np.arange(log.rows)


def _first(log: Log, lower: dict[str, str], names: Sequence[str]) -> str | None:
    for name in names:
        if name in lower:
            series = log.series[lower[name]]
            finite = np.isfinite(series.values)
            moves = bool(finite.any()) and (log.rows == 1 or np.ptp(series.values[finite]) > 0)
            if moves and len(np.unique(series.at[finite])) >= _ENOUGH * _of_measures(log):
                return lower[name]
    return None


def _of_measures(log: Log) -> int:
    return max((len(series.at) for name, series in log.series.items() if understand(name).role == "loss"), default=0)


def _logged(log: Log, name: str) -> npt.NDArray[np.bool_]:
    mask = np.zeros(log.rows, dtype=np.bool_)
    series = log.series[name]
    mask[series.at[np.isfinite(series.values)]] = True
    return mask


def _filled(log: Log, name: str) -> Floats:
    """A column at every row; where it was not logged, as at the row before (at the first rows, as at the first)."""
    series = log.series[name]
    finite = np.isfinite(series.values)
    latest = np.searchsorted(series.at[finite], np.arange(log.rows), "right") - 1
    return np.asarray(series.values[finite][np.maximum(latest, 0)], dtype=np.float64)


def _through_epochs(step: Floats, epoch: Floats, main: Rows, known: npt.NDArray[np.bool_]) -> Floats:
    """Steps that begin again with every epoch put behind each other."""
    falls = np.flatnonzero(np.diff(step[main]) < 0)
    if not len(falls) or not known[main].all():
        return step
    before, after = epoch[main][falls], epoch[main][falls + 1]
    if (after > before).mean() < 1 - _LIKE:
        return step
    first, spacing = float(step[main].min()), float(np.median(np.abs(np.diff(step[main]))))
    period = float(step[main].max()) + (spacing if first == 0 else float(first == spacing - 1))
    whole = np.floor(epoch)
    return np.asarray(step + (whole - whole.min()) * period, dtype=np.float64)


def _divided(epoch: Floats, main: Rows) -> Floats:
    """Epochs whose rows of the training loss divide them: 3, 3, 3 becomes 3, 3.33, 3.67."""
    own = epoch[main]
    if len(own) < 2 or (np.diff(own) != 0).mean() > _ENOUGH:  # noqa: PLR2004  no two rows
        return epoch
    starts = np.concatenate([[0], np.flatnonzero(np.diff(own) != 0) + 1])
    counts = np.diff([*starts, len(own)])
    share = np.arange(len(own)) - np.repeat(starts, counts)
    laid = own + share / np.repeat(counts, counts)
    latest = np.maximum(np.searchsorted(main, np.arange(len(epoch)), "right") - 1, 0)
    same = epoch == own[latest]
    return np.where(same, laid[latest], epoch)


def is_cyclic(step: Floats, falls: Rows, values: Floats) -> bool:
    """Whether steps go back because batches are counted from 0 in every epoch, not because trainings follow each other.

    Passes are then of equal length and begin alike, and the loss goes on where it was instead of where it began.
    """
    if len(falls) < 2 or len(values) != len(step):  # noqa: PLR2004  two passes say nothing
        return False
    starts = np.concatenate([[0], falls + 1])
    lengths = np.diff([*starts, len(step)])
    whole = lengths[:-1]
    if np.ptp(whole) > _LIKE * whole.max() or lengths[-1] > whole.max() * (1 + _LIKE):
        return False
    if np.ptp(step[starts]) > _LIKE * max(np.ptp(step), 1.0):
        return False
    if whole.max() == 1:
        return False
    again = np.abs(values[starts[1:]] - values[0])
    onwards = np.abs(values[starts[1:]] - values[falls])
    return bool(np.mean(onwards < again) > _ENOUGH)


def unwrapped(step: Floats, falls: Rows) -> Floats:
    """Steps that go back made to go on: every pass begins behind the one before."""
    jumps = np.zeros(len(step))
    spacing = np.maximum(1.0, np.abs(step[falls] - step[np.maximum(falls - 1, 0)]))
    jumps[falls + 1] = step[falls] - step[falls + 1] + spacing
    return np.asarray(step + np.cumsum(jumps), dtype=np.float64)


def attempts(log: Log, axis: Axis) -> list[Attempt]:
    """The trainings in a log, in the order they were written.

    Where the axis goes back to its beginning, another training begins. Where it goes back to a later place, a training
    was resumed from a checkpoint: what it had logged beyond is void.
    """
    main = main_rows(log)
    step = axis.values
    falls = np.flatnonzero(np.diff(step[main]) < 0)
    if len(falls) and not axis.epochs and is_cyclic(step[main], falls, _values_at(log, main)):
        laid = unwrapped(step[main], falls)
        latest = np.maximum(np.searchsorted(main, np.arange(log.rows), "right") - 1, 0)
        return [Attempt(np.arange(log.rows), laid[latest])]
    found: list[Attempt] = []
    kept = np.ones(log.rows, dtype=np.bool_)
    begin, resumed = 0, list[float]()
    first, highest = (step[main[0]], step[main[0]]) if len(main) else (0.0, 0.0)
    spacing = float(np.median(np.abs(np.diff(step[main])))) if len(main) > 1 else 0.0
    for fall in falls:
        back_to, at = float(step[main[fall + 1]]), _seam(step, int(main[fall]), int(main[fall + 1]))
        highest = max(highest, float(step[main[fall]]))
        if _is_jitter(step[main], int(fall), highest, int(np.searchsorted(main, begin))):
            continue
        if back_to == first or back_to < first + _JITTER * spacing:
            found.append(_attempt(step, kept, begin, at, resumed))
            begin, resumed, first, highest = at, [], back_to, back_to
        else:
            kept[begin:at] &= step[begin:at] < back_to
            resumed.append(back_to)
            highest = back_to
    found.append(_attempt(step, kept, begin, log.rows, resumed))
    return [attempt for attempt in found if len(attempt.rows)]


def _seam(step: Floats, last: int, first: int) -> int:
    """The first row after `last` that belongs to what begins at `first`: a validation may come before it."""
    back = np.flatnonzero(step[last + 1 : first + 1] < step[last])
    return last + 1 + int(back[0]) if len(back) else first


def _is_jitter(step: Floats, fall: int, highest: float, begin: int) -> bool:
    """Whether rows were only written in another order: steps that were not there yet, and back at once."""
    after = step[fall + 1 : fall + 2 + _JITTER]
    late = after[after < highest]
    return len(late) < len(after) and not np.isin(late, step[begin : fall + 1]).any()


def _attempt(step: Floats, kept: npt.NDArray[np.bool_], begin: int, end: int, resumed: Sequence[float]) -> Attempt:
    rows = begin + np.flatnonzero(kept[begin:end])
    rows = rows[np.argsort(step[rows], kind="stable")]
    return Attempt(rows, step[rows], tuple(resumed))


def _values_at(log: Log, main: Rows) -> Floats:
    for name, series in log.series.items():
        if understand(name).role == "loss" and np.array_equal(series.at, main):
            return series.values
    return np.empty(0)


def restricted(log: Log, attempt: Attempt) -> Log:
    """The log with the rows of one attempt only, in the order of its steps."""
    place = np.full(log.rows, -1, dtype=np.int64)
    place[attempt.rows] = np.arange(len(attempt.rows))
    series = {}
    for name, column in log.series.items():
        at = place[column.at]
        order = np.argsort(at[at >= 0], kind="stable")
        if not len(order):
            continue
        series[name] = Series(column.values[at >= 0][order], at[at >= 0][order])
    return replace(log, series=series, rows=len(attempt.rows))
