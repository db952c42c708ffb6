"""Files of nothing but numbers that are named after what they hold: train_loss.txt, and val_loss.txt beside it.

One number a line, as numpy.savetxt and a loop with print leave them, or all in one, as str(losses) does. The files of a
directory that are as long as each other are columns of one training. Such files are often written to again by the next
training; where the loss starts over, another begins.

Lines of several numbers are a table, whose columns are named by the comment above it, as numpy.savetxt writes it, or
else by their places, for whoever says which is the loss.
"""

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import MAX_COLUMNS, Columns, number
from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.names import understand, words_of

__all__ = ["FORMAT", "could_be", "detect", "read"]

FORMAT = "bare numbers"

_SUFFIXES = frozenset({"", ".txt", ".csv", ".dat", ".data", ".log", ".list", ".json"})
_NAMED = frozenset({"loss", "losses", "acc", "accs", "accuracy", "accuracies"})
_TOKEN = re.compile(rb"[^\s,\[\]]+")
_HEAD = 65_536
_LARGEST = 100_000_000
"""Bytes of a file of numbers that are read: no training logs more losses."""
_LONGEST_LINE = 200_000
_MOST_FILES = 200
_FEWEST = 3
_LEVEL = 0.75
"""Where a training starts over, its first values are at least this share of the file's first ones."""
_JUMP = 5.0
"""To start over is a rise of so many times the usual difference of two rows: from one row to the next, and of the
median of three rows."""
_FALL = 7.5
"""It has come down before by so many of these differences."""

Floats = npt.NDArray[np.float64]


def detect(path: Path, head: bytes) -> bool:
    """A file of numbers that is named after a loss or an accuracy, the first of those of its training, or a table."""
    if _is_named(path) and _is_bare(head):
        return _of_one_training(path)[0] == path
    known = [understand(name) for name in _columns(head)]
    return any(name.role in {"step", "epoch"} for name in known) and any(name.role == "loss" for name in known)


def could_be(path: Path, head: bytes) -> bool:
    """A file of numbers that is named after a loss or an accuracy, or a table of numbers."""
    return bool((_is_named(path) and _is_bare(head)) or _columns(head))


def read(path: Path) -> list[Log]:
    """The trainings the file is of, with the files beside it that are as long. Raises LogError if it is too short."""
    with path.open("rb") as file:
        names = _columns(file.read(_HEAD))
    if names:
        return [_table(path, names)]
    columns = {file.stem: np.array(_numbers(file)) for file in _of_one_training(path)}
    rows = len(columns[path.stem])
    if rows < _FEWEST:
        raise LogError(f"{path}: {rows} numbers are no course of a loss; log one for each step or epoch")
    starts = _starts(columns[path.stem])
    if len(starts) == 1:
        return [_log(path, columns, path.stem)]
    again = ", ".join(str(start + 1) for start in starts[1:])
    said = f"the loss starts over at row {again}: taken for another training in the same file"
    return [
        _log(path, {name: values[start:end] for name, values in columns.items()}, f"{path.stem} {count}", said)
        for count, (start, end) in enumerate(pairwise([*starts, rows]), 1)
    ]


def _columns(head: bytes) -> list[str]:
    """The names of the columns of a table of numbers, by the comment above it or by place; none for what is none."""
    whole = head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1]
    lines = [line.strip() for line in whole.decode(errors="replace").splitlines() if line.strip()]
    comments = list(takewhile(lambda line: line.startswith(("#", "%")), lines))
    rows = [_cells(line) for line in lines[len(comments) :]]
    width = len(rows[0]) if len(rows) >= _FEWEST else 0
    if not 1 < width <= MAX_COLUMNS or any(len(row) != width or None in map(number, row) for row in rows):
        return []
    named = _cells(comments[-1].lstrip("#% ")) if comments else []
    if len(named) == width == len(set(named)) and not any(number(name) is not None for name in named):
        return named
    return [f"column {place}" for place in range(1, width + 1)]


