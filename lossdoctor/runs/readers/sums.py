"""Losses that a loop adds up over each epoch and logs before it divides: a sawtooth, turned back into means."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.names import understand

__all__ = ["without_running_sums"]

_PASSES = 2
_ROWS = 3
_EVEN = 4
"""A sum grows by about as much from row to row: by no more than so many times the middle of what it grows by."""
_START = 0.5
"""Where a pass begins, the sum is below this share of where the pass before it ended."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def without_running_sums(log: Log) -> Log:
    """The log with the mean since the row before, where a training loss is summed up from the start of each epoch."""
    series = dict(log.series)
    for name, column in log.series.items():
        known = understand(name)
        if known.role != "loss" or known.split not in {"", "train"} or not np.isfinite(column.values).all():
            continue
        starts = _starts(log, column)
        if starts is not None and _is_sum(column.values, starts):
            series[name] = Series(_means(column.values, _counts(log, column), starts), column.at)
    return replace(log, series=series)


def _starts(log: Log, column: Series) -> Rows | None:
    """The places of a column at which an epoch begins: where its number changes, or else where the batches go back."""
    for role, begins in (("epoch", np.not_equal), ("step", np.less)):
        for name, axis in log.series.items():
            if understand(name).role == role and np.isin(column.at, axis.at).all():
                values = axis.values[np.searchsorted(axis.at, column.at)]
                starts = np.flatnonzero(begins(values[1:], values[:-1])) + 1
                if len(starts):
                    return np.concatenate([[0], starts])
    return None


def _counts(log: Log, column: Series) -> Floats:
    """The number of the batch at each value, as the log counts them; the rows where it does not."""
    for name, axis in log.series.items():
        if understand(name).role == "step" and np.isin(column.at, axis.at).all():
            return axis.values[np.searchsorted(axis.at, column.at)]
    return np.arange(1.0, len(column.at) + 1)


def _is_sum(values: Floats, starts: Rows) -> bool:
    """Whether values rise evenly through every pass and fall back where the next begins."""
    passes = np.split(values, starts[1:])
    whole = [part for part in passes if len(part) >= _ROWS]
    if len(whole) < _PASSES or len(whole) < len(passes) - 1:
        return False
    for part in whole:
        grown = np.diff(part)
        if not (part[0] >= 0 and (grown > 0).all() and grown.max() < _EVEN * np.median(grown)):
            return False
        if part[0] > _START * part[-1]:
            return False
    return bool((values[starts[1:]] < _START * values[starts[1:] - 1]).all())


def _means(values: Floats, counts: Floats, starts: Rows) -> Floats:
    """What the sum grew by, for each batch since the row before."""
    grown, batches = np.diff(values, prepend=0.0), np.diff(counts, prepend=0.0)
    grown[starts] = values[starts]
    batches[starts] = np.where(counts[starts] <= counts[starts[0]], np.maximum(counts[starts], 1), batches[starts])
    return np.asarray(grown / np.where(batches > 0, batches, 1.0))
