"""The rows that were read from printed lines, put in order: one process's lines, one count of steps, no summaries."""

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.printed.axis import carried, steps
from lossdoctor.runs.printed.names import is_metric
from lossdoctor.runs.printed.parser import Parser
from lossdoctor.runs.readers.log import Series

__all__ = ["assembled", "has_place", "shown_places"]

_Rows = npt.NDArray[np.bool_]
_FEW_RECORDS = 3
_REPEATED, _NEAR = 2, 3  # lines of one step, and within how many times as many lines; farther apart are two runs
_WITHOUT_PLACE = 10  # lines that only say a loss, without any step, are a log if there are so many


def has_place(parser: Parser) -> _Rows:
    """Which rows say themselves where in the training they are."""
    return np.frombuffer(bytes(parser.own), dtype=np.uint8) > 0


def shown_places(parser: Parser) -> int:
    """How many different places (epoch, step, batch) the rows name."""
    own = np.flatnonzero(has_place(parser))
    columns = (parser.epoch, parser.step, parser.batch)
    return len({tuple(repr(column[row]) for column in columns) for row in own.tolist()})


def assembled(parser: Parser) -> tuple[dict[str, Series], int, list[str]]:
    """The columns with "step" and "epoch", the number of rows, and what was left out or put together."""
    warnings = [parser.columns.lost] if parser.columns.lost else []
    keep = _kept(parser)
    series = {name: _only(one, keep[one.at]) for name, one in parser.columns.series().items()}
    said = np.frombuffer(bytes(parser.own), dtype=np.uint8) == Parser.SAID
    series = {name: _with_place(one, said) for name, one in series.items()}
    bars = np.frombuffer(bytes(parser.kind), dtype=np.uint8) == Parser.BAR
    series = {name: _without_bars(one, bars) for name, one in series.items()}
    ranks = np.array(parser.rank, dtype=np.int64)
    if len(set(ranks[keep].tolist())) > 1:
        series = {name: _one_rank(one, ranks) for name, one in series.items()}
        warnings.append("several processes printed; of each value the first process's is used")
    series = {name: one for name, one in series.items() if len(one.at)}
    used = np.zeros(len(keep), dtype=np.bool_)
    for one in series.values():
        used[one.at] = True
    places = {name: np.array(getattr(parser, name), dtype=np.float64) for name in ("epoch", "step", "batch", "total")}
    own = {name: np.where(used, values, np.nan) for name, values in places.items()}
    step = np.full(len(keep), np.nan)
    step[used] = steps(*(own[name][used] for name in ("epoch", "step", "batch", "total")))
    series, merged = _without_repeats(series, step, own["epoch"])
    if merged:
        warnings.append("several lines for each step; their mean is used")
        used[:] = False
        for one in series.values():
            used[one.at] = True
    series = _spelled_out(series, used)
    filled = np.full(len(keep), np.nan)
    filled[used] = carried(step[used], own["epoch"][used])
    number = np.cumsum(used) - 1
    result = {}
    for name, values in (("step", filled), ("epoch", own["epoch"])):
        at = np.flatnonzero(used & np.isfinite(values))
        if len(at):
            result[name] = Series(values[at], number[at])
    result |= {name: Series(one.values, number[one.at]) for name, one in series.items() if name not in result}
    return result, int(used.sum()), warnings


def _only(series: Series, rows: _Rows) -> Series:
    return series if rows.all() else Series(series.values[rows], series.at[rows])


def _with_place(series: Series, said: _Rows) -> Series:
    """Without the values on lines that do not say where they belong, if most do: "acc: 0.9" after a validation."""
    place = said[series.at]
    return _only(series, place) if place.any() and (~place).sum() < place.sum() else series


def _without_bars(series: Series, bars: _Rows) -> Series:
    """Where both a bar and lines say a quantity, what most of them say, and the lines' if it is about as often.

    A bar ends with the last batch's loss where the line after it says the mean of the epoch: two things by one name.
    """
    bar = bars[series.at]
    if not bar.any() or bar.all():
        return series
    return _only(series, bar if bar.sum() > 2 * (~bar).sum() else ~bar)


def _kept(parser: Parser) -> _Rows:
    """Which rows are measurements: not the settings before the first step, not what is printed beside the records."""
    own = has_place(parser)
    keep = np.ones(len(own), dtype=np.bool_)
    if own.any():
        keep[: int(np.argmax(own))] = False
    elif len(own) < _WITHOUT_PLACE:
        keep[:] = False
    records = np.frombuffer(bytes(parser.kind), dtype=np.uint8) == Parser.RECORD
    if (records & own).sum() >= _FEW_RECORDS:
        keep &= records  # whoever prints records prints bars and a closing table of the same values, too
    return keep


def _one_rank(series: Series, ranks: npt.NDArray[np.int64]) -> Series:
    """What the lowest rank printed of a quantity, among those that printed it about as often as any."""
    of = ranks[series.at]
    names, counts = np.unique(of, return_counts=True)
    chosen = names[counts * 2 >= counts.max(initial=0)]
    return _only(series, of == chosen[0]) if len(chosen) else series


def _without_repeats(
    series: Mapping[str, Series], step: npt.NDArray[np.float64], epoch: npt.NDArray[np.float64]
) -> tuple[dict[str, Series], bool]:
    """Where every process printed its own loss for each step, their mean at the first of the lines."""
    result, merged = dict(series), False
    for name, one in series.items():
        place = np.where(np.isfinite(step[one.at]), step[one.at], epoch[one.at])
        if len(place) < _WITHOUT_PLACE or not np.isfinite(place).all():
            continue
        _, first, group, counts = np.unique(place, return_index=True, return_inverse=True, return_counts=True)
        times = np.median(counts)
        last = len(place) - 1 - np.unique(place[::-1], return_index=True)[1]
        if times < _REPEATED or np.median(last - first) > _NEAR * times:
            continue
        order = np.argsort(first)
        means = np.bincount(group, weights=one.values)[order] / counts[order]
        result[name] = Series(means, one.at[first[order]])
        merged = True
    return result, merged


def _spelled_out(series: dict[str, Series], used: _Rows) -> dict[str, Series]:
    """Put in the NaN that Megatron leaves out: a loss that is not finite is not printed at all.

    It is left out as well where every step of the interval was skipped; then nothing is known of it. Source:
    Megatron-LM, megatron/training/training.py, training_log.
    """
    skipped, nan = series.get("number_skipped_iterations"), series.get("number_nan_iterations")
    if skipped is None:
        return series
    silent = np.zeros(len(used), dtype=np.bool_)
    silent[skipped.at[skipped.values == 0]] = True
    if nan is not None:
        silent[nan.at[nan.values > 0]] = True
    losses = [name for name in series if re.fullmatch(r"(?:[a-z0-9]+_)*loss", name) and is_metric(name)] or ["lm_loss"]
    for name in losses:
        one = series.get(name, Series(np.empty(0), np.empty(0, dtype=np.int64)))
        silent_here = silent.copy()
        silent_here[one.at] = False
        at = np.concatenate([one.at, np.flatnonzero(silent_here)])
        order = np.argsort(at, kind="stable")
        values = np.concatenate([one.values, np.full(len(at) - len(one.at), np.nan)])
        series[name] = Series(values[order], at[order])
    return series
