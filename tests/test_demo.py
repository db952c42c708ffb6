"""The demo does what it says: a training fails, is named, and is cured."""

import io

import pytest
import torch
from rich.console import Console

from lossdoctor.analysis import analyze
from lossdoctor.demo import run_demo
from lossdoctor.runs.reader import read_run


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    threads = torch.get_num_threads()
    stream = io.StringIO()
    run_demo(Console(file=stream, width=100, soft_wrap=True), run_dir=directory)
    assert torch.get_num_threads() == threads
    return directory, stream.getvalue()


def last_val_loss(directory):
    return float(read_run(directory).evaluations.columns["val_loss"].values[-1])


def test_the_training_fails_and_is_named(shown):
    directory, printed = shown
    [found] = analyze(directory / "as_it_is")
    assert found.verdict == "divergence"
    assert "error[divergence]" in printed
    assert not last_val_loss(directory / "as_it_is") < 1.0


def test_the_doctor_cures_it_as_well_as_if_the_typo_had_not_been_made(shown):
    directory, printed = shown
    run = read_run(directory / "treated")
    assert "divergence" in {act.rule for act in run.interventions}
    assert all(act.outcome == "kept" for act in run.interventions)
    assert last_val_loss(directory / "treated") < 1.5 * last_val_loss(directory / "no_typo")
    for place in ("as_it_is", "treated", "no_typo"):
        assert f"{last_val_loss(directory / place):.3f}" in printed


def test_what_goes_to_no_terminal_has_no_control_codes(shown):
    _, printed = shown
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) < 250
