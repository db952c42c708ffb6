"""TensorBoard's event files: TFRecord frames with their checksums, and the scalars in them, a chunk at a time.

Records of equal length that were written for the same kind of event differ in few bytes: time, step, number, and the
letters of the tag. So one record is parsed, and all others of its layout are read by NumPy at the same offsets.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from lossdoctor.runs.readers.protobuf import Layout, layout_of, number_at, step_of

__all__ = ["Scalars", "read_scalars"]

_CHUNK = 4_000_000
_LARGEST = 32_000_000
"""Bytes of a record that may hold scalars; larger ones (graphs, images) are passed over."""
_HEADER, _FOOTER = 12, 4
_DELTA = 0xA282EAD8
_KNOWN_LENGTHS = 4_096
_FEW = 4
"""Records of a layout that are not worth NumPy's overhead."""
_LONGEST = 4_096
"""Bytes of a record that is worth comparing with others byte by byte."""
_LAYOUTS = 64
"""Layouts of one length that are looked for: a bound on the work that a malicious file can make."""

Bytes = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Scalars:
    """Every scalar of a file in the order it was written: arrays of equal length, `tag` indexes `tags`."""

    tags: list[str] = field(default_factory=list)
    tag: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    step: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    wall_time: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    value: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    events: int = 0
    damage: str = ""
    """What could not be read, as words for a sentence; empty where all was."""


@dataclass(slots=True)
class _Pieces:
    """Scalars of a chunk as they are found: records' numbers, and the columns."""

    tags: dict[bytes, int]
    order: list[npt.NDArray[np.int64]] = field(default_factory=list)
    tag: list[npt.NDArray[np.int32]] = field(default_factory=list)
    step: list[npt.NDArray[np.int64]] = field(default_factory=list)
    wall_time: list[npt.NDArray[np.float64]] = field(default_factory=list)
    value: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def number(self, tag: bytes) -> int:
        return self.tags.setdefault(tag, len(self.tags))

    def arrays(
        self,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        order = np.argsort(np.concatenate(self.order), kind="stable")
        tag, step = np.concatenate(self.tag)[order], np.concatenate(self.step)[order]
        return tag, step, np.concatenate(self.wall_time)[order], np.concatenate(self.value)[order]


def read_scalars(path: Path) -> Scalars:
    """Read all scalars of an event file; reading ends quietly where the file is cut off. Raises OSError."""
    tags: dict[bytes, int] = {}
    chunks = []
    found = Scalars()
    with path.open("rb") as file:
        frames = _Frames(file, path.stat().st_size)
        for data, starts, lengths in frames:
            found.events += len(starts)
            pieces = _Pieces(tags)
            _decode(data, starts, lengths, pieces)
            if pieces.order:
                chunks.append(pieces.arrays())
    found.damage = frames.damage()
    found.tags = [tag.decode("utf-8", "replace") for tag in tags]
    if chunks:
        tag, step, wall_time, value = zip(*chunks, strict=True)
        found.tag, found.step = np.concatenate(tag), np.concatenate(step)
        found.wall_time, found.value = np.concatenate(wall_time), np.concatenate(value)
    return found


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _DELTA) & 0xFFFF_FFFF


class _Frames:
    """The records of a file: chunks of bytes, with begin and length of each record whose checksum is right."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._at = 0
        self._spoilt = 0
        self._lost_at: int | None = None

    def damage(self) -> str:
        parts = [f"{self._spoilt} records fail their checksum"] * bool(self._spoilt)
        if self._lost_at is not None:
            parts.append(f"from byte {self._lost_at} on there are no records any more")
        return " and ".join(parts)

    def __iter__(self) -> Iterator[tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        rest, known = b"", dict[bytes, int]()
        while self._lost_at is None:
            fresh = self._file.read(_CHUNK)
            data = rest + fresh
            starts: list[int] = []
            lengths: list[int] = []
            at, needed = self._frame(data, starts, lengths, known)
            if starts:
                begins, sizes = self._checked(data, starts, lengths)
                if len(begins):
                    yield data, begins, sizes
            self._at += at
            rest = data[at:]
            if needed > _LARGEST and self._lost_at is None:
                if self._at + needed >= self._size:
                    return
                self._at, rest = self._file.seek(self._at + needed), b""
            elif not fresh:
                return

    def _frame(self, data: bytes, starts: list[int], lengths: list[int], known: dict[bytes, int]) -> tuple[int, int]:
        """Find the whole records of `data`; returns where the next begins and how many bytes it takes."""
        at, end = 0, len(data)
        found, put_start, put_length = known.get, starts.append, lengths.append
        while True:
            header = data[at : at + _HEADER]
            length = found(header)
            if length is None:
                if len(header) < _HEADER:
                    return at, 0
                length = int.from_bytes(header[:8], "little")
                if _masked(google_crc32c.value(header[:8])) != int.from_bytes(header[8:], "little"):
                    self._lost_at = self._at + at
                    return at, 0
                if len(known) < _KNOWN_LENGTHS:
                    known[header] = length
            begin = at + _HEADER
            at = begin + length + _FOOTER
            if at > end:
                return begin - _HEADER, length + _HEADER + _FOOTER
            put_start(begin)
            put_length(length)

    def _checked(
        self, data: bytes, starts: list[int], lengths: list[int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Begin and length of the records whose checksum is right."""
        crc = google_crc32c.value
        computed = np.array(
            [crc(data[begin : begin + size]) for begin, size in zip(starts, lengths, strict=True)], dtype=np.uint64
        )
        begins, sizes = np.array(starts), np.array(lengths)
        stored = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 4)[begins + sizes]
        computed = ((computed >> np.uint64(15)) | (computed << np.uint64(17))) + np.uint64(_DELTA)
        right = (computed & np.uint64(0xFFFF_FFFF)).astype("<u4") == stored.view("<u4").reshape(-1)
        self._spoilt += int(len(right) - right.sum())
        return begins[right], sizes[right]


