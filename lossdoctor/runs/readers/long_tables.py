"""Tables that hold several things below or beside each other: runs, splits of the data, names of metrics."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.readers.aliases import SPLITS
from lossdoctor.runs.readers.log import Series
from lossdoctor.runs.readers.names import is_training_name, understand

__all__ = ["Part", "Table", "is_long", "split"]

_RUN_NAMES = frozenset(
    {
        *("run", "run_id", "runid", "run_name", "seed", "trial", "trial_id", "fold", "config", "config_id", "exp"),
        *("experiment", "experiment_id", "model_id", "repeat", "rep", "replicate", "job", "job_id", "worker"),
    }
)
_SPLIT_NAMES = frozenset({"split", "phase", "mode", "stage", "set", "subset", "partition", "type", "dataset"})
_METRIC_NAMES = frozenset({"metric", "metric_name", "name", "key", "tag", "variable", "measure"})
_VALUE_NAMES = frozenset({"value", "metric_value", "val", "score"})
_MOST_RUNS = 10_000
_ROWS_EACH = 2
_EXPORTED = re.compile(r"^(.{1,200}?) - (.{1,200}?)(__MIN|__MAX)?$")


@dataclass(frozen=True, slots=True)
class Table:
    """A table's numbers by column, and the words of those columns that have some (None for a blank cell)."""

    series: Mapping[str, Series]
    texts: Mapping[str, npt.NDArray[np.object_]]
    rows: int


@dataclass(frozen=True, slots=True)
class Part:
    """One run of a table."""

    name: str
    series: Mapping[str, Series]
    rows: int


def is_long(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows of a table name what their value is, and one of them is what a training measures."""
    lower = [name.strip().lower() for name in names]
    if not _VALUE_NAMES.intersection(lower):
        return False
    places = [place for place, name in enumerate(lower) if name in _METRIC_NAMES]
    return any(is_training_name(row[place]) for place in places for row in rows if place < len(row))


def split(table: Table) -> list[Part]:
    """The runs of a table. A table of one run is its only part."""
    if parts := _exported(table):
        return parts
    runs = _run_numbers(table)
    if runs is None:
        return [Part("", _widened(table), table.rows)]
    names, which = runs
    parts = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(which == number)
        inside = _rows_of(table, rows)
        parts.append(Part(name, _widened(inside), inside.rows))
    return parts


def _exported(table: Table) -> list[Part]:
    """The runs of an export of Weights & Biases: columns "<run> - <metric>", with their least and largest values."""
    matches = {name: match for name in table.series if (match := _EXPORTED.match(name))}
    axes = {name: column for name, column in table.series.items() if understand(name).role in {"step", "epoch"}}
    if not matches or not axes or len(matches) + len(axes) < len(table.series):
        return []
    runs: dict[str, dict[str, Series]] = {}
    for name, match in matches.items():
        if match[3] is None:
            metric = "step" if match[2] == "_step" else match[2]
            runs.setdefault(match[1], {})[metric] = table.series[name]
    return [
        Part(run if len(runs) > 1 else "", {**axes, **columns}, table.rows)
        for run, columns in runs.items()
        if any(understand(metric).role not in {"step", "epoch", ""} for metric in columns)
    ]


def _run_numbers(table: Table) -> tuple[list[str], npt.NDArray[np.int64]] | None:
    """The runs' names and every row's run; None where there is one.

    Only where the axis alone does not tell the rows apart, a word or a seed in each row does.
    """
    axis = next((name for name in table.series if understand(name).role in {"step", "epoch"}), None)
    if axis is None or table.rows < 2 * _ROWS_EACH or (np.diff(table.series[axis].values) > 0).all():
        return None
    keys = []
    for name, words in table.texts.items():
        lower = name.strip().lower()
        if lower in _SPLIT_NAMES | _METRIC_NAMES and (_is_split(words) or _value_column(table)):
            continue
        keys.append(np.array(["" if word is None else str(word) for word in words], dtype=object))
    for name, column in table.series.items():
        if name.strip().lower() in _RUN_NAMES and len(column.at) == table.rows and name not in table.texts:
            keys.append(np.array([f"{name} {value:g}" for value in column.values], dtype=object))
    keys = [key for key in keys if 1 < len(set(key)) <= min(_MOST_RUNS, table.rows // _ROWS_EACH)]
    if not keys:
        return None
    names: dict[str, int] = {}
    which = np.array([names.setdefault(", ".join(filter(None, row)), len(names)) for row in zip(*keys, strict=True)])
    if len(names) > table.rows // _ROWS_EACH:
        return None
    return list(names), which


def _is_split(words: npt.NDArray[np.object_]) -> bool:
    known = {str(word).strip().lower() for word in words if word is not None}
    return bool(known) and all(word in SPLITS for word in known)


def _value_column(table: Table) -> str | None:
    return next((name for name in table.series if name.strip().lower() in _VALUE_NAMES), None)


def _widened(table: Table) -> dict[str, Series]:
    """The columns, one for each split and each metric that rows are labelled with."""
    series = dict(table.series)
    value = _value_column(table)
    for name, words in table.texts.items():
        lower = name.strip().lower()
        if lower in _METRIC_NAMES and value is not None and value in series:
            column = series.pop(value)
            series |= {metric: part for metric, part in _labelled(column, words).items() if metric}
        elif lower in _SPLIT_NAMES and _is_split(words):
            for other in [other for other in series if understand(other).role not in {"step", "epoch", "time"}]:
                parts = _labelled(series.pop(other), words)
                series |= {f"{label}/{other}" if label else other: part for label, part in parts.items()}
    return series


def _labelled(column: Series, words: npt.NDArray[np.object_]) -> dict[str, Series]:
    """A column cut by the word in each of its rows."""
    labels = np.array(["" if word is None else str(word).strip() for word in words[column.at]], dtype=object)
    return {
        label: Series(column.values[labels == label], column.at[labels == label])
        for label in dict.fromkeys(labels.tolist())
    }


def _rows_of(table: Table, rows: npt.NDArray[np.int64]) -> Table:
    place = np.full(table.rows, -1)
    place[rows] = np.arange(len(rows))
    series = {}
    for name, column in table.series.items():
        at = place[column.at]
        if (at >= 0).any():
            series[name] = Series(column.values[at >= 0], at[at >= 0])
    return Table(series, {name: words[rows] for name, words in table.texts.items()}, len(rows))
