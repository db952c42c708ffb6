"""Tables on top of each other: a column that a table lacks is unobserved there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lossdoctor.runs.tables import Column, Table

__all__ = ["Stack", "stack"]


class Stack:
    """The same as `stack`, table by table: each is copied into its place at once and need not be kept.

    `expected` is how many rows there will probably be; a wrong guess costs time only.
    """

    def __init__(self, expected: int = 0) -> None:
        self._capacity = expected
        self._rows = 0
        self._columns: dict[str, _Pile] = {}
        self._only: Table | None = None

    def add(self, table: Table) -> None:
        """Put a table below those added so far."""
        if not len(table):
            return
        if self._only is None and not self._rows:
            self._only = table  # a short run is one segment, and its views of the file are as good as a copy
            return
        if self._only is not None:
            first, self._only = self._only, None
            self._put(first)
        self._put(table)

    def table(self) -> Table:
        """All rows. Nothing may be added after that."""
        if self._only is not None:
            return self._only
        return Table({name: pile.column(self._rows) for name, pile in self._columns.items()})

    def _put(self, table: Table) -> None:
        begin, end = self._rows, self._rows + len(table)
        if end > self._capacity:
            self._capacity = max(2 * self._capacity, end)
        for name, column in table.columns.items():
            pile = self._columns.get(name)
            if pile is None or pile.values.shape[1:] != column.values.shape[1:]:
                pile = self._columns[name] = _Pile(column, self._capacity)
                pile.leave_out(0, begin)
            pile.grow(self._capacity, begin)
            pile.put(column, begin, end)
        for name, pile in self._columns.items():
            if name not in table.columns:
                pile.grow(self._capacity, begin)
                pile.leave_out(begin, end)
        self._rows = end


class _Pile:
    """One column in the making. Room that is not used yet takes no memory: the system gives pages when written to."""

    def __init__(self, like: Column, capacity: int) -> None:
        self.values: Any = np.empty((capacity, *like.values.shape[1:]), like.values.dtype)
        self._observed: Any = None

    def grow(self, capacity: int, used: int) -> None:
        """Make room for `capacity` rows, `used` of which are taken."""
        if len(self.values) < capacity:
            self.values = _larger(self.values, capacity, used)
        if self._observed is not None and len(self._observed) < capacity:
            self._observed = _larger(self._observed, capacity, used)

    def put(self, column: Column, begin: int, end: int) -> None:
        """Set rows."""
        with np.errstate(over="ignore"):
            self.values[begin:end] = column.values
        if column.observed is not None:
            self._mask(begin)[begin:end] = column.observed
        elif self._observed is not None:
            self._observed[begin:end] = True

    def leave_out(self, begin: int, end: int) -> None:
        """Have rows unobserved."""
        if begin < end:
            self.values[begin:end] = np.nan
            self._mask(begin)[begin:end] = False

    def column(self, rows: int) -> Column:
        """The first `rows` rows."""
        return Column(self.values[:rows], None if self._observed is None else self._observed[:rows])

    def _mask(self, used: int) -> Any:
        if self._observed is None:
            self._observed = np.empty(self.values.shape, dtype=np.bool_)
            self._observed[:used] = True
        return self._observed


def _larger(array: Any, capacity: int, used: int) -> Any:
    grown = np.empty((capacity, *array.shape[1:]), array.dtype)
    grown[:used] = array[:used]
    return grown


def stack(tables: Sequence[Table]) -> Table:
    """The rows of all tables in order, with the columns of any. One table is returned as it is, without a copy.

    The width of a layer column is that of the last table that has it; rows of another width are unobserved.
    """
    tables = [table for table in tables if len(table)]
    if len(tables) == 1:
        return tables[0]
    shapes = {name: column.values.shape[1:] for table in tables for name, column in table.columns.items()}
    return Table({name: _stacked(name, shape, tables) for name, shape in shapes.items()})


def _stacked(name: str, shape: tuple[int, ...], tables: Sequence[Table]) -> Column:
    parts = [_part(table, name, shape) for table in tables]
    whole: list[Any] = [part.values for part in parts if part is not None and part.observed is None]
    if len(whole) == len(parts):  # the usual case, and one step is one table in the tightest loops
        return Column(np.concatenate(whole))
    dtype = next(part.values.dtype for part in parts if part is not None)
    lengths = [len(table) for table in tables]
    values = np.concatenate(
        [
            np.full((rows, *shape), np.nan, dtype) if part is None else part.values
            for part, rows in zip(parts, lengths, strict=True)
        ]
    )
    observed = np.zeros(values.shape, dtype=np.bool_)
    start = 0
    for part, rows in zip(parts, lengths, strict=True):
        if part is not None:
            observed[start : start + rows] = True if part.observed is None else part.observed
        start += rows
    return Column(values, observed)


def _part(table: Table, name: str, shape: tuple[int, ...]) -> Column | None:
    column = table.columns.get(name)
    return column if column is not None and column.values.shape[1:] == shape else None