def _decode(data: bytes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], into: _Pieces) -> None:
    """The scalars of all records: by layout where many share one, else one by one."""
    by_length = np.argsort(lengths, kind="stable")
    bounds = np.flatnonzero(np.diff(lengths[by_length])) + 1
    for records in np.split(by_length, bounds):
        length = int(lengths[records[0]])
        if 0 < length <= _LONGEST and len(records) >= _FEW:
            records = _decode_alike(data, starts, length, records, into)  # noqa: PLW2901  the rest
        for record in records.tolist():
            first = int(starts[record])
            _take_one(data[first : first + length], record, into)


def _decode_alike(
    data: bytes, starts: npt.NDArray[np.int64], length: int, records: npt.NDArray[np.int64], into: _Pieces
) -> npt.NDArray[np.int64]:
    """The scalars of records of one length, layout by layout; returns the records whose layouts are rare."""
    rows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), length)[starts[records]]
    for _ in range(_LAYOUTS):
        if len(records) < _FEW:
            break
        first = int(starts[records[0]])
        try:
            layout = layout_of(data[first : first + length])
        except ValueError:  # its checksum was right, so somebody wrote it like this; it holds no scalars
            rows, records = rows[1:], records[1:]
            continue
        fits = _fits(rows, layout)
        if layout.places:
            everything = bool(fits.all())
            _take(rows if everything else rows[fits], layout, records if everything else records[fits], into)
        rows, records = rows[~fits], records[~fits]
    return records


def _take_one(event: bytes, record: int, into: _Pieces) -> None:
    """The scalars of one event, without NumPy's overhead for each of them."""
    try:
        layout = layout_of(event)
    except ValueError:
        return
    if not layout.places:
        return
    wall_time = math.nan if layout.wall_time is None else struct.unpack_from("<d", event, layout.wall_time)[0]
    values = np.array([number_at(event, place) for place in layout.places])
    into.order.append(np.full(len(values), record))
    into.step.append(np.full(len(values), step_of(event, layout.step)))
    into.wall_time.append(np.full(len(values), wall_time))
    into.tag.append(np.array([into.number(event[place.tag]) for place in layout.places], dtype=np.int32))
    into.value.append(values)


def _fits(rows: Bytes, layout: Layout) -> npt.NDArray[np.bool_]:
    """Which events have the layout of the first: only times, steps, tags' letters and numbers may differ."""
    like = rows[0]
    fixed = np.ones(len(like), dtype=np.bool_)
    if layout.wall_time is not None:
        fixed[layout.wall_time : layout.wall_time + 8] = False
    fixed[layout.step] = False
    for place in layout.places:
        fixed[place.tag] = False
        fixed[place.value : place.end] = False
    fits = np.ones(len(rows), dtype=np.bool_)
    for column in np.flatnonzero(fixed).tolist():
        fits &= rows[:, column] == like[column]
    for column in range(layout.step.start, layout.step.stop):
        fits &= (rows[:, column] & 0x80) == (like[column] & 0x80)
    return fits


def _take(rows: Bytes, layout: Layout, records: npt.NDArray[np.int64], into: _Pieces) -> None:
    """The scalars of events that share a layout."""
    step = np.zeros(len(rows), dtype=np.uint64)
    for shift, column in enumerate(range(layout.step.start, min(layout.step.stop, layout.step.start + 10))):
        step |= (rows[:, column] & 0x7F).astype(np.uint64) << np.uint64(7 * shift)
    wall_time = np.full(len(rows), np.nan)
    if layout.wall_time is not None:
        wall_time = _numbers(rows, layout.wall_time, "<f8")
    for place in layout.places:
        into.order.append(records)
        into.step.append(step.view(np.int64))
        into.wall_time.append(wall_time)
        into.tag.append(_tags(rows[:, place.tag], into))
        into.value.append(_numbers(rows, place.value, place.dtype))


def _numbers(rows: Bytes, at: int, dtype: str) -> npt.NDArray[np.float64]:
    if dtype == "bf16":
        wide = np.zeros((len(rows), 4), np.uint8)
        wide[:, 2:] = rows[:, at : at + 2]
        return wide.view("<f4").reshape(-1).astype(np.float64)
    width = np.dtype(dtype).itemsize
    return np.ascontiguousarray(rows[:, at : at + width]).view(dtype).reshape(-1).astype(np.float64)


def _tags(letters: Bytes, into: _Pieces) -> npt.NDArray[np.int32]:
    """The number of each row's tag."""
    if (letters == letters[0]).all():
        return np.full(len(letters), into.number(letters[0].tobytes()), dtype=np.int32)
    width = -(-letters.shape[1] // 8) * 8
    words = np.zeros((len(letters), width), np.uint8)
    words[:, : letters.shape[1]] = letters
    # Only a sum of the words is compared at first, a whole word each: sorting strings costs ten times as much.
    weights = np.random.default_rng(0).integers(1, 2**63, width // 8, dtype=np.uint64) | np.uint64(1)
    keys = (words.view(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    _, firsts, which = np.unique(keys, return_index=True, return_inverse=True)
    if not (letters == letters[firsts][which]).all():
        return np.array([into.number(row.tobytes()) for row in letters], dtype=np.int32)
    numbers = np.array([into.number(letters[first].tobytes()) for first in firsts], dtype=np.int32)
    return numbers[which]
