"""Logs of few epochs: healthy where that is plain, and otherwise exactly why not."""

from pathlib import Path

import numpy as np
import pytest

from lossdoctor.diagnosis import Diagnoser, diagnose
from lossdoctor.few_rows import few_rows
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Column, Run, Table

FALLING = [2.2, 1.5, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7]
NONE: list[float] = []


def judged(train, val=NONE, accuracy=NONE):
    rows = max(len(val), len(accuracy))
    evaluations = {"step": np.arange(1.0, rows + 1)}
    for name, values in (("val_loss", val), ("val_accuracy", accuracy)):
        evaluations[name] = np.array([*values, *[np.nan] * (rows - len(values))], dtype=float)
    intervals = {"step": np.arange(1.0, len(train) + 1), "median_train_loss": np.array(train, dtype=float)}
    return few_rows(intervals, evaluations)


def missing(train, val=NONE, accuracy=NONE):
    return judged(train, val, accuracy).missing


def run_of(train, val=NONE, *, rows_are_means=True):
    def table(name, values):
        steps = np.arange(1.0, len(values) + 1)
        return Table({"step": Column(steps), name: Column(np.array(values, np.float32))}) if values else Table()

    evaluations = table("val_loss", val)
    return Run("r", Path("r"), RunInfo(), table("train_loss", train), evaluations, rows_are_means=rows_are_means)


@pytest.mark.parametrize(("epochs", "short"), [(200, True), (201, False)])
def test_a_log_of_many_rows_is_left_to_the_rules(epochs, short):
    """Every pair of rows is looked at: of ten thousand epochs there would be too many."""
    falling = np.linspace(2, 1, epochs)
    assert (judged(falling) is not None) == (judged(FALLING, falling) is not None) == short


@pytest.mark.parametrize(
    ("train", "plain"),
    [
        ([5, 4, 3, 2, 1], True),
        ([5, 4, 3, 2], False),
        ([5, 4, 3, 1, 2], False),
        ([6, 5, 4, 3, 1, 2], True),
        ([6, 5, 3, 4, 1, 2], False),
        ([1.000, 0.990, 0.980, 0.970, 0.956], False),
        ([1.000, 0.990, 0.980, 0.970, 0.954], True),
        ([82.5, 37.9, 34.7, 34.71, 34.92, 34.7], False),
        ([9, 8, 7, 6, 5, 4, 3.2, 3.1, 3, 3.3], False),
        ([9, 8, 7, 6, 5, 4, 3.2, 3.1, 3, 3.15], True),
        ([9, 8, 7, 5, 7.1, 6, 5.5, 5.2, 4.5, 4.0, 3.0], False),
        ([9, 8, 7, 5, 6.9, 6, 5.5, 5.2, 4.5, 4.0, 3.0], True),
        ([8.0, 2.4, 2.33, 2.32, 2.31], False),
        ([8.0, 2.5, 2.4, 2.36, 2.34], True),
        ([3.0, 1.2, 0.9, 0.699, 0.685], True),
        ([3.0, 1.2, 0.9, 0.699, 0.688], False),
    ],
)
def test_a_training_loss_is_plain_where_it_falls_beyond_doubt(train, plain):
    assert (not missing(train)) == plain


@pytest.mark.parametrize(
    ("val", "plain"),
    [
        ([1.6, 1.3, 1.1, 1.0, 0.9, 0.85, 0.8, 0.75], True),
        ([1.6, 1.3, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4], False),
        ([3.0, 1.9, 1.0, 1.3, 1.1, 1.2, 1.1, 1.14], False),
        ([3.0, 1.9, 1.0, 1.3, 1.1, 1.2, 1.1, 1.12], True),
        ([2.0, 1.9, 1.8, 1.6, 1.4, 1.2, 1.0, 1.3], True),
        ([2.0, 1.9, 1.8, 1.6, 1.4, 1.2, 1.0, 1.4], False),
        ([2.0, 1.9, 1.8, 1.2, 1.0, 1.1, 1.15, 1.2], False),
        ([1.6, 1.3], False),
        ([1.6, 1.3, 1.2], True),
        ([0.2, 0.3, 0.4], False),
    ],
)
def test_the_validation_must_be_near_its_best_or_falling(val, plain):
    assert (not missing(FALLING, val)) == plain


