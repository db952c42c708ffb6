"""Weights & Biases, as it is on disk: the .wandb file of a run, or the run's directory.

A .wandb file is a LevelDB log (blocks of 32 KiB, records with a checksum, cut into parts at the blocks' ends) of
protobuf messages, of which history (2), configuration (5), printed text (4, 13) and the run itself (17) are read.
Source: wandb/proto/wandb_internal.proto; github.com/google/leveldb, doc/log_format.md. Values are JSON in old versions
and typed fields in new ones. Where nothing was logged, the losses are looked for in what the run printed.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import Columns, number
from lossdoctor.runs.printed.lines import lines, lines_of
from lossdoctor.runs.readers.log import Log
from lossdoctor.runs.readers.text import log_of

__all__ = ["FORMAT", "detect", "read"]

FORMAT = "Weights & Biases"

_HEADER = b":W&B\xe1\xbe"
_BLOCK = 1 << 15
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LARGEST = 1 << 26  # bytes of one message
_CHECKSUMS = {kind: zlib.crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_HISTORY, _OUTPUT, _CONFIG, _TENSORBOARD, _OUTPUT_RAW, _RUN = 2, 4, 5, 9, 13, 17
_ITEM, _STEP = 1, 2
_KEY, _NESTED_KEY, _BOOLEAN, _INTEGER, _DOUBLE, _VALUE_JSON = 1, 2, 4, 5, 6, 16
_MOST_ITEMS = 20_000  # of one record
_MOST_TEXT = 1 << 26  # characters of printed text that are kept


def detect(path: Path, head: bytes) -> bool:
    """A .wandb file, or the directory of a run."""
    if path.is_dir():
        return bool(_file_in(path)) or (path / "files" / "wandb-summary.json").is_file()
    return head.startswith(_HEADER)


def read(path: Path) -> list[Log]:
    """Read the run. Raises LogError if it has no history, or if its curves are elsewhere."""
    file = _file_in(path) if path.is_dir() else path
    try:
        if file is not None:
            return [_read_file(path, file)]
        printed = path / "files" / "output.log"
        if printed.is_file():
            return [log_of(path, lines(printed), known_as=FORMAT)]
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    raise LogError(
        f"{path}: only the last values of the run are here (wandb-summary.json), no curve; give its .wandb file,"
        " or export the history as CSV"
    )


def _file_in(path: Path) -> Path | None:
    return next(iter(sorted(path.glob("run-*.wandb"))), None)


def _read_file(path: Path, file: Path) -> Log:
    columns, config, printed, facts = Columns(), dict[str, Any](), list[str](), dict[str, Any]()
    warnings: list[str] = []
    room = _MOST_TEXT
    for message in _messages(file, warnings):
        try:
            for number_, wire, value in _fields(message):
                if wire != _BYTES or not isinstance(value, bytes):
                    continue
                if number_ == _HISTORY:
                    _history(value, columns)
                elif number_ == _CONFIG:
                    _configure(value, config)
                elif number_ == _RUN:
                    _run(value, facts, config)
                elif number_ in {_OUTPUT, _OUTPUT_RAW} and room > 0 and not columns.rows:
                    text = _text(value, 3)
                    room -= len(text)
                    printed.append(text)
                elif number_ == _TENSORBOARD:
                    facts["tensorboard"] = _text(value, 1)
        except ValueError:
            _warn(warnings, f"{file}: a record is damaged and was left out")
        if columns.full:
            break
    if not len(columns):
        return _without_history(path, file, printed=printed, config=config, facts=facts)
    if columns.lost:
        warnings.append(columns.lost)
    name, started = str(facts.get("name") or file.stem.removeprefix("run-")), facts.get("started")
    return Log(
        path,
        FORMAT,
        columns.series(),
        columns.rows,
        name=name,
        config=config,
        started=started,
        warnings=tuple(warnings),
    )


def _without_history(
    path: Path, file: Path, *, printed: list[str], config: dict[str, Any], facts: dict[str, Any]
) -> Log:
    try:
        log = log_of(path, lines_of("".join(printed)), known_as=FORMAT)
    except LogError:
        elsewhere = f"; its curves are TensorBoard's, in {facts['tensorboard']}" if facts.get("tensorboard") else ""
        raise LogError(f"{file}: nothing was logged with wandb.log{elsewhere or '; log the loss'}") from None
    return Log(
        path, FORMAT, log.series, log.rows, name=str(facts.get("name", "")), config=config, started=facts.get("started")
    )


def _warn(warnings: list[str], text: str) -> None:
    if text not in warnings:
        warnings.append(text)


def _messages(path: Path, warnings: list[str]) -> Iterator[bytes]:
    """The whole messages of a LevelDB log. After damage the rest of its block is left out; a torn end is normal."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position, parts_, length = 7, list[bytes](), 0
        while position < size:
            start = position - position % _BLOCK
            file.seek(position)
            block = file.read(start + _BLOCK - position)
            at = 0
            while at + _RECORD.size <= len(block):
                checksum, extent, kind = _RECORD.unpack_from(block, at)
                data = block[at + _RECORD.size : at + _RECORD.size + extent]
                if kind == 0 and extent == 0:
                    break  # the block's end was filled up
                torn = len(data) < extent
                if torn or kind not in _CHECKSUMS or zlib.crc32(data, _CHECKSUMS[kind]) != checksum:
                    if not (torn and start + _BLOCK >= size):
                        _warn(warnings, f"{path}: damaged near byte {position + at}; the rest was read")
                    parts_, length = [], 0
                    break
                at += _RECORD.size + extent
                if kind in {_FULL, _FIRST}:
                    parts_, length = [], 0
                elif not parts_:
                    continue  # its beginning was damaged
                length += extent
                if length > _LARGEST:
                    raise LogError(f"{path}: a record is larger than {_LARGEST} bytes; the file is damaged")
                parts_.append(data)
                if kind in {_FULL, _LAST}:
                    yield b"".join(parts_)
                    parts_, length = [], 0
            position = start + _BLOCK


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes | int]]:
    """Number, wire type and contents of each field. Raises ValueError where it is not protobuf."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        wire = key & 7
        value: bytes | int
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32, _BYTES}:
            if wire == _BYTES:
                length, at = _varint(message, at)
            else:
                length = 8 if wire == _FIXED64 else 4
            if at + length > end:
                raise ValueError("a field reaches beyond its message")
            value, at = message[at : at + length], at + length
        else:
            raise ValueError("no such wire type")
        yield key >> 3, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:  # noqa: PLR2004 -- ten bytes hold 64 bits
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 -- the last byte's high bit is 0
            return value, at
    raise ValueError("a number does not end")


def _text(message: bytes, field: int) -> str:
    return next((v.decode(errors="replace") for n, _, v in _fields(message) if n == field and isinstance(v, bytes)), "")


def _item(message: bytes) -> tuple[str, Any]:
    """Name and value of an item of the history or the configuration; what is no number, text or JSON is None."""
    names, nested, value = "", list[str](), None
    for number_, wire, content in _fields(message):
        if isinstance(content, bytes):
            if number_ == _KEY:
                names = content.decode(errors="replace")
            elif number_ == _NESTED_KEY:
                nested.append(content.decode(errors="replace"))
            elif number_ == _VALUE_JSON:
                value = _json(content)
            elif number_ == _DOUBLE and wire == _FIXED64:
                value = struct.unpack("<d", content)[0]
        elif number_ == _INTEGER:
            value = (content >> 1) ^ -(content & 1)  # sint64: zigzag
    return names or ".".join(nested), value


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _history(message: bytes, columns: Columns) -> None:
    row = -1
    found: dict[str, float] = {}
    for count, (number_, wire, value) in enumerate(_fields(message)):
        if count >= _MOST_ITEMS:
            break
        if wire != _BYTES or not isinstance(value, bytes):
            continue
        if number_ == _STEP:
            found.setdefault(
                "_step", float(next((v for n, _, v in _fields(value) if n == 1 and isinstance(v, int)), 0))
            )
        elif number_ == _ITEM:
            name, content = _item(value)
            logged = number(content)
            if name and logged is not None:
                found[name] = logged
    if any(not name.startswith("_") for name in found):
        row = columns.row()
        for name, logged in found.items():
            columns.add(name, row, logged)


def _configure(message: bytes, config: dict[str, Any]) -> None:
    for number_, _, value in _fields(message):
        if number_ == 1 and isinstance(value, bytes):
            name, content = _item(value)
            if name and not name.startswith("_") and len(config) < _MOST_ITEMS:
                config[name] = content


def _run(message: bytes, facts: dict[str, Any], config: dict[str, Any]) -> None:
    for number_, _, value in _fields(message):
        if not isinstance(value, bytes):
            continue
        if number_ == 4:  # noqa: PLR2004 -- RunRecord.config
            _configure(value, config)
        elif number_ == 8:  # noqa: PLR2004 -- RunRecord.display_name
            facts["name"] = value.decode(errors="replace")
        elif number_ == 17:  # noqa: PLR2004 -- RunRecord.start_time, a Timestamp of seconds and nanoseconds
            seconds = {n: v for n, _, v in _fields(value) if isinstance(v, int)}
            started = seconds.get(1, 0) + seconds.get(2, 0) / 1e9
            facts["started"] = started if math.isfinite(started) else None
