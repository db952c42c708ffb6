"""Reasons of health: schedules recognized, and only what speaks for a run."""

import numpy as np
import pytest

from lossdoctor.clocks import Ticks
from lossdoctor.health import EVALUATION_NAMES, INTERVAL_NAMES, Health
from lossdoctor.schedules import describe_schedule

STEP = np.arange(1.0, 201.0)
COSINE = 0.5 * (1 + np.cos(np.pi * STEP / 200))


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (np.full(200, 0.1), "constant 0.1"),
        (np.minimum(STEP / 40, 1) * 0.1, "linear warm-up over 40 steps to 0.1, then constant"),
        (COSINE, "starts at 1, cosine to 0"),
        (
            np.minimum(STEP / 40, 1) * (1 - np.maximum(STEP - 40, 0) / 160),
            "linear warm-up over 40 steps to 1, then linear decay to 0",
        ),
        (0.1 * 0.99**STEP, "starts at 0.099, exponential decay to 0.0134"),
        (np.where(STEP < 100, 0.1, 0.01), "starts at 0.1, 1 drop to 0.01"),
        (0.1 ** (1 + (STEP > 60) + (STEP > 120)), "starts at 0.1, 2 drops to 0.001"),
        (np.minimum((STEP / 40) ** 2, 1), "warm-up over 40 steps to 1, then constant"),
        (1 - 0.9 * (STEP / 200) ** 4, "starts at 1, decay to 0.1"),
        (1 + 0.5 * np.sin(STEP / 5), None),
        (np.zeros(200), ""),
        (np.ones(3), ""),
        (np.linspace(0.1, 1, 200), "rises from 0.1 to 1 by step 200"),
        (
            np.where(STEP <= 60, 0.04 + 0.96 * STEP / 60, 0.5 * (1 + np.cos(np.pi * (STEP - 60) / 140))),
            "one cycle: up from 0.056 to 1 at step 60, then cosine to 0",
        ),
        (0.5 * (1 + np.cos(np.pi * (STEP % 50) / 50)), "starts at 0.999, 3 warm restarts between 1 and 0.000987"),
        (0.5 + 0.4 * np.abs((STEP % 40) / 20 - 1), "0.88, raised to 0.9 by step 40, then 4 cycles between 0.9 and 0.5"),
    ],
)
def test_a_schedule_is_put_into_words(rate, said):
    described = describe_schedule(STEP[: len(rate)], rate)
    assert described == said if said is not None else "varies between" in described


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e3])
def test_a_schedule_is_recognized_at_any_learning_rate(factor):
    words = describe_schedule(STEP, COSINE * factor)
    assert "cosine to" in words


def reasons(**columns):
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    rows = len(next(iter(columns.values()))) if columns else 0
    missing = np.full(rows, np.nan)
    health = Health()
    names = {name: columns.get(name, missing) for name in INTERVAL_NAMES}
    validated = {name: columns.get(name, missing) for name in EVALUATION_NAMES}
    step = np.arange(1.0, rows + 1)
    for half in (slice(0, rows // 2), slice(rows // 2, rows)):
        health.observe(
            Ticks(step[half], {"step": step[half], **{name: values[half] for name, values in names.items()}}),
            Ticks(step[half], {"step": step[half], **{name: values[half] for name, values in validated.items()}}),
        )
    return health.reasons()


def test_nothing_seen_is_no_reason():
    assert Health().reasons() == []
    assert reasons() == []
    assert reasons(median_train_loss=np.full(9, np.nan)) == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"val_accuracy": [0.2, 0.5, 0.7]}, "val_accuracy rose from 0.2 to 0.7"),
        ({"median_train_loss": [3, 2, 1.5, 1]}, "training loss fell from 3 to 1"),
        ({"val_loss": [3, 2, 1]}, "val_loss fell from 3 to 1 (its lowest)"),
        ({"val_loss": [3, 1, 1.4]}, "val_loss fell from 3 to 1.4 (lowest 1 at step 2)"),
        ({"val_loss": [30200, 30180, 30170]}, "val_loss stood at 3.02e+04 (its lowest)"),
        ({"val_loss": [3, 2.98, 2.96]}, "val_loss fell from 3 to 2.96 (its lowest)"),
        ({"median_train_loss": [3, 2.99, 2.98, 2.98]}, "training loss stood at 2.98"),
        ({"median_grad_norm": [1, 2, 1, 3]}, "gradient norm within 2.0 x of its median 1.5"),
        ({"mean_data_wait": [0.1] * 4, "mean_step_time": [2.0] * 4}, "waits for data 5.0% of the time"),
        ({"last_learning_rate": [0.1] * 4}, "LR: constant 0.1"),
    ],
)
def test_what_speaks_for_a_run_is_said_with_its_numbers(columns, said):
    assert reasons(**columns) == [said]


@pytest.mark.parametrize(
    "columns",
    [
        {"median_train_loss": [1, 2, 3, 4]},
        {"median_train_loss": [3, 2, 1]},
        {"val_loss": [1, 2]},
        {"val_loss": [3, 1, 1.6]},
        {"median_train_loss": [0.3, 0.9] * 20},
        {"val_loss": [1]},
        {"median_grad_norm": [1, 1, 1, 100]},
        {"mean_data_wait": [1.0] * 4, "mean_step_time": [2.0] * 4},
        {"mean_data_wait": [0.0] * 4, "mean_step_time": [0.0] * 4},
    ],
)
def test_what_does_not_speak_for_a_run_is_not_said(columns):
    assert reasons(**columns) == []


@pytest.mark.parametrize(("ticks", "said"), [(40, True), (20, False)])
def test_a_noisy_loss_fell_where_a_quarter_of_a_long_course_is_lower_than_its_start(ticks, said):
    swinging = np.where(np.arange(ticks) % 2, 0.2, -0.2)
    swinging[-1] = 0.2
    falling = np.concatenate(([3.5, 3.5, 3.5], np.full(ticks - 3, 0.9))) + swinging
    assert bool(reasons(median_train_loss=falling)) is said
