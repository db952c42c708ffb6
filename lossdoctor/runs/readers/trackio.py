"""Trackio: a project's SQLite database, with a row of JSON for each step; one log for each run."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import MAX_VALUES, Columns
from lossdoctor.runs.databases import is_database, opened, tables
from lossdoctor.runs.printed.records import numbers_in
from lossdoctor.runs.readers.log import Log

__all__ = ["FORMAT", "detect", "read"]

FORMAT = "Trackio"

_MOST_RUNS = 100_000


def detect(path: Path, head: bytes) -> bool:
    """A database with Trackio's table of metrics."""
    return is_database(head) and {"run_name", "step", "metrics", "timestamp"} <= tables(path).get("metrics", set())


def read(path: Path) -> list[Log]:
    """Read every run of the project, in the order they began. Raises LogError if there is none."""
    columns = tables(path)
    # Before 0.20 a run was known by its name alone.
    key = "run_id" if "run_id" in columns.get("metrics", set()) else "run_name"
    runs: dict[str, tuple[Columns, str, str]] = {}
    warnings: list[str] = []
    unread = 0
    room = MAX_VALUES
    with opened(path) as connection:
        query = f"SELECT {key}, run_name, timestamp, step, metrics FROM metrics ORDER BY id"  # noqa: S608 -- two literals
        for run, name, stamp, step, content in connection.execute(query):
            if str(run) not in runs:
                if len(runs) >= _MOST_RUNS:
                    continue
                runs[str(run)] = (Columns(), str(name), str(stamp))
            record = _record(content)
            if record is None:
                unread += 1
                continue
            found = numbers_in(record)
            room -= len(found)
            if room < 0:
                warnings.append("the database has more values than are read; the last were left out")
                break
            if found:
                into = runs[str(run)][0]
                row = into.row()
                if isinstance(step, int | float):
                    into.add("step", row, float(step))
                for metric, value in found.items():
                    if metric != "step":
                        into.add(metric, row, value)
        configs = _configs(connection, key) if {key, "config"} <= columns.get("configs", set()) else {}
    if unread:
        warnings.append(f"{path}: {unread} rows of metrics are not JSON objects; the others were read")
    logs = [
        Log(
            path,
            FORMAT,
            into.series(),
            into.rows,
            name=name,
            config=configs.get(run, {}),
            started=_seconds(stamp),
            warnings=tuple([*warnings, into.lost] if into.lost else warnings),
        )
        for run, (into, name, stamp) in runs.items()
        if into.rows
    ]
    if not logs:
        raise LogError(f"{path}: no metric was logged in this Trackio project; log the loss with trackio.log")
    return logs


def _record(content: object) -> dict[str, Any] | None:
    if not isinstance(content, str | bytes):
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _configs(connection: Any, key: str) -> dict[str, dict[str, Any]]:
    found = {}
    for run, content in connection.execute(f"SELECT {key}, config FROM configs LIMIT {_MOST_RUNS}"):  # noqa: S608 -- as above
        config = _record(content) or {}
        found[str(run)] = {str(name): value for name, value in config.items() if not str(name).startswith("_")}
    return found


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None
