"""`lossdoctor.analyze`: from a path to diagnoses."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

import lossdoctor
from lossdoctor.analysis import judge, needed_columns
from lossdoctor.diagnosis import diagnose
from lossdoctor.errors import ConfigurationError, LogError
from lossdoctor.reports import text
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import read_run
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Block, Column, Table
from lossdoctor.runs.writer import RunWriter


@pytest.fixture
def runs(tmp_path):
    for name in ("b", "a"):
        writer = RunWriter(tmp_path / name, RunInfo(name="same"))
        loss = Column(np.linspace(2, 1, 50, dtype=np.float32))
        writer.write(Block(Table({"step": Column(np.arange(1.0, 51.0)), "train_loss": loss})))
        writer.close()
    return tmp_path


def test_every_run_below_a_directory_is_judged_under_its_path(runs):
    assert [diagnosis.run for diagnosis in lossdoctor.analyze(runs)] == [f"{runs}/a", f"{runs}/b"]
    assert [diagnosis.steps for diagnosis in lossdoctor.analyze(f"{runs}/a")] == [50]


def test_ignored_rules_are_not_judged_by(runs):
    (diagnosis,) = lossdoctor.analyze(runs / "a", ignore=["plateau"])
    known = {*diagnosis.passed, *(rule.rule for rule in diagnosis.undecided)}
    assert "plateau" not in known
    assert known


def test_the_first_attempt_is_found_by_the_name_that_warnings_give_it(runs):
    writer = RunWriter(runs / "a", RunInfo())
    writer.close()
    (newest,) = lossdoctor.analyze(runs / "a")
    assert f"{runs}/a/attempt-1" in newest.warnings[0]
    (first,) = lossdoctor.analyze(runs / "a" / "attempt-1")
    assert (first.run, first.steps, first.warnings) == (f"{runs}/a/attempt-1", 50, [])


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "sample_runs").glob("*/run.json")), ids=str)
def test_reading_only_the_needed_columns_changes_no_diagnosis_and_no_curve(path):
    rulebook = Rulebook.load()
    whole = read_run(path.parent)
    run, diagnosis = judge(path.parent, rulebook)
    expected = diagnose(whole, rulebook)
    assert msgspec.structs.replace(diagnosis, run="", warnings=[]) == msgspec.structs.replace(
        expected, run="", warnings=[]
    )
    assert text.render(diagnosis, run).plain == text.render(diagnosis, whole).plain
    assert set(run.steps.columns) <= needed_columns(rulebook)


def test_nothing_to_read_is_a_log_error(tmp_path):
    with pytest.raises(LogError, match="no such file"):
        lossdoctor.analyze(tmp_path / "nowhere")
    with pytest.raises(LogError, match="no run in this directory"):
        lossdoctor.analyze(tmp_path)


def test_an_unknown_threshold_is_a_configuration_error(runs):
    with pytest.raises(ConfigurationError, match="did you mean"):
        lossdoctor.analyze(runs / "a", thresholds={"overfiting.max_lost": 1})


def test_public_names_are_found_on_first_use_and_no_others():
    assert {"Monitor", "analyze", "__version__"} <= {*dir(lossdoctor)}
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        lossdoctor.analyse  # noqa: B018
