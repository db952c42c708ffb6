"""A watched training is judged as an analyzed one, however it came in."""

import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lossdoctor.analysis import judge
from lossdoctor.errors import LogError
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import RunWriter, read_run
from lossdoctor.runs.info import RunInfo
from lossdoctor.watching import Watch, is_watchable, newest_run
from tests.runs.recordings import info, record, rows

SAMPLES = sorted((Path(__file__).parent.parent / "sample_runs").glob("*/run.json"))


@pytest.fixture(scope="module")
def rulebook():
    return Rulebook.load()


@pytest.mark.parametrize("sample", [path.parent for path in SAMPLES], ids=lambda path: path.name)
def test_what_a_watch_says_at_the_end_equals_analyze(sample, tmp_path, rulebook):
    """Replayed into a directory piece by piece, with a look after each."""
    run = read_run(sample)
    generator = np.random.default_rng(0)
    cuts = sorted({int(cut) for cut in generator.integers(1, len(run.steps), size=12)})
    writer = RunWriter(tmp_path / "run", msgspec.structs.replace(run.info, status="running"))
    watch = Watch(tmp_path / "run", rulebook)
    for block in run.cut(cuts):
        writer.write(block)
        writer.flush(wait=True)
        view = watch.look()
        assert not watch.is_over
        assert view.status == "running"
    writer.close()
    view = watch.look()
    assert watch.is_over
    assert view.diagnosis == judge(tmp_path / "run", rulebook)[1]


def test_a_view_tells_progress_age_and_curves(tmp_path, rulebook):
    writer = RunWriter(tmp_path / "run", info(total_steps=1000))
    writer.write(rows(1, 100))
    writer.flush(wait=True)
    view = Watch(tmp_path / "run", rulebook).look()
    assert (view.status, view.step, view.total_steps) == ("running", 100, 1000)
    assert view.rate == pytest.approx(2.0)  # half a second a step
    assert view.age > 0
    assert len(view.traces["train_loss"]) == 100
    writer.close()


def test_a_killed_training_is_over(tmp_path, rulebook):
    record(tmp_path / "run", rows(1, 50))
    run_json = tmp_path / "run/run.json"
    run_json.write_bytes(run_json.read_bytes().replace(b'"finished"', b'"running"'))
    watch = Watch(tmp_path / "run", rulebook)
    assert watch.look().status == "killed"
    assert watch.is_over


def test_looking_once_says_everything_that_was_recorded(tmp_path, rulebook):
    writer = RunWriter(tmp_path / "run", info())
    writer.write(rows(1, 100))
    writer.flush(wait=True)
    assert Watch(tmp_path / "run", rulebook).look_once().diagnosis.steps == 100
    writer.close()


def test_a_foreign_log_is_read_again_when_it_grew(tmp_path, rulebook):
    log = tmp_path / "log.csv"
    log.write_text("step,train_loss,val_loss\n" + "".join(f"{n},{9 / n},{9 / n}\n" for n in range(1, 20)))
    watch = Watch(log, rulebook)
    assert watch.look().step == 19
    with log.open("a") as file:
        file.write("".join(f"{n},{9 / n},{9 / n}\n" for n in range(20, 41)))
    watch._due = 0.0
    assert watch.look().step == 40
    assert not watch.is_over


def test_of_a_directory_the_run_written_last_is_watched(tmp_path):
    for number, name in enumerate(["b", "a", "c"]):
        record(tmp_path / name, rows(1, 3))
        os.utime(tmp_path / name / "run.json", (1000 + number, 1000 + (1 if name == "c" else 9 - number)))
    assert newest_run(tmp_path) == tmp_path / "b"
    assert newest_run(tmp_path / "a") == tmp_path / "a"
    assert newest_run(tmp_path / "nowhere") == tmp_path / "nowhere"


def test_what_can_be_watched_is_a_run_or_a_log(tmp_path):
    record(tmp_path / "run", rows(1, 3))
    (tmp_path / "empty").mkdir()
    assert is_watchable(tmp_path / "run")
    assert not is_watchable(tmp_path / "empty")
    assert not is_watchable(tmp_path / "nowhere")


def test_a_run_that_vanishes_is_an_error(tmp_path, rulebook):
    record(tmp_path / "run", rows(1, 3))
    watch = Watch(tmp_path / "run", rulebook)
    watch.look()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(LogError):
        watch.look()


def test_a_run_that_recorded_nothing_yet_has_an_empty_view(tmp_path, rulebook):
    writer = RunWriter(tmp_path / "run", RunInfo())
    view = Watch(tmp_path / "run", rulebook).look()
    assert (view.step, view.rate, view.age, view.traces) == (None, None, None, {})
    writer.close()
