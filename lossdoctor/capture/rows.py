"""Rows to blocks: what a writer stores and a diagnosis reads, with exactly the values a reader gets back."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.tables import Block, Column, Table

__all__ = ["Rows", "merged"]

_WIDE = frozenset({"step", "time"})
"""Columns stored in float64: float32 cannot count beyond 16.7 million, nor tell seconds since 1970."""


class Rows:
    """Finished rows that were not yet handed on."""

    def __init__(self) -> None:
        self.steps: list[Mapping[str, float]] = []
        self.evaluations: list[Mapping[str, float]] = []
        self.layers: list[tuple[float, float, Mapping[str, Column]]] = []
        self._names: dict[str, dict[str, None]] = {"steps": {}, "evaluations": {}, "layers": {}}

    def __bool__(self) -> bool:
        return bool(self.steps or self.evaluations or self.layers)

    def take(self) -> Block:
        """All rows as a block; none are left. A column that was ever seen stays in every later block of its kind."""
        with np.errstate(over="ignore"):  # a value beyond float32 is stored as infinite
            block = Block(
                _table(self.steps, self._known("steps", self.steps)),
                _table(self.evaluations, self._known("evaluations", self.evaluations)),
                _layer_table(self.layers, self._known("layers", (row for _, _, row in self.layers))),
            )
        self.steps, self.evaluations, self.layers = [], [], []
        return block

    def _known(self, table: str, rows: Iterable[Iterable[str]]) -> list[str]:
        names = self._names[table]
        for row in rows:
            names.update(dict.fromkeys(row))
        return list(names)


def merged(blocks: Sequence[Block]) -> Block:
    """Consecutive blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        _concatenated([block.steps for block in blocks]),
        _concatenated([block.evaluations for block in blocks]),
        _concatenated([block.layers for block in blocks]),
    )


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