def _cells(line: str) -> list[str]:
    return line.replace(",", " ").replace(";", " ").split()


def _table(path: Path, names: Sequence[str]) -> Log:
    columns, unread = Columns(), 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        while (line := lines.readline(_LONGEST_LINE)) and not columns.full:
            cells = [] if line.strip()[:1] in {"#", "%"} else _cells(line)
            values = [value for value in map(number, cells) if value is not None]
            if len(values) == len(cells) == len(names):
                columns.add_row(dict(zip(names, values, strict=True)))
            else:
                unread += bool(cells)
    warnings = [f"{path}: {unread} lines are not {len(names)} numbers; they were left out"] if unread else []
    return Log(path, FORMAT, columns.series(), columns.rows, warnings=warnings)


def _log(path: Path, columns: Mapping[str, Floats], name: str, *warnings: str) -> Log:
    rows = len(next(iter(columns.values())))
    at = np.arange(rows, dtype=np.int64)
    series = {column: Series(values, at) for column, values in columns.items()}
    return Log(path, FORMAT, series, rows, name=name, warnings=warnings)


def _starts(values: Floats) -> list[int]:
    """The rows at which a loss starts over: from one row to the next it is back where the file began, and stays."""
    starts = [0]
    finite = values[np.isfinite(values)]
    usual = float(np.median(np.abs(np.diff(finite)))) if len(finite) > _FEWEST else math.inf
    for row in range(_FEWEST, len(values) - _FEWEST + 1):
        if row - starts[-1] < _FEWEST or not 0 < values[row] - values[row - 1] >= _JUMP * usual:
            continue
        first, before, after = (np.median(values[at : at + _FEWEST]) for at in (starts[-1], row - _FEWEST, row))
        back = values[row : row + 2] >= _LEVEL * np.maximum(values[:2], 0)
        if after - before >= _JUMP * usual and first - before >= _FALL * usual and back.all() and values[row - 1] >= 0:
            starts.append(row)
    return starts


def _is_named(path: Path) -> bool:
    """Whether a file is named as a column of a log is."""
    if path.suffix.lower() not in _SUFFIXES or _NAMED.isdisjoint(words_of(path.stem)):
        return False
    return understand(path.stem).role in {"loss", "accuracy"}


def _is_bare(head: bytes) -> bool:
    """Whether the first bytes of a file are numbers and nothing else: one in each line, or a list of them."""
    whole = head if len(head) < _HEAD else head[: max(head.rfind(b"\n"), head.rfind(b",")) + 1]
    text = whole.decode(errors="replace").strip()
    if text.startswith("["):
        cells = text[1:].removesuffix("]").replace(",", " ").split()
    else:
        cells = [line for line in text.splitlines() if line.strip()]
        if len(cells) == 1:
            cells = text.replace(",", " ").split()
        if len(cells) < 2:  # noqa: PLR2004 -- a result is no course
            return False
    return bool(cells) and all(number(cell.strip()) is not None for cell in cells)


def _of_one_training(path: Path) -> list[Path]:
    """The files of numbers in the directory that are as long as this one, first the training's loss."""
    beside = [file for file in sorted(path.parent.glob(f"*{path.suffix}"))[:_MOST_FILES] if _is_named(file)]
    length = len(_numbers(path))
    same = [file for file in beside if file == path or (_is_file_of_numbers(file) and len(_numbers(file)) == length)]
    return sorted(same or [path], key=_rank)


def _is_file_of_numbers(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _is_bare(file.read(_HEAD))


def _rank(path: Path) -> tuple[bool, bool, str]:
    known = understand(path.stem)
    return known.role != "loss", known.split not in {"train", ""}, path.name


def _numbers(path: Path) -> "array[float]":
    """The numbers of a file, as far as they go."""
    found = array("d")
    with path.open("rb") as file:
        tokens = _TOKEN.findall(file.read(_LARGEST))
    for token in tokens:
        value = number(token.decode(errors="replace"))
        if value is None:
            break
        found.append(value)
    return found
