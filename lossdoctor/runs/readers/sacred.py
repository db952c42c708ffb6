"""Sacred's FileStorageObserver: a directory with run.json, config.json, metrics.json (steps and values by metric)."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import MAX_COLUMNS, number
from lossdoctor.runs.points import Points, laid_out
from lossdoctor.runs.printed.lines import lines
from lossdoctor.runs.readers.log import Log
from lossdoctor.runs.readers.text import log_of

__all__ = ["FORMAT", "detect", "read"]

FORMAT = "Sacred"

_LARGEST = 1 << 29  # bytes of a JSON file


def detect(path: Path, head: bytes) -> bool:  # noqa: ARG001 -- a directory has no head; every reader is asked the same way
    """A run's directory, by the files in it."""
    return path.is_dir() and all((path / name).is_file() for name in ("run.json", "config.json", "cout.txt"))


def read(path: Path) -> list[Log]:
    """Read the metrics, or if none were logged, what the run printed. Raises LogError if neither has a loss."""
    try:
        metrics = _object(path / "metrics.json") if (path / "metrics.json").is_file() else {}
        config = {name: value for name, value in _object(path / "config.json").items() if not name.startswith("__")}
        started = _seconds(_object(path / "run.json").get("start_time"))
        points = {}
        for name, metric in list(metrics.items())[:MAX_COLUMNS]:
            found = _points(metric)
            if found is not None:
                points[name] = found
        series, rows = laid_out(points)
        if not series:
            printed = log_of(path, lines(path / "cout.txt"), known_as=FORMAT)
            series, rows = dict(printed.series), printed.rows
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return [Log(path, FORMAT, series, rows, name=path.name, config=config, started=started)]


def _object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise LogError(f"{path}: larger than {_LARGEST >> 20} MiB; no run's metrics are")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LogError(f"{path}: not JSON ({error}); was the run cut off while it was written?") from error
    if not isinstance(content, dict):
        raise LogError(f"{path}: a JSON object is expected; is it Sacred's?")
    return content


def _points(metric: object) -> Points | None:
    if not isinstance(metric, dict):
        return None
    steps, values = metric.get("steps"), metric.get("values")
    if not isinstance(steps, list) or not isinstance(values, list):
        return None
    pairs = [(number(step), number(_plain(value))) for step, value in zip(steps, values, strict=False)]
    kept = [(step, value) for step, value in pairs if step is not None and value is not None]
    return Points(np.array([step for step, _ in kept]), np.array([value for _, value in kept])) if kept else None


def _plain(value: object) -> object:
    """A value as it is; NumPy's scalars are written as {"dtype": .., "value": ..} by jsonpickle."""
    return value["value"] if isinstance(value, dict) and "value" in value else value


def _seconds(stamp: object) -> float | None:
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except (ValueError, OverflowError):
        return None
