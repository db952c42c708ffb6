"""MLflow: a store of files (mlruns/, an experiment or a run in it) or of SQLite (mlflow.db); one log for each run.

A metric's file has a line "timestamp value step" for each point; names with a slash are directories. Old versions wrote
no step. A database holds what is not finite in its own way: NaN as a flag, infinity as the largest float.
"""

import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import MAX_COLUMNS, MAX_NAME, MAX_VALUES, number
from lossdoctor.runs.databases import is_database, opened, tables
from lossdoctor.runs.points import Points, laid_out
from lossdoctor.runs.readers.log import Log

__all__ = ["FORMAT", "detect", "read"]

FORMAT = "MLflow"

_META = "meta.yaml"
_RUN = re.compile(r"[0-9a-f]{32}\Z")
_EXPERIMENT = re.compile(r"\d{1,20}\Z")
_MOST_RUNS = 100_000
_DEEPEST = 8  # slashes in a metric's name
_LONGEST_LINE = 200
_CELLS = 2  # a time and a value; a step since 1.0
_LARGEST = 1.797e308  # what mlflow's database writes for infinity
_SYSTEM = "system/"  # of the machine, counted by a clock of its own


@dataclass(slots=True)
class _Points:
    """Points of one metric as they come: time in milliseconds."""

    time: "array[float]" = field(default_factory=lambda: array("d"))
    step: "array[float]" = field(default_factory=lambda: array("d"))
    value: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, time: float, step: float, value: float) -> None:
        self.time.append(time)
        self.step.append(step)
        self.value.append(value)

    def points(self) -> Points:
        return Points(np.array(self.step), np.array(self.value), np.array(self.time) / 1000)


def detect(path: Path, head: bytes) -> bool:
    """A run with its metrics, an experiment, a store; or a database that has MLflow's tables."""
    if path.is_dir():
        return _is_run(path) or any(_is_run(run) for run in islice(_runs_below(path), 1))
    if not is_database(head):
        return False
    found = tables(path)
    return {"key", "value", "timestamp", "run_uuid", "step"} <= found.get("metrics", set()) and "runs" in found


def read(path: Path) -> list[Log]:
    """Read every run that has metrics, deleted ones only if there are no others. Raises LogError if there is none."""
    try:
        if path.is_dir():
            logs = [_run_files(run) for run in ([path] if _is_run(path) else islice(_runs_below(path), _MOST_RUNS))]
        else:
            logs = _database(path)
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    logs = [log for log in logs if log.series]
    if not logs:
        raise LogError(
            f"{path}: no metric was logged in this MLflow store; log the loss with mlflow.log_metric(..., step=)"
        )
    alive = [log for log in logs if not any("deleted" in warning for warning in log.warnings)]
    return alive or logs


def _is_run(path: Path) -> bool:
    return (path / _META).is_file() and (path / "metrics").is_dir()


def _runs_below(path: Path) -> "list[Path]":
    """The runs of an experiment, or of all experiments of a store, without what is in the trash."""
    inner = [child for child in _directories(path) if _RUN.match(child.name)]
    if (path / _META).is_file():
        return [run for run in inner if _is_run(run)]
    experiments = [child for child in _directories(path) if _EXPERIMENT.match(child.name) and (child / _META).is_file()]
    return [run for one in experiments for run in _directories(one) if _RUN.match(run.name) and _is_run(run)]


def _directories(path: Path) -> "list[Path]":
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.is_symlink())


def _run_files(run: Path) -> Log:
    meta = _settings(run / _META)
    metrics: dict[str, _Points] = {}
    warnings: list[str] = []
    room = MAX_VALUES
    for file in _files(run / "metrics", _DEEPEST):
        name = file.relative_to(run / "metrics").as_posix()
        if name.startswith(_SYSTEM) or len(metrics) >= MAX_COLUMNS or len(name) > MAX_NAME:
            continue
        points = metrics[name] = _Points()
        unread = 0
        with file.open(encoding="utf-8", errors="replace") as lines:
            while room > 0 and (line := lines.readline(_LONGEST_LINE)):
                cells = [number(cell) for cell in line.split()]
                if not _CELLS <= len(cells) <= _CELLS + 1 or cells[0] is None or cells[1] is None or cells[-1] is None:
                    unread += bool(line.strip())
                    continue
                points.add(cells[0], cells[2] or 0.0 if len(cells) > _CELLS else 0.0, cells[1])
                room -= 1
        if unread:
            warnings.append(f"{file}: {unread} lines are not 'timestamp value step'; the others were read")
    params = {
        file.relative_to(run / "params").as_posix(): _text(file)
        for file in islice(_files(run / "params", _DEEPEST), MAX_COLUMNS)
    }
    if meta.get("lifecycle_stage") == "deleted":
        warnings.append("the run is marked as deleted")
    name = meta.get("run_name") or _text(run / "tags" / "mlflow.runName") or run.name
    return _log(run, metrics, name=name, config=params, started=number(meta.get("start_time")), warnings=warnings)


