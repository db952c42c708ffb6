"""MLflow's stores, as files and as a database; the recorded ones were written by mlflow 3.17."""

import math
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import mlflow
from tests.runs.readers.fuzzing import damaged, read_or_refuse

DATA = Path(__file__).parent / "data"
LOSSES = [2 / (i + 1) if i != 5 else math.nan for i in range(12)]
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executescript((DATA / "mlflow.sql").read_text())
    connection.close()
    return path


def check(log):
    assert log.series["train/loss"].values.tolist() == pytest.approx(LOSSES, nan_ok=True)
    steps = log.series["step"].values
    assert steps[log.series["train/loss"].at].tolist() == [i * 10 for i in range(12)]
    assert steps[log.series["val_loss"].at].tolist() == [30, 70, 110]
    assert log.series["inf"].values.tolist() == [math.inf]
    assert log.config == {"lr": "0.1", "batch_size": "32"}
    assert log.name == "run0"


@pytest.mark.parametrize("level", [".", "922552686899549435", "922552686899549435/0cc0f2ad7a1941529a717b90df114baa"])
def test_a_store_an_experiment_and_a_run_are_read_alike(level):
    path = DATA / "mlruns" / level
    assert mlflow.detect(path, b"")
    (log,) = mlflow.read(path)
    check(log)


def test_a_database_is_read_as_the_files_are(database):
    assert mlflow.detect(database, database.read_bytes()[:65536])
    first, second = mlflow.read(database)
    check(first)
    assert second.name == "run1"
    assert second.series["stepless"].values.tolist() == [1.0]


@pytest.fixture
def store(tmp_path):
    def write(metrics, meta="lifecycle_stage: active\nstart_time: 1000\n"):
        run = tmp_path / "1" / ("a" * 32)
        (tmp_path / "1").mkdir(exist_ok=True)
        (tmp_path / "1" / "meta.yaml").write_text("experiment_id: '1'\n")
        for name, content in metrics.items():
            (run / "metrics" / name).parent.mkdir(parents=True, exist_ok=True)
            (run / "metrics" / name).write_text(content)
        (run / "meta.yaml").write_text(meta)
        return tmp_path

    return write


def test_a_run_without_steps_is_counted(store):
    (log,) = mlflow.read(store({"loss": "1 3.0\n2 2.0\n3 1.0\n"}))
    assert log.series["step"].values.tolist() == [0, 1, 2]
    assert log.series["loss"].values.tolist() == [3, 2, 1]


def test_metrics_that_count_epochs_stand_at_the_steps_of_the_others(store):
    batches = "".join(f"{1000 + i * 10} {5 - i / 100} {i}\n" for i in range(400))
    epochs = "".join(f"{1000 + (e + 1) * 1000} {4 - e} {e}\n" for e in range(4))
    (log,) = mlflow.read(store({"loss": batches, "val_loss": epochs}))
    steps = log.series["step"].values
    assert (abs(steps[log.series["val_loss"].at] - [100, 200, 300, 399]) <= 1).all()
    assert (steps[1:] >= steps[:-1]).all()


def test_a_run_that_began_anew_keeps_the_order_of_time(store):
    again = "".join(f"{t} {3 - s / 10} {s}\n" for t, s in enumerate([0, 1, 2, 3, 4, 2, 3, 4, 5]))
    (log,) = mlflow.read(store({"loss": again}))
    assert log.series["step"].values.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5]


def test_a_deleted_run_is_read_only_if_it_is_all_there_is(store):
    path = store({"loss": "1 3.0 0\n2 2.0 1\n"}, meta="lifecycle_stage: deleted\n")
    assert mlflow.read(path)[0].warnings == ("the run is marked as deleted",)


def test_measurements_of_the_machine_are_left_out(store):
    (log,) = mlflow.read(store({"loss": "1 3.0 0\n2 2.0 1\n", "system/cpu_utilization_percentage": "1 3.0 0\n" * 9}))
    assert set(log.series) == {"step", "loss"}


def test_lines_that_are_no_points_are_counted(store):
    (log,) = mlflow.read(store({"loss": "1 3.0 0\nbroken\n2 2.0 1\n1 2 3 4\n"}))
    assert log.series["loss"].values.tolist() == [3, 2]
    assert "2 lines are not" in log.warnings[0]


def test_a_store_without_metrics_is_refused(store):
    with pytest.raises(LogError, match="no metric was logged"):
        mlflow.read(store({"loss": ""}))


def test_a_database_of_something_else_is_not_taken(tmp_path):
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE runs (id); CREATE VIEW metrics AS SELECT 1 AS key, 2 AS value")
    connection.close()
    assert not mlflow.detect(path, path.read_bytes())


@settings(max_examples=60, **SLOW)
@given(damaged(b"1000 2.5 0\n1010 nan 1\n1020 1.5 2\n" * 3))
def test_a_damaged_metric_is_read_or_refused(tmp_path, content):
    run = tmp_path / "run"
    if not run.exists():
        shutil.copytree(DATA / "mlruns" / "922552686899549435" / "0cc0f2ad7a1941529a717b90df114baa", run)
    (run / "metrics" / "val_loss").write_bytes(content)
    read_or_refuse(run)


@settings(max_examples=60, **SLOW)
@given(position=..., bits=...)
def test_a_damaged_database_is_read_or_refused(tmp_path, database, position: int, bits: int):
    content = bytearray(database.read_bytes())
    content[position % len(content)] ^= bits % 255 + 1
    path = tmp_path / "mlflow.db"
    path.write_bytes(content[: len(content) - (bits % 3) * 1000])
    read_or_refuse(path)


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("kind", ["sqlite:///{}/mlflow.db", "file:{}/mlruns"])
def test_what_mlflow_writes_today_is_read(kind, tmp_path, monkeypatch):
    real = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    real.set_tracking_uri(kind.format(tmp_path))
    real.set_experiment("e")
    with real.start_run():
        for step in range(5):
            real.log_metrics({"train/loss": 1 / (step + 1), "lr": 0.1}, step=step * 10)
    path = tmp_path / ("mlflow.db" if kind.startswith("sqlite") else "mlruns")
    (log,) = mlflow.read(path)
    assert log.series["train/loss"].values.tolist() == [1 / (step + 1) for step in range(5)]
    assert log.series["step"].values.tolist() == [0, 10, 20, 30, 40]
