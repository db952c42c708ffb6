"""Rows to blocks: what a writer stores and a diagnosis reads, with exactly the values a reader gets back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lossdoctor.capture.record import EvaluationRecord, Record, mean_of
from lossdoctor.runs.tables import Block, Column, Table

__all__ = ["Rows", "merged"]

_ATTRIBUTES: Mapping[str, Callable[[Record], Any]] = MappingProxyType(
    {
        "step": attrgetter("step"),
        "time": attrgetter("time"),
        "train_loss": lambda record: mean_of(record.losses),
        "micro_batches": lambda record: record.micro_batches or 1,
        **{name: attrgetter(name) for name in ("samples", "tokens", "step_time")},
    }
)

_WIDE = frozenset({"step", "time"})
"""Columns stored in float64: float32 cannot count beyond 16.7 million, nor tell seconds since 1970."""


class Rows:
    """Finished rows that were not yet handed on."""

    def __init__(self) -> None:
        self.steps: list[Record] = []
        self.evaluations: list[Mapping[str, float]] = []
        self.layers: list[tuple[float, float, Mapping[str, Column]]] = []
        self._names: dict[str, dict[str, None]] = {"steps": {}, "evaluations": {}, "layers": {}}

    def __bool__(self) -> bool:
        return bool(self.steps or self.evaluations or self.layers)

    def evaluated(self, record: EvaluationRecord) -> None:
        """Take in an evaluation of which anything is known."""
        values = {name: numbers[0] for name, numbers in record.values.items() if numbers}
        if values:
            self.evaluations.append({"step": record.step, "time": record.time, **values})

    def take(self) -> Block:
        """All rows as a block; none are left. A column that was ever seen stays in every later block of its kind."""
        with np.errstate(all="ignore"):  # a value beyond float32 is stored as infinite
            block = Block(
                self._step_table(self.steps),
                _table(self.evaluations, self._known("evaluations", self.evaluations)),
                _layer_table(self.layers, self._known("layers", (row for _, _, row in self.layers))),
            )
        self.steps, self.evaluations, self.layers = [], [], []
        return block

    def _step_table(self, records: list[Record]) -> Table:
        """Column by column, and of what few records have only those: that costs a fraction of making rows first."""
        if not records:
            return Table()
        columns: dict[str, Column] = {}
        for name, get in _ATTRIBUTES.items():
            values = list(map(get, records))
            if values.count(None) < len(values):
                columns[name] = _column(values, name)
        found = _settings(records)
        for at, record in enumerate(records):
            for name, value in record.values.items():
                if name not in found:
                    found[name] = [], []
                rows, numbers = found[name]
                rows.append(at)
                numbers.append(value)
        for name, (rows, numbers) in found.items():
            columns[name] = _scattered(rows, np.array(numbers, dtype=np.float64), len(records))
        if "learning_rate" in found:
            rows, numbers = found["learning_rate"]
            by = np.array([record.multiplier for record in records])[rows]
            columns["nominal_learning_rate"] = _scattered(rows, np.array(numbers) / by, len(records))
        if "samples" in columns and "step_time" in columns:
            samples, seconds = (columns[name].values.astype(np.float64) for name in ("samples", "step_time"))
            per_second = np.full(len(records), np.nan)
            np.divide(samples, seconds, out=per_second, where=seconds > 0)
            observed = ~np.isnan(per_second)
            columns["samples_per_second"] = Column(per_second.astype(np.float32), None if observed.all() else observed)
        for name in self._names["steps"]:
            if name not in columns:
                columns[name] = _column([None] * len(records), name)
        self._names["steps"].update(dict.fromkeys(columns))
        return Table(columns)

    def _known(self, table: str, rows: Iterable[Iterable[str]]) -> list[str]:
        names = self._names[table]
        for row in rows:
            names.update(dict.fromkeys(row))
        return list(names)


def _settings(records: list[Record]) -> dict[str, tuple[list[int], list[float]]]:
    """By name: the rows that have a setting, and its values. Most records share theirs with the one before."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    start, count = 0, len(records)
    while start < count:
        settings, stop = records[start].settings, start + 1
        while stop < count and records[stop].settings is settings:
            stop += 1
        for name, value in settings.items():
            rows, numbers = found.setdefault(name, ([], []))
            rows.extend(range(start, stop))
            numbers.extend([value] * (stop - start))
        start = stop
    return found


def merged(blocks: Sequence[Block]) -> Block:
    """Consecutive blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        _concatenated([block.steps for block in blocks]),
        _concatenated([block.evaluations for block in blocks]),
        _concatenated([block.layers for block in blocks]),
    )


def _scattered(rows: list[int], numbers: npt.NDArray[np.float64], length: int) -> Column:
    """A column of `length` with these numbers at these rows, in any order."""
    values = np.full(length, np.nan, dtype=np.float32)
    values[rows] = numbers
    if len(rows) == length:
        return Column(values)
    observed = np.zeros(length, dtype=np.bool_)
    observed[rows] = True
    return Column(values, observed)


def _table(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Table:
    return Table({name: _column([row.get(name) for row in rows], name) for name in names} if rows else {})


def _column(values: list[float | None], name: str) -> Column:
    observed = np.array([value is not None for value in values]) if None in values else None
    wide = np.array(values, dtype=np.float64)
    return Column(wide if name in _WIDE else wide.astype(np.float32), observed)


def _layer_table(rows: Sequence[tuple[float, float, Mapping[str, Column]]], names: Sequence[str]) -> Table:
    if not rows:
        return Table()
    columns = {
        "step": Column(np.array([step for step, _, _ in rows], dtype=np.float64)),
        "time": Column(np.array([time for _, time, _ in rows], dtype=np.float64)),
    }
    width = len(next(iter(rows[0][2].values())))
    for name in names:
        values = np.full((len(rows), width), np.nan, dtype=np.float32)
        observed = np.zeros((len(rows), width), dtype=np.bool_)
        for at, (_, _, row) in enumerate(rows):
            if name in row:
                values[at] = row[name].values
                observed[at] = row[name].mask()
        columns[name] = Column(values, None if observed.all() else observed)
    return Table(columns)


def _concatenated(tables: Sequence[Table]) -> Table:
    tables = [table for table in tables if len(table)]
    names = dict.fromkeys(name for table in tables for name in table.columns)
    return Table({name: _joined(tables, name) for name in names})


def _joined(tables: Sequence[Table], name: str) -> Column:
    like = next(table.columns[name].values for table in tables if name in table.columns)
    columns = [table.columns.get(name) or _unobserved(len(table), like) for table in tables]
    values = np.concatenate([column.values for column in columns])
    if all(column.observed is None for column in columns):
        return Column(values)
    return Column(values, np.concatenate([column.mask() for column in columns]))


def _unobserved(rows: int, like: npt.NDArray[np.floating]) -> Column:
    shape = (rows, *like.shape[1:])
    return Column(np.full(shape, np.nan, dtype=like.dtype), np.zeros(shape, dtype=np.bool_))
