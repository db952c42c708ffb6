"""Losses that were not finite and were not written as such: blank cells, dropped fields, filtered zeros."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.names import understand

__all__ = ["with_hidden_nans"]

_WRITES_NAN = frozenset({"TensorBoard", "Weights & Biases", "MLflow"})
"""Formats in which what was not logged is not there, and NaN is NaN."""
_FILTERED = frozenset({"HF Trainer", "LLaMA-Factory"})
"""Their loss leaves out steps that were not finite (logging_nan_inf_filter): where all were, it is 0."""
_PROOF = 3
"""Rows in which a loss stood beside its companions before one without it means something."""
_RARE = 0.1
_TYPICAL = 0.01
"""A loss that was typically larger than this does not become exactly 0."""

Mask = npt.NDArray[np.bool_]


def with_hidden_nans(log: Log) -> Log:
    """The log with NaN where a loss or a gradient norm was not finite, though the log does not say so."""
    series = dict(log.series)
    if log.format in _FILTERED:
        series |= _unfiltered(log.series)
    if log.format not in _WRITES_NAN:
        series |= _blanks(log, series)
    return replace(log, series=series)


def _unfiltered(series: Mapping[str, Series]) -> dict[str, Series]:
    """Losses of exactly 0 beside a gradient norm that is not finite, or from some row on after they were not small."""
    found = {}
    norms = [column for name, column in series.items() if understand(name).role == "grad_norm"]
    broken = [norm.at[~np.isfinite(norm.values)] for norm in norms]
    not_finite = np.unique(np.concatenate(broken)) if broken else np.empty(0, np.int64)
    for name, column in series.items():
        known = understand(name)
        if known.role != "loss" or known.split not in {"", "train"}:
            continue
        zero = column.values == 0
        hidden = zero & np.isin(column.at, not_finite)
        nonzero = np.flatnonzero(~zero)
        if len(nonzero) and not norms:
            last = int(nonzero[-1])
            before = column.values[nonzero][-_PROOF:]
            if len(zero) - 1 - last > 1 and np.median(before) > _TYPICAL:
                hidden[last + 1 :] = True
        if hidden.any():
            found[name] = Series(np.where(hidden, np.nan, column.values), column.at)
    return found


def _blanks(log: Log, series: Mapping[str, Series]) -> dict[str, Series]:
    """A loss that is missing in rows that have all that always stood beside it."""
    filled = {name: _mask(column, log.rows) for name, column in series.items() if not _is_axis(name)}
    anything = np.logical_or.reduce(list(filled.values())) if filled else np.zeros(log.rows, dtype=np.bool_)
    found = {}
    for name, column in series.items():
        known = understand(name)
        if known.role not in {"loss", "grad_norm"} or len(column.at) < _PROOF or name not in filled:
            continue
        own = filled[name]
        empty = _empty_rows(own, anything)
        companions = [
            mask for other, mask in filled.items() if other != name and (mask & own).sum() >= own.sum() * (1 - _RARE)
        ]
        missing = empty
        if companions:
            beside = np.logical_and.reduce(companions) & ~own
            missing = missing | (beside if _means_nan(own, beside) else False)
        if missing.any():
            at = np.flatnonzero(own | missing)
            values = np.full(len(at), np.nan)
            values[np.searchsorted(at, column.at)] = column.values
            found[name] = Series(values, at)
    return found


def _means_nan(own: Mask, beside: Mask) -> bool:
    """Whether rows without a value are no rhythm of logging: rare, or from some row on."""
    if not beside.any() or own[: int(np.argmax(beside))].sum() < _PROOF:
        return False
    begin = int(np.argmax(beside))
    rows = own | beside
    return bool(beside.sum() <= _RARE * rows.sum() or beside[begin:].sum() > own[begin:].sum())


def _empty_rows(own: Mask, anything: Mask) -> Mask:
    """Rows with nothing but an axis, where the column was on most rows before: what stood there is NaN.

    At the end of a file one row like this may be a summary that was cut off.
    """
    empty = ~anything
    if not empty.any():
        return empty
    begin = int(np.argmax(empty))
    regular = own[:begin].sum() >= max(_PROOF, 0.5 * anything[:begin].sum())
    return empty if regular and empty.sum() > 1 else np.zeros_like(empty)


def _is_axis(name: str) -> bool:
    return understand(name).role in {"step", "epoch", "time"}


def _mask(column: Series, rows: int) -> Mask:
    mask = np.zeros(rows, dtype=np.bool_)
    mask[column.at] = True
    return mask
