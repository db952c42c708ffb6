"""Arrow IPC messages that can tell whether they are whole.

A segment is an ordinary Arrow IPC stream: a schema message, record batch messages and, once it is closed, the end
marker. The metadata of a message may be followed by padding that readers skip; each of ours ends in a seal there:

    0xFFFFFFFF | metadata length | metadata, padding, SEAL | body
    SEAL = magic (8 bytes) | body length (int64) | metadata length (int32) | CRC-32 of all of it (uint32)

So any Arrow reader reads a segment, and ours knows, before it parses a byte, whether a message is complete and
unharmed, and where the next one begins after one that is not.
"""

import struct
import zlib
from dataclasses import dataclass, field

import pyarrow as pa

__all__ = ["END", "Scan", "scan", "seal"]

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The end marker of an Arrow stream."""

_MARKER = b"\xff\xff\xff\xff"
_MAGIC = b"lossdoc\x01"
_SEAL = struct.Struct("<8sqiI")
_PREFIX = struct.Struct("<4si")


@dataclass(slots=True)
class Scan:
    """The messages of a segment that are whole, and what is wrong with the rest.

    `ended` is true where the end marker was found, `torn` where the data stops inside a message, `gaps` counts
    stretches that are neither. `whole` is where the last whole message ends.
    """

    messages: list[memoryview] = field(default_factory=list)
    whole: int = 0
    ended: bool = False
    torn: bool = False
    gaps: int = 0


def seal(message: pa.Buffer) -> bytes:
    """An encapsulated Arrow message with the seal put into its metadata's padding."""
    view = memoryview(message)
    _, length = _PREFIX.unpack_from(view)
    metadata, body = view[_PREFIX.size : _PREFIX.size + length], view[_PREFIX.size + length :]
    length += _SEAL.size
    checksum = _checksum(metadata, body, length)
    return b"".join([_PREFIX.pack(_MARKER, length), metadata, _SEAL.pack(_MAGIC, len(body), length, checksum), body])


def scan(data: bytes) -> Scan:
    """Find the whole messages in what is left of a segment. Bounded in time and memory whatever the data is."""
    found = Scan()
    view = memoryview(data)
    position = 0
    while position < len(data):
        if len(data) - position == len(END) and data[position:] == END:
            found.ended = True
            break
        end = _end(view, position)
        if end is not None:
            found.messages.append(view[position:end])
            position = found.whole = end
            continue
        following = _next(data, view, position)
        if following is None:
            found.torn = _is_cut_off(view, position)
            found.gaps += not found.torn
            break
        found.gaps += 1
        position = following
    return found


def _checksum(metadata: memoryview, body: memoryview, length: int) -> int:
    return zlib.crc32(body, zlib.crc32(metadata, zlib.crc32(struct.pack("<qi", len(body), length))))


def _end(view: memoryview, position: int) -> int | None:
    """Where the message that begins at `position` ends, if it is whole and unharmed."""
    if len(view) - position < _PREFIX.size:
        return None
    marker, length = _PREFIX.unpack_from(view, position)
    start = position + _PREFIX.size
    if marker != _MARKER or not _SEAL.size < length <= len(view) - start:
        return None
    sealed = start + length - _SEAL.size
    magic, body_length, sealed_length, checksum = _SEAL.unpack_from(view, sealed)
    end = start + length + body_length
    if magic != _MAGIC or sealed_length != length or not start + length <= end <= len(view):
        return None
    if _checksum(view[start:sealed], view[start + length : end], length) != checksum:
        return None
    return int(end)


def _next(data: bytes, view: memoryview, position: int) -> int | None:
    """Where the next whole message, or the end marker that closes the data, begins after a harmed one."""
    sealed = data.find(_MAGIC, position)
    while sealed >= 0:
        if sealed + _SEAL.size <= len(data):
            _, _, length, _ = _SEAL.unpack_from(view, sealed)
            start = sealed + _SEAL.size - length - _PREFIX.size
            if start > position and _end(view, start) is not None:
                return int(start)
        sealed = data.find(_MAGIC, sealed + 1)
    tail = len(data) - len(END)
    return tail if tail > position and data.endswith(END) else None


def _is_cut_off(view: memoryview, position: int) -> bool:
    """Whether the data just stops inside the message that begins at `position`."""
    rest = len(view) - position
    if rest < _PREFIX.size:
        return bytes(view[position : position + 4]) == _MARKER[:rest]
    marker, length = _PREFIX.unpack_from(view, position)
    if marker != _MARKER or length <= _SEAL.size:
        return False
    if _PREFIX.size + length > rest:
        return True
    magic, body_length, _, _ = _SEAL.unpack_from(view, position + _PREFIX.size + length - _SEAL.size)
    return bool(magic == _MAGIC and _PREFIX.size + length + body_length > rest)
