"""Sacred's directories; the recorded one was written by sacred 0.8.7."""

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import sacred
from tests.runs.readers.fuzzing import damaged, read_or_refuse

RECORDED = Path(__file__).parent / "data" / "sacred"


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(RECORDED, tmp_path / "1"))


def test_what_sacred_wrote_is_read_completely():
    assert sacred.detect(RECORDED, b"")
    (log,) = sacred.read(RECORDED)
    expected = [2 / (i + 1) if i != 5 else math.nan for i in range(10)]
    assert log.series["train.loss"].values.tolist() == pytest.approx(expected, nan_ok=True)
    assert log.series["step"].values[log.series["val.loss"].at].tolist() == [20, 50, 80]
    assert log.config["lr"] == 0.1


def test_a_run_without_metrics_is_read_by_what_it_printed(copy):
    (copy / "metrics.json").unlink()
    (copy / "cout.txt").write_text("step 1: loss 2\nstep 2: loss 1\n")
    assert sacred.read(copy)[0].series["loss"].values.tolist() == [2, 1]


def test_a_file_that_was_cut_off_is_an_error_that_names_it(copy):
    (copy / "metrics.json").write_text('{"loss": {"steps": [1')
    with pytest.raises(LogError, match=r"metrics\.json: not JSON .*cut off"):
        sacred.read(copy)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["metrics.json", "config.json", "run.json"]), st.data())
def test_a_damaged_run_is_read_or_refused(tmp_path, name, data):
    run = tmp_path / "1"
    shutil.copytree(RECORDED, run, dirs_exist_ok=True)
    (run / name).write_bytes(data.draw(damaged((RECORDED / name).read_bytes())))
    read_or_refuse(run)


@pytest.mark.filterwarnings("default")  # theirs
def test_what_sacred_writes_today_is_read(tmp_path):
    pytest.importorskip("sacred")
    from sacred import Experiment
    from sacred.observers import FileStorageObserver

    experiment = Experiment("e", save_git_info=False)
    experiment.observers.append(FileStorageObserver(str(tmp_path)))

    @experiment.main
    def main(_run):
        for step in range(5):
            _run.log_scalar("train.loss", 1 / (step + 1), step)

    experiment.run()
    (log,) = sacred.read(tmp_path / "1")
    assert log.series["train.loss"].values.tolist() == [1 / (step + 1) for step in range(5)]
