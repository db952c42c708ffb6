"""From what lines say of where they are (epoch, step, batch of the epoch) to one count of steps."""

import numpy as np
import numpy.typing as npt

__all__ = ["carried", "steps"]

_MOST = 0.5

_Floats = npt.NDArray[np.float64]


def steps(epoch: _Floats, step: _Floats, batch: _Floats, total: _Floats) -> _Floats:
    """The step of each row, NaN where the log does not say one.

    What is called a step is one unless it begins anew with the epochs: then, like batches, it is counted on from the
    epoch's first, with the number of batches the line names ("[10/100]") or else the highest seen.

    >>> n = np.nan
    >>> steps(np.array([1.0, 1, 2, 2]), np.array([n] * 4), np.array([0.0, 50, 0, 50]), np.array([100.0] * 4))
    array([  0.,  50., 100., 150.])
    """
    counted = _counted_on(epoch, step, total)
    batches = _counted_on(epoch, batch, total)
    if not np.isfinite(counted).any():
        return batches
    if not np.isfinite(batches).any() or (np.isfinite(step) & np.isfinite(batch)).any():
        return counted
    # Some lines say a step and others a batch: one count by two names (nanoGPT's "step 250" and "iter 250") if they go
    # on from each other, else two counts, of which the one on more lines is kept.
    both = np.where(np.isfinite(counted), counted, batches)
    if _falls(both) <= _falls(counted) + _falls(batches):
        return both
    return counted if np.isfinite(counted).sum() >= np.isfinite(batches).sum() else batches


def _falls(count: _Floats) -> int:
    return int((np.diff(count[np.isfinite(count)]) < 0).sum())


def _counted_on(epoch: _Floats, count: _Floats, total: _Floats) -> _Floats:
    places = np.flatnonzero(np.isfinite(count))
    epochs, counts = epoch[places], count[places]
    if not np.isfinite(epochs).any() or not _begins_anew(epochs, counts):
        return count
    result = np.full(len(count), np.nan)
    result[places] = counts + _offsets(epochs, counts, total[places])
    return result


def _begins_anew(epochs: _Floats, counts: _Floats) -> bool:
    """Whether the count goes back at most of the places where an epoch ends."""
    onward = np.flatnonzero(np.diff(epochs) > 0)
    return bool(len(onward)) and bool((counts[onward + 1] <= counts[onward]).mean() > _MOST)


def _offsets(epochs: _Floats, counts: _Floats, totals: _Floats) -> _Floats:
    """What to add to the batches of each row: the batches of all epochs before it."""
    offsets = np.zeros(len(epochs))
    edges = np.flatnonzero(np.diff(epochs) != 0) + 1
    length = 0.0
    before, offset = np.nan, 0.0
    for begin, end in zip(np.r_[0, edges], np.r_[edges, len(epochs)], strict=True):
        own = totals[begin:end][np.isfinite(totals[begin:end])]
        this = max(own.max() if len(own) else 0.0, counts[begin:end].max())
        if not np.isfinite(before):
            offset = this * max(0.0, epochs[begin] - 1) if np.isfinite(epochs[begin]) else 0.0
        elif epochs[begin] > before:
            offset += length * (epochs[begin] - before)
        else:  # an epoch before the last one: another attempt
            offset = this * max(0.0, epochs[begin] - 1)
        offsets[begin:end] = offset
        before, length = epochs[begin], max(this, 1.0)
    return offsets


def carried(values: _Floats, within: _Floats) -> _Floats:
    """Fill in what rows do not say from the row before, where both are in the same epoch (or none is known).

    >>> carried(np.array([5.0, np.nan, np.nan]), np.array([1.0, 1.0, 2.0]))
    array([ 5.,  5., nan])
    """
    if not len(values):
        return values
    known = np.isfinite(values)
    source = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    same = (within[source] == within) | ~np.isfinite(within)
    return np.where((source >= 0) & same, values[source], np.nan)
