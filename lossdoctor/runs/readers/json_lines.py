"""JSON lines: one object a row, of any training that counts steps or epochs.

DINO, MAE, ConvNeXt and DeiT (log.txt), Detectron2 (metrics.json), MMDetection and MMEngine (*.log.json, scalars.json),
LLaMA-Factory (trainer_log.jsonl), and whatever else writes its rows like this.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import Columns, number
from lossdoctor.runs.readers.aliases import EPOCH_NAMES, SPLITS, STEP_NAMES
from lossdoctor.runs.readers.log import Log
from lossdoctor.runs.readers.names import is_training_name, understand

__all__ = ["FORMAT", "could_be", "decoded", "detect", "flat", "read"]

FORMAT = "JSON lines"

_LONGEST_LINE = 16_000_000
_DEEPEST = 4
_SPLIT_KEYS = ("mode", "split", "phase", "stage", "_split", "set", "subset")
_AXES = frozenset({*STEP_NAMES, *EPOCH_NAMES})


def detect(path: Path, head: bytes) -> bool:
    """Lines of objects, of which one has an axis or a loss in it."""
    if path.is_dir():
        return False
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start != b"{":
        return False
    lines = head.splitlines()
    whole = lines if len(head) < 65_536 else lines[:-1]  # noqa: PLR2004  the head ends within a line
    if not whole:  # a first line with the whole configuration in it
        return path.suffix == ".jsonl" or path.name.endswith(".log.json")
    found, measured = False, 0
    for line in whole[:50]:
        record = decoded(line)
        if record is None:
            if line.strip():
                return found
            continue
        flattened = flat(record)
        axis = any(understand(name).role in {"step", "epoch"} for name in flattened)
        found = found or (axis and any(is_training_name(name) for name in flattened))
        measured += len(flattened) > 1 and any(understand(name).role == "loss" for name in flattened)
        found = found or measured > 1  # one row without an axis is a result
    return found


def could_be(path: Path, head: bytes) -> bool:
    """Whether a file begins with an object that has an axis, whatever else is in it."""
    if path.is_dir():
        return False
    record = decoded(head.partition(b"\n")[0])
    return record is not None and any(understand(name).role in {"step", "epoch"} for name in flat(record))


def read(path: Path) -> list[Log]:
    """Read the rows of a file. Lines that are no objects are passed over. Raises LogError where none is."""
    columns = Columns()
    config: dict[str, Any] = {}
    broken = 0
    format_name = ""
    try:
        with path.open("rb") as file:
            for line in _lines(file):
                record = decoded(line)
                if record is None:
                    broken += bool(line.strip())
                    continue
                if "env_info" in record and not _has_axis(record):
                    format_name = "MMDetection"
                    continue
                format_name = format_name or _format_of(record)
                config |= {key: record[key] for key in ("total_steps",) if number(record.get(key)) is not None}
                columns.add_row(_row(record))
                if columns.full:
                    break
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    if not columns.rows:
        raise LogError(f"{path}: no line is a JSON object; is this the log of a training?")
    warnings = [f"{path}: {broken} lines are no JSON objects; they were left out."] if broken > 1 else []
    warnings += [f"{path}: {columns.lost}"] if columns.lost else []
    return [Log(path, format_name or FORMAT, columns.series(), columns.rows, config=config, warnings=warnings)]


def decoded(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None where there is none. Bare NaN and Infinity are read as Python writes them."""
    line = line.strip().removeprefix(b"\xef\xbb\xbf")
    if not line.startswith(b"{"):
        return None
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def flat(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, float]:
    """The numbers of an object, nested ones by their path.

    >>> flat({"train": {"loss": 1, "name": "x"}, "step": "3"})
    {'train/loss': 1.0, 'step': 3.0}
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if type(value) is float:  # by far the most
            found[f"{prefix}{key}"] = value
        elif isinstance(value, dict):
            if depth < _DEEPEST:
                found |= flat(value, f"{prefix}{key}/", depth + 1)
        elif not isinstance(value, bool) and (plain := number(value)) is not None:
            found[f"{prefix}{key}"] = plain
    return found


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of lines that are too long, only that they are there."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            line = b"?"
        yield line


def _has_axis(record: Mapping[str, Any]) -> bool:
    return any(key.lower() in _AXES for key in record)


def _row(record: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers under their names; those of a validation row begin with its split."""
    row = flat(record)
    split = next((str(record[key]).lower() for key in _SPLIT_KEYS if isinstance(record.get(key), str)), "")
    if split not in SPLITS or SPLITS[split] == "train":
        if "iter" in row or "lr" in row or "base_lr" in row or not _is_of_mmengine(record):
            return row
        row.pop("step")  # of a validation: it counts epochs here, and iterations in the rows of the training
        split = "val"
    row.pop("iter", None)  # in MMDetection the length of the validation set
    return {
        name if understand(name).role in {"step", "epoch", "time"} else f"{split}/{name}": row[name] for name in row
    }


def _is_of_mmengine(record: Mapping[str, Any]) -> bool:
    return {"data_time", "time", "step"} <= record.keys() and any("/" in key for key in record)


def _format_of(record: Mapping[str, Any]) -> str:
    if "current_steps" in record and "total_steps" in record:
        return "LLaMA-Factory"
    if "total_loss" in record and "iteration" in record:
        return "Detectron2"
    if {"iter", "time", "data_time"} <= record.keys():
        return "MMDetection"
    return ""
