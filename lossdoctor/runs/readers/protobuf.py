"""As much of the protobuf wire format as TensorBoard's scalars need: where in an event the numbers stand."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Layout", "Place", "layout_of", "number_at", "step_of"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VALUES = 10_000
"""Values of one event: more are no scalars that somebody logged."""

# Numbers of the fields, from tensorflow/core/util/event.proto, framework/summary.proto and framework/tensor.proto.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY = 1, 2, 3, 5
_VALUE = 1
_TAG, _SIMPLE_VALUE, _TENSOR = 1, 2, 8
_DTYPE, _SHAPE, _CONTENT = 1, 2, 4
_LISTS = {5: "<f4", 6: "<f8"}
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 14: "bf16", 19: "<f2"}
_CODES = {"<f4": "<f", "<f8": "<d", "<i4": "<i", "<i8": "<q", "<f2": "<e"}
_WIDTHS = {"<f4": 4, "<f8": 8, "<i4": 4, "<i8": 8, "<f2": 2, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Place:
    """One scalar within an event: the bytes of its tag, and where its number begins and how it is coded."""

    tag: slice
    value: int
    dtype: str

    @property
    def end(self) -> int:
        """The byte after the number."""
        return self.value + _WIDTHS[self.dtype]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an event holds its time, its step (a varint, absent for 0) and its scalars."""

    wall_time: int | None
    step: slice
    places: tuple[Place, ...]


def layout_of(event: bytes) -> Layout:
    """Where the scalars of an event are. Raises ValueError if it is not in the wire format."""
    wall_time, step, places = None, slice(0, 0), list[Place]()
    for field, wire, begin, end in _fields(event, 0, len(event)):
        if field == _WALL_TIME and wire == _FIXED64:
            wall_time = begin
        elif field == _STEP and wire == _VARINT:
            step = slice(begin, end)
        elif field == _SUMMARY and wire == _BYTES:
            for inner, inner_wire, first, last in _fields(event, begin, end):
                if inner == _VALUE and inner_wire == _BYTES and (place := _place(event, first, last)):
                    places.append(place)
                    if len(places) > _MOST_VALUES:
                        raise ValueError("too many values")
    return Layout(wall_time, step, tuple(places))


def _place(event: bytes, begin: int, end: int) -> Place | None:
    tag, found = slice(0, 0), None
    for field, wire, first, last in _fields(event, begin, end):
        if field == _TAG and wire == _BYTES:
            tag = slice(first, last)
        elif field == _SIMPLE_VALUE and wire == _FIXED32:
            found = (first, "<f4")
        elif field == _TENSOR and wire == _BYTES:
            found = _tensor(event, first, last)
    return Place(tag, *found) if found and tag.stop > tag.start else None


def _tensor(event: bytes, begin: int, end: int) -> tuple[int, str] | None:
    """The only number of a tensor; None where it holds several, or none that can be a scalar."""
    dtype, found, numbers = "", None, 0
    for field, wire, first, last in _fields(event, begin, end):
        if field == _DTYPE and wire == _VARINT:
            dtype = _DTYPES.get(event[first], "") if last == first + 1 else ""
        elif field == _SHAPE and last > first and not _is_single(event, first, last):
            return None
        elif field == _CONTENT and wire == _BYTES:
            found, numbers = (first, dtype), numbers + (last - first) // _WIDTHS.get(dtype, last - first + 1)
        elif field in _LISTS:
            width = _WIDTHS[_LISTS[field]]
            found, numbers = (first, _LISTS[field]), numbers + max(1, (last - first) // width) * (last > first)
    return found if found and numbers == 1 and found[1] else None


def _is_single(event: bytes, begin: int, end: int) -> bool:
    """Whether every dimension of a shape is 1."""
    for field, wire, first, last in _fields(event, begin, end):
        if field == 2 and wire == _BYTES:  # noqa: PLR2004  TensorShapeProto.dim
            sizes = [event[at] for inner, _, at, _ in _fields(event, first, last) if inner == 1]
            if sizes != [1]:
                return False
    return True


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message in data[at:end]: number, wire type, and begin and end of the contents."""
    while at < end:
        key, at = _varint(data, at, end)
        wire = key & 7
        if wire == _BYTES:
            length, begin = _varint(data, at, end)
            at = begin + length
        elif wire == _VARINT:
            begin = at
            _, at = _varint(data, at, end)
        elif wire in {_FIXED64, _FIXED32}:
            begin = at
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("unknown wire type")
        if at > end:
            raise ValueError("a field reaches beyond its message")
        yield key >> 3, wire, begin, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and the byte after it."""
    value = shift = 0
    while at < end and shift < 70:  # noqa: PLR2004  ten bytes of seven bits
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004  the last byte has no continuation bit
            return value, at
        shift += 7
    raise ValueError("a number has no end")


def step_of(event: bytes, step: slice) -> int:
    """The step, a signed 64-bit varint."""
    if step.stop == step.start:
        return 0
    value, _ = _varint(event, step.start, step.stop)
    return int(struct.unpack("<q", struct.pack("<Q", value & 0xFFFF_FFFF_FFFF_FFFF))[0])


def number_at(event: bytes, place: Place) -> float:
    """The number of one scalar."""
    if place.dtype == "bf16":  # the upper half of a float32
        return float(struct.unpack("<f", b"\0\0" + event[place.value : place.end])[0])
    return float(struct.unpack_from(_CODES[place.dtype], event, place.value)[0])