@pytest.mark.parametrize(
    ("accuracy", "plain"),
    [
        ([0.5, 0.6, 0.7, 0.75, 0.8], True),
        ([1, 1, 1, 1, 1], True),
        ([0.95, 0.96, 0.96, 0.95, 0.96], True),
        ([95, 96, 96, 95, 96], True),
        ([0.10, 0.12, 0.11, 0.10, 0.12], False),
        ([0.10, 0.11, 0.14, 0.13, 0.14], True),
        ([0.7, 0.7, 0.7, 0.7, 0.7], False),
        ([0.8, 0.7, 0.6, 0.5, 0.4], False),
        ([0.5, 0.9], False),
    ],
)
def test_an_accuracy_must_rise_unless_it_is_high(accuracy, plain):
    assert (not missing(FALLING, accuracy=accuracy)) == plain


def test_an_accuracy_at_chance_is_held_against_a_loss_that_falls():
    chance = [0.10, 0.12, 0.11, 0.10, 0.10, 0.12, 0.11, 0.10]
    assert not missing(FALLING, FALLING)
    assert "val_accuracy does not plainly rise: 0.1 at first" in missing(FALLING, FALLING, chance)


def test_what_keeps_a_log_undecided_is_said_with_its_numbers():
    assert missing([2.0, 1.9]) == "with fewer than 5 nothing is plain"
    assert missing([2.0, 1.0, 1.5, 1.6, 1.7]) == (
        "the training loss does not plainly fall: 2 at first, 1 at step 2, 1.7 at the end"
    )
    assert missing(FALLING, [1.0, 0.8, 0.9, 1.1]) == "val_loss ended at 1.1, and was at its best, 0.8, at step 2"
    assert missing(FALLING, [1.0]) == "val_loss was measured 1 times, and 3 are needed"
    assert missing([3, 2.8, 2.5, 2.32, 2.31]) == "the training loss ended at 2.31, near that of guessing among 10"


def test_a_short_log_of_epochs_is_healthy_as_far_as_they_tell():
    diagnosis = diagnose(run_of(FALLING, FALLING))
    assert (diagnosis.verdict, diagnosis.worth) == ("healthy", "as far as 8 epochs tell")
    assert diagnosis.reasons[0].startswith("as far as 8 epochs tell: too few for divergence and not_learning")
    assert diagnosis.summary.startswith(diagnosis.reasons[0])


def test_single_steps_are_not_believed_so_soon():
    diagnosis = diagnose(run_of(FALLING, FALLING, rows_are_means=False))
    assert (diagnosis.verdict, diagnosis.worth) == ("undecided", "")


def test_a_short_log_that_rises_stays_undecided_and_says_why():
    diagnosis = diagnose(run_of([2.0, 1.0, 1.5, 1.6, 1.7]))
    assert diagnosis.verdict == "undecided"
    assert "5 epochs do not decide divergence and not_learning, and the training loss does not" in diagnosis.summary


def test_a_long_log_says_enough_by_itself():
    diagnosis = diagnose(run_of((2.0 * 0.97 ** np.arange(60)).tolist()))
    assert (diagnosis.verdict, diagnosis.worth) == ("healthy", "")


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_any_cut_of_a_short_log_gives_the_same(rows):
    run = run_of(FALLING, FALLING)
    diagnoser = Diagnoser(Rulebook.load(), run_facts={}, rows_are_means=True)
    for block in run.blocks(rows):
        diagnoser.observe(block)
    cut, whole = diagnoser.diagnosis(run="r"), diagnose(run)
    assert (cut.verdict, cut.reasons, cut.worth) == (whole.verdict, whole.reasons, whole.worth)


def test_a_validation_that_was_never_finite_is_not_said_to_be_missing():
    diagnosis = diagnose(run_of(FALLING, [float("nan")] * 8))
    assert diagnosis.verdict == "suspicious_validation"
    reasons = {why.rule: why.reason for why in diagnosis.undecided}
    assert reasons["overfitting"] == "val_loss was never finite"
