"""Tables on top of each other: a column that a table lacks is unobserved there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lossdoctor.runs.tables import Column, Table

__all__ = ["stack"]


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
