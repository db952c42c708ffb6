"""Trackio's database; the recorded one was written by trackio 0.43."""

import math
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import trackio
from tests.runs.readers.fuzzing import read_or_refuse

DATA = Path(__file__).parent / "data"
LOSSES = [2 / (i + 1) if i != 5 else math.nan for i in range(10)]


def written(path, script):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return written(tmp_path_factory.mktemp("trackio") / "proj.db", (DATA / "trackio.sql").read_text())


def test_what_trackio_wrote_is_read_completely(database):
    assert trackio.detect(database, database.read_bytes()[:65536])
    logs = trackio.read(database)
    assert [log.name for log in logs] == ["run0", "run1"]
    for log in logs:
        assert log.series["train/loss"].values.tolist() == pytest.approx(LOSSES, nan_ok=True)
        assert log.series["step"].values.tolist() == [i * 10 for i in range(10)]
        assert log.config == {"lr": 0.1}
        assert "note" not in log.series


def test_a_database_of_an_older_version_is_read_by_the_names_of_runs(tmp_path):
    path = written(
        tmp_path / "old.db",
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT);"
        """INSERT INTO metrics VALUES (1, '2025-01-01T00:00:00', 'a', 0, '{"loss": 2}'),"""
        """ (2, 'x', 'b', 0, '{"loss": 5}'),"""
        """ (3, '2025-01-01T00:00:01', 'a', 1, '{"loss": 1, "inner": {"x": 3}}'), (4, 'x', 'a', 2, 'broken');""",
    )
    first, second = trackio.read(path)
    assert first.series["loss"].values.tolist() == [2, 1]
    assert first.series["inner/x"].values.tolist() == [3]
    assert second.series["loss"].values.tolist() == [5]
    assert second.started is None
    assert "1 rows of metrics are not JSON" in first.warnings[0]


def test_a_project_without_metrics_is_refused(tmp_path):
    path = written(tmp_path / "x.db", "CREATE TABLE metrics (id, timestamp, run_name, step, metrics);")
    with pytest.raises(LogError, match="no metric was logged"):
        trackio.read(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=..., bits=...)
def test_a_damaged_database_is_read_or_refused(tmp_path, database, position: int, bits: int):
    content = bytearray(database.read_bytes())
    content[position % len(content)] ^= bits % 255 + 1
    path = tmp_path / "proj.db"
    path.write_bytes(content[: len(content) - (bits % 3) * 1000])
    read_or_refuse(path)


@pytest.mark.filterwarnings("default")  # theirs
def test_what_trackio_writes_today_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    rows = [{"train/loss": 1 / (step + 1)} for step in range(5)]
    SQLiteStorage.bulk_log("proj", "run", rows, steps=list(range(5)), config={"lr": 0.1})
    (path,) = (path for path in Path(SQLiteStorage.get_project_db_path("proj")).parent.glob("proj*.db"))
    (log,) = trackio.read(path)
    assert log.series["train/loss"].values.tolist() == [1 / (step + 1) for step in range(5)]
    assert log.config == {"lr": 0.1}
