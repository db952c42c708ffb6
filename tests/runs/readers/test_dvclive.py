"""DVCLive's tables; the recorded ones were written by dvclive 3.49."""

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import dvclive
from tests.runs.readers.fuzzing import damaged, read_or_refuse

RECORDED = Path(__file__).parent / "data" / "dvclive"


@pytest.fixture
def tables(tmp_path):
    def write(contents):
        for name, content in contents.items():
            path = tmp_path / "plots" / "metrics" / f"{name}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return write


def test_what_dvclive_wrote_is_read_completely():
    assert dvclive.detect(RECORDED, b"")
    (log,) = dvclive.read(RECORDED)
    expected = [2 / (e + 1) if e != 4 else math.nan for e in range(10)]
    assert log.series["train/loss"].values.tolist() == pytest.approx(expected, nan_ok=True)
    assert log.series["step"].values.tolist() == list(range(10))
    assert log.series["step"].values[log.series["val/loss"].at].tolist() == [2, 5, 8]
    assert log.config == {"lr": 0.1}


def test_tables_with_steps_of_their_own_are_laid_beside_each_other(tables):
    path = tables({"train/loss": "step\tloss\n39\t3\n79\t2\n119\t1\n", "val/synth/loss": "step\tloss\n58\t4\n117\t3\n"})
    (log,) = dvclive.read(path)
    assert log.series["step"].values.tolist() == [39, 58, 79, 117, 119]
    assert log.series["val/synth/loss"].at.tolist() == [1, 3]


def test_a_table_with_times_is_read_by_its_header(tables):
    (log,) = dvclive.read(tables({"loss": "timestamp\tstep\tloss\n1660000000000\t0\t2\n1660000000001\t1\t1\n"}))
    assert log.series["loss"].values.tolist() == [2, 1]


def test_a_directory_of_other_tables_is_not_taken(tables):
    path = tables({"loss": "name\tvalue\nx\t1\n"})
    assert not dvclive.detect(path, b"")
    with pytest.raises(LogError, match="no table below plots/ has a value"):
        dvclive.read(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged((RECORDED / "plots/metrics/train/loss.tsv").read_bytes()))
def test_a_damaged_table_is_read_or_refused(tmp_path, content):
    path = tmp_path / "plots" / "metrics"
    path.mkdir(parents=True, exist_ok=True)
    (path / "loss.tsv").write_bytes(content)
    (path / "lr.tsv").write_text("step\tlr\n0\t0.1\n1\t0.1\n")
    read_or_refuse(tmp_path)


@pytest.mark.filterwarnings("default")  # theirs
def test_what_dvclive_writes_today_is_read(tmp_path, monkeypatch):
    real = pytest.importorskip("dvclive")
    monkeypatch.chdir(tmp_path)
    with real.Live(str(tmp_path / "live"), save_dvc_exp=False, report=None, monitor_system=False) as live:
        for step in range(5):
            live.log_metric("train/loss", 1 / (step + 1))
            live.next_step()
    (log,) = dvclive.read(tmp_path / "live")
    assert log.series["train/loss"].values.tolist() == [1 / (step + 1) for step in range(5)]
