"""The segments of one table: rows to sealed Arrow streams and back.

The segment being written grows by small batches, one a flush. When it is full, when a new column appears and at the
end it is rewritten as one batch: a stream cannot be appended to after its end, and one-row batches read 400 times
slower than large ones (measured).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lossdoctor.runs.files import append, write_file
from lossdoctor.runs.frames import END, scan, seal
from lossdoctor.runs.layout import closed_name, open_name, segments
from lossdoctor.runs.tables import Column, Table

__all__ = ["SEGMENT_ROWS", "Decoder", "Salvage", "SegmentWriter", "adopt", "decode"]

SEGMENT_ROWS = 4_096
"""Rows of a full segment."""

_CELLS = 4_000_000
"""Numbers of a full segment, where a wide layer table reaches this first: about 16 MB."""
_BATCHES = 512
"""Batches after which the open segment is rewritten in place, so that slow trainings have small files too."""
_DOUBLE = frozenset({"step", "time"})
"""float32 holds neither a step beyond 16.7 million nor a wall-clock time."""


class SegmentWriter:
    """Appends rows to the segments of one table. It keeps no file open between calls, so a fork shares nothing.

    Every method may raise OSError; the rows already on disk stay readable then.
    """

    def __init__(self, directory: Path, number: int) -> None:
        """Begin with segment `number` at the first row. The directory is made when it is needed."""
        self._directory = directory
        self._number = number
        self._widths: dict[str, int | None] = {}
        self._batches: list[pa.RecordBatch] = []
        self._on_disk = 0
        self._small = 0

    @property
    def held_bytes(self) -> int:
        """Memory of the rows in the open segment: about its size on the disk."""
        return self._on_disk

    def append(self, table: Table) -> None:
        """Write rows behind those written so far."""
        if not len(table):
            return
        widths = self._widths | {name: _width(column) for name, column in table.columns.items()}
        if widths != self._widths:
            self.close()
            self._widths = widths
        capacity = self._capacity()
        start = 0
        while start < len(table):
            stop = min(start + capacity - self._rows(), len(table))
            self._extend(table[start:stop], full=stop - start == capacity)
            start = stop
            if self._rows() >= capacity:
                self.close()

    def close(self) -> None:
        """Rewrite the open segment as a closed one; nothing to do where there is none."""
        if not self._batches:
            return
        content = _stream(self._batches) + END
        write_file(self._directory / closed_name(self._number), content)
        (self._directory / open_name(self._number)).unlink(missing_ok=True)
        self._number += 1
        self._batches, self._on_disk, self._small = [], 0, 0

    def _rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def _capacity(self) -> int:
        """Rows of a full segment with the columns known now."""
        cells = sum(1 if width is None else width for width in self._widths.values())
        return max(1, min(SEGMENT_ROWS, _CELLS // max(cells, 1)))

    def _extend(self, table: Table, *, full: bool) -> None:
        batch = _encode(table, self._widths)
        if full:  # it is closed right away: the open file would be written for nothing
            self._directory.mkdir(exist_ok=True)
            self._batches.append(batch)
            return
        path = self._directory / open_name(self._number)
        if not self._batches:
            self._directory.mkdir(exist_ok=True)
            self._on_disk = append(path, _stream([batch]), size=0)
        elif self._small >= _BATCHES:
            content = _stream([*self._batches, batch])
            write_file(path, content)
            self._on_disk, self._small = len(content), 0
        else:
            self._on_disk = append(path, seal(batch.serialize()), size=self._on_disk)
        self._batches.append(batch)
        self._small += 1


@dataclass(slots=True)
class Salvage:
    """What could be read of a segment: its rows in order, and what is wrong with the rest (see `frames.Scan`)."""

    tables: list[Table] = field(default_factory=list)
    ended: bool = False
    torn: bool = False
    gaps: int = 0
    whole: int = 0


class Decoder:
    """Reads the whole batches of a segment, at once or piece by piece; of `columns` only these, and `step`."""

    def __init__(self, columns: Collection[str] | None = None) -> None:
        self._columns = columns
        self._schema: pa.Schema | None = None

    def decode(self, data: bytes) -> Salvage:
        """What is in the next piece, which begins with a message. Values are views of `data`; never raises."""
        found = scan(data)
        salvage = Salvage(ended=found.ended, torn=found.torn, gaps=found.gaps, whole=found.whole)
        for message in found.messages:
            try:
                if self._schema is None:
                    self._schema = pa.ipc.read_schema(pa.py_buffer(message))
                    continue
                batch = pa.ipc.read_record_batch(pa.py_buffer(message), self._schema)
                table = _decode(batch, self._columns)
            except (pa.ArrowException, OSError, ValueError, TypeError, KeyError):
                salvage.gaps += 1  # unharmed but not ours; or the schema before it is lost
                continue
            if len(table):
                salvage.tables.append(table)
        return salvage


def decode(data: bytes, columns: Collection[str] | None = None) -> Salvage:
    """Read all whole batches of a segment; of `columns` only these, and `step`.

    Values are views of `data`; never raises.
    """
    return Decoder(columns).decode(data)


def adopt(directory: Path) -> None:
    """Close the open segments that a process left behind when it died. What is damaged is left as it is.

    Raises:
        OSError: The directory cannot be read or written.
    """
    for segment in segments(directory):
        leftover = directory / open_name(segment.number)
        if segment.closed:
            leftover.unlink(missing_ok=True)
            continue
        salvage = decode(leftover.read_bytes())
        if salvage.gaps:
            continue
        if salvage.tables:
            widths = {name: _width(column) for name, column in salvage.tables[0].columns.items()}
            batches = [_encode(table, widths) for table in salvage.tables]
            write_file(directory / closed_name(segment.number), _stream(batches) + END)
        leftover.unlink()


def _stream(batches: list[pa.RecordBatch]) -> bytes:
    """A schema message and all rows as one batch."""
    batch = batches[0] if len(batches) == 1 else pa.concat_batches(batches)  # type: ignore[attr-defined]  # missing in the stubs
    return seal(batch.schema.serialize()) + seal(batch.serialize())


def _width(column: Column) -> int | None:
    return None if column.values.ndim == 1 else column.values.shape[1]


def _encode(table: Table, widths: dict[str, int | None]) -> pa.RecordBatch:
    """Rows as Arrow: null where unobserved, NaN where NaN was observed."""
    arrays = [_array(name, table.columns.get(name), width, len(table)) for name, width in widths.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(widths))


def _array(name: str, column: Column | None, width: int | None, rows: int) -> Any:
    shape = (rows,) if width is None else (rows, width)
    if column is None:
        column = Column(np.full(shape, np.nan, dtype=np.float32), np.zeros(shape, dtype=np.bool_))
    dtype: Any = np.float64 if name in _DOUBLE else np.float32
    with np.errstate(over="ignore"):  # beyond float32 it is stored, and judged, as infinite
        values: Any = np.ascontiguousarray(column.values, dtype=dtype)
    bitmap = None
    if column.observed is not None and not column.observed.all():
        values = np.where(column.observed, values, dtype(np.nan))
        bits: Any = np.packbits(column.observed, bitorder="little")
        bitmap = pa.py_buffer(bits)
    array = pa.Array.from_buffers(pa.from_numpy_dtype(dtype), values.size, [bitmap, pa.py_buffer(values)])
    return array if width is None else pa.FixedSizeListArray.from_arrays(array, width)


def _is_wanted(name: str, wanted: Collection[str] | None) -> bool:
    """Whether to read a column. Losses reported by name, train_loss_<name>, come with train_loss."""
    if wanted is None or name in wanted or name == "step":
        return True
    return name.startswith("train_loss_") and "train_loss" in wanted


def _decode(batch: pa.RecordBatch, wanted: Collection[str] | None) -> Table:
    columns = {
        name: column
        for at, name in enumerate(batch.schema.names)
        if _is_wanted(name, wanted) and (column := _column(batch.column(at))) is not None
    }
    if "step" not in columns:
        message = "no step column"
        raise ValueError(message)
    return Table(columns)


def _column(array: Any) -> Column | None:
    """An Arrow array as a column, without a copy; None for a type that segments do not have."""
    shape: tuple[int, ...] = (len(array),)
    if isinstance(array, pa.FixedSizeListArray):
        shape = (len(array), array.type.list_size)
        array = array.values
    if array.type not in {pa.float32(), pa.float64()}:
        return None
    dtype: Any = np.float32 if array.type == pa.float32() else np.float64
    bitmap, data = array.buffers()
    if not len(array) or data is None:
        return Column(np.empty(shape, dtype))
    values = np.frombuffer(data, dtype, count=len(array)).reshape(shape)
    if bitmap is None or not array.null_count:
        return Column(values)
    packed: Any = np.frombuffer(bitmap, np.uint8)
    bits = np.unpackbits(packed, count=len(array), bitorder="little")
    return Column(values, bits.view(np.bool_).reshape(shape))
