"""DVCLive: a directory with plots/metrics/**/*.tsv, a table for each metric, each with its own steps."""

import json
from array import array
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import MAX_COLUMNS, MAX_VALUES, number
from lossdoctor.runs.points import Points, laid_out
from lossdoctor.runs.readers.log import Log

__all__ = ["FORMAT", "detect", "read"]

FORMAT = "DVCLive"

_TABLES = ("plots/metrics", "plots/scalars", "scalars")  # the latter two are of versions before 2.0
_LONGEST_LINE = 400
_MOST_FILES = 20_000


def detect(path: Path, head: bytes) -> bool:  # noqa: ARG001 -- a directory has no head; every reader is asked the same way
    """A directory with metrics as tables below plots/, as DVCLive lays them out."""
    if not path.is_dir():
        return False
    tables = _tables(path)
    return tables is not None and any(_is_table(file) for file in islice(tables.rglob("*.tsv"), 20))


def read(path: Path) -> list[Log]:
    """Read all tables as one training. Raises LogError if none has a number."""
    points: dict[str, Points] = {}
    warnings: list[str] = []
    tables = _tables(path) or path
    room = MAX_VALUES
    try:
        for file in sorted(islice(tables.rglob("*.tsv"), _MOST_FILES)):
            name = file.relative_to(tables).with_suffix("").as_posix()
            if len(points) < MAX_COLUMNS and room > 0:
                points[name] = _table(file, room, warnings)
                room -= len(points[name].value)
        config = _parameters(path / "params.yaml")
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    series, rows = laid_out(points)
    if not series:
        raise LogError(
            f"{path}: no table below plots/ has a value; log the loss with live.log_metric and live.next_step"
        )
    return [Log(path, FORMAT, series, rows, name=path.name, config=config, warnings=tuple(warnings))]


def _tables(path: Path) -> Path | None:
    return next((path / inner for inner in _TABLES if (path / inner).is_dir()), None)


def _is_table(file: Path) -> bool:
    with file.open("rb") as lines:
        return b"step" in lines.readline(_LONGEST_LINE).split(b"\t")[:2]


def _table(file: Path, room: int, warnings: list[str]) -> Points:
    """A metric's points; columns are "step" and the metric, in old versions also a time, all told by the header."""
    steps, values, unread = array("d"), array("d"), 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        header = lines.readline(_LONGEST_LINE).rstrip("\r\n").split("\t")
        if "step" not in header or len(header) < 2:  # noqa: PLR2004 -- a step and a value
            return Points(np.empty(0), np.empty(0))
        at, of = header.index("step"), len(header) - 1
        while len(values) < room and (line := lines.readline(_LONGEST_LINE)):
            cells = line.rstrip("\r\n").split("\t")
            step = number(cells[at]) if len(cells) == len(header) else None
            value = number(cells[of] or "nan") if step is not None else None
            if step is None or value is None:
                unread += bool(line.strip())
                continue
            steps.append(step)
            values.append(value)
    if unread:
        warnings.append(f"{file}: {unread} lines are not a step and a number; the others were read")
    return Points(np.array(steps), np.array(values))


def _parameters(path: Path) -> dict[str, Any]:
    """The plain "name: value" lines of params.yaml; what is nested is named by its path."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        text = file.read(1 << 18).decode(errors="replace")
    config: dict[str, Any] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines()[:MAX_COLUMNS]:
        name, colon, value = line.strip().partition(":")
        if not colon or line.lstrip().startswith(("-", "#")):
            continue
        depth = len(line) - len(line.lstrip())
        above = [item for item in above if item[0] < depth][:20]
        full = "/".join([*(item[1] for item in above), name.strip("'\" ")])
        if value.strip():
            config[full] = _scalar(value.strip())
        else:
            above.append((depth, name.strip("'\" ")))
    return config


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip("'\"")
    return value if isinstance(value, int | float | str | bool | None) else text