def _files(path: Path, depth: int) -> "list[Path]":
    if not path.is_dir():
        return []
    children = sorted(path.iterdir())
    below = [
        file
        for child in children
        if depth and child.is_dir() and not child.is_symlink()
        for file in _files(child, depth - 1)
    ]
    return [child for child in children if child.is_file()] + below


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(1000).decode(errors="replace").strip()


def _settings(path: Path) -> dict[str, str]:
    """The plain "key: value" lines of meta.yaml; it has no others that matter."""
    with path.open("rb") as file:
        text = file.read(1 << 16).decode(errors="replace")
    pairs = (line.partition(": ") for line in text.splitlines() if not line.startswith((" ", "-", "#")))
    return {key: value.strip("'\" \t") for key, colon, value in pairs if colon}


def _database(path: Path) -> list[Log]:
    columns = tables(path)
    runs: dict[str, dict[str, _Points]] = {}
    truncated = False
    with opened(path) as connection:
        flag = "is_nan" if "is_nan" in columns.get("metrics", set()) else "0"
        query = f"SELECT run_uuid, key, value, timestamp, step, {flag} FROM metrics"  # noqa: S608 -- one of two literals
        for count, (run, key, value, stamp, step, is_nan) in enumerate(connection.execute(query)):
            if count >= MAX_VALUES:
                truncated = True
                break
            metrics = runs.setdefault(str(run), {}) if len(runs) < _MOST_RUNS else runs.get(str(run), {})
            name = str(key)
            if (
                name.startswith(_SYSTEM)
                or len(name) > MAX_NAME
                or (name not in metrics and len(metrics) >= MAX_COLUMNS)
            ):
                continue
            read_value, read_step, read_time = number(value), number(step), number(stamp)
            if read_value is None or read_step is None or read_time is None:
                continue
            if abs(read_value) >= _LARGEST:
                read_value = math.copysign(math.inf, read_value)
            metrics.setdefault(name, _Points()).add(read_time, read_step, math.nan if is_nan else read_value)
        wanted = ("name", "start_time", "lifecycle_stage")
        chosen = ", ".join(name if name in columns.get("runs", set()) else "NULL" for name in wanted)
        query = f"SELECT run_uuid, {chosen} FROM runs LIMIT {_MOST_RUNS}"  # noqa: S608 -- literals
        facts = {str(row[0]): row[1:] for row in connection.execute(query)}
        params: dict[str, dict[str, str]] = {}
        if {"run_uuid", "key", "value"} <= columns.get("params", set()):
            for run, key, value in connection.execute("SELECT run_uuid, key, value FROM params LIMIT 1000000"):
                params.setdefault(str(run), {})[str(key)] = str(value)[:1000]
    logs = []
    for run, metrics in runs.items():
        name, started, stage = facts.get(run, (None, None, None))
        warnings = ["the run is marked as deleted"] if stage == "deleted" else []
        warnings += ["the database has more values than are read; the last were left out"] if truncated else []
        config = params.get(run, {})
        logs.append(
            _log(path, metrics, name=str(name or run), config=config, started=number(started), warnings=warnings)
        )
    return sorted(logs, key=lambda log: log.started or 0.0)


def _log(
    path: Path,
    metrics: Mapping[str, _Points],
    *,
    name: str,
    config: Mapping[str, str],
    started: float | None,
    warnings: list[str],
) -> Log:
    points = {}
    for key, one in metrics.items():
        order = np.argsort(np.array(one.time), kind="stable")  # a database has no order of its own
        whole = one.points()
        if whole.time is not None:
            order = np.lexsort((whole.step, whole.time))
            points[key] = Points(whole.step[order], whole.value[order], whole.time[order])
    series, rows = laid_out(points)
    seconds = None if started is None else started / 1000
    return Log(path, FORMAT, series, rows, name=name, config=dict(config), started=seconds, warnings=tuple(warnings))
