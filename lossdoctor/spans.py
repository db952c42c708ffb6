"""Spans of rows, and what a slower clock says of them.

A clock that ticks once for many rows lets them wait until the span is over. Most columns have a value in every row or
were never recorded at all: that is looked at once for all rows that wait, not for each span.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.companions import COMPANIONS
from lossdoctor.filters import Array

__all__ = ["Companions", "Rows", "Span"]

_NOTHING: Array = np.empty(0)


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that follow each other: `values` are columns with NaN for null, `missing` says where that is so in some."""

    values: Mapping[str, Array]
    missing: Mapping[str, npt.NDArray[np.bool_]]
    rows: slice

    def __getitem__(self, name: str) -> Array:
        """A column's values in these rows."""
        return self.values[name][self.rows]

    def observed(self, name: str) -> Array:
        """Those of them that were observed."""
        values = self.values[name]
        if not values.strides[0]:
            return _NOTHING
        return values[self.rows][~self.missing[name][self.rows]] if name in self.missing else values[self.rows]


class Rows:
    """Rows that wait for their span to end. Chunks are joined only when rows are taken, so waiting is cheap."""

    def __init__(self, names: Iterable[str]) -> None:
        self._chunks: dict[str, list[Array]] = {name: [] for name in names}
        self._joined: Span | None = None
        self._taken = self._length = 0

    def __len__(self) -> int:
        """Number of rows that wait."""
        return self._length - self._taken

    def extend(self, rows: int, column: Callable[[str], Array]) -> None:
        """Let so many more rows wait; `column` has their values by name. What was never recorded has a stride of 0."""
        if not rows:
            return
        for name, chunks in self._chunks.items():
            if self._taken:
                chunks[:] = [chunk[self._taken :] for chunk in chunks if len(chunk) > self._taken]  # it is one
            chunks.append(column(name))
        self._length += rows - self._taken
        self._taken, self._joined = 0, None

    def take(self, rows: int) -> Span:
        """The first of the rows that wait; they no longer do."""
        joined = self._join() if self._joined is None else self._joined
        self._taken += rows
        return Span(joined.values, joined.missing, slice(self._taken - rows, self._taken))

    def _join(self) -> Span:
        values: dict[str, Array] = {}
        missing: dict[str, npt.NDArray[np.bool_]] = {}
        for name, chunks in self._chunks.items():
            if any(chunk.strides[0] for chunk in chunks):
                chunks[:] = [np.concatenate(chunks)] if len(chunks) > 1 else chunks
                if (gaps := np.isnan(chunks[0])).any():
                    missing[name] = gaps
            else:
                chunks[:] = [np.broadcast_to(np.nan, self._length)]
            values[name] = chunks[0]
        self._joined = Span(values, missing, slice(self._length))
        return self._joined


class Companions:
    """What a slower clock says of step signals over a span of rows.

    `wanted` maps a name to the signal behind it and the companion, as in "mean_train_loss": ("train_loss", "mean").
    """

    def __init__(self, wanted: Mapping[str, tuple[str, str | None]]) -> None:
        self.names = sorted(wanted)
        self.sources = sorted({source for source, _ in wanted.values()})
        self._by_source: dict[str, list[tuple[str, Callable[[Array], float]]]] = {source: [] for source in self.sources}
        for name, (source, companion) in wanted.items():
            self._by_source[source].append((name, COMPANIONS[companion or "last"]))

    def __call__(self, span: Span) -> dict[str, float]:
        """The companions by name, NaN where nothing was observed."""
        found = dict.fromkeys(self.names, np.nan)
        for source, companions in self._by_source.items():
            if len(values := span.observed(source)):
                for name, companion in companions:
                    found[name] = companion(values)
        return found
