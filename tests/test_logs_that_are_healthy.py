"""Logs of healthy trainings as other tools write them: few rows, rounded, smoothed, begun late. No alarm is given."""

from functools import cache

import numpy as np
import pytest

from lossdoctor.diagnosis import diagnose
from lossdoctor.rulebook import Rulebook
from tests.logs_of_others import LOGS, healthy, log, power, scheduled, smoothed

SEEDS = range(4)


@healthy
def smoothed_by_098(rng):
    step = np.arange(1, 4001)
    raw = power(step, start=4.6, floor=1.9, half=300) + rng.normal(0, 0.35, len(step))
    return log(step, train_loss=smoothed(raw, 0.98))


@healthy
def smoothed_near_its_floor(rng):
    step = np.arange(10, 20_001, 10)
    return log(step, train_loss=smoothed(1.7 - 0.05 * step / step[-1] + rng.normal(0, 0.3, len(step)), 0.98))


@healthy
def single_samples(rng):
    step = np.arange(1, 5001)
    level = power(step, start=2.3, floor=0.35, half=400)
    return log(step, train_loss=rng.gamma(0.8, level / 0.8))


@healthy
def single_samples_fine_tuned(rng):
    step = np.arange(1, 3001)
    return log(step, train_loss=rng.lognormal(-0.5, 0.9, len(step)))


@healthy
def a_handful_of_rows(rng):
    n = int(rng.integers(5, 21))
    step = np.arange(1, n + 1)
    return log(
        step,
        means=True,
        train_loss=power(step, start=1.2, floor=0.3, half=3) + rng.normal(0, 0.02, n),
        val={"step": step, "val_loss": power(step, start=1.15, floor=0.45, half=3) + rng.normal(0, 0.04, n)},
    )


@healthy
def percent_an_epoch(rng):
    step = np.arange(1, 91)
    right = 70 - 55 * np.exp(-step / 8) + 6 * (step > 30) + 2 * (step > 60)
    return log(
        step,
        means=True,
        train_accuracy=right + rng.normal(0, 0.2, 90),
        learning_rate=np.select([step <= 30, step <= 60], [0.1, 0.01], 0.001),
        val={"step": step, "val_accuracy": np.minimum(right - 2, 74) + rng.normal(0, 0.6, 90)},
    )


@healthy
def steps_of_the_learning_rate(rng):
    step = np.arange(1, 91)
    level = 1.9 * np.exp(-step / 6) + 0.9 - 0.5 * (step > 30) - 0.1 * (step > 60)
    return log(
        step,
        means=True,
        train_loss=level + rng.normal(0, 0.01, 90),
        learning_rate=np.select([step <= 30, step <= 60], [0.1, 0.01], 0.001),
        val={"step": step, "val_loss": level + 0.12 + rng.normal(0, np.where(step <= 30, 0.06, 0.006))},
    )


@healthy
def sums_over_a_batch(rng):
    step = np.arange(20, 10_001, 20)
    place = np.arange(500, 10_001, 500)
    return log(
        step,
        train_loss=256 * (power(step, start=2.3, floor=0.4, half=300) + rng.normal(0, 0.05, len(step))),
        val={"step": place, "val_loss": power(place, start=2.3, floor=0.5, half=300) + rng.normal(0, 0.01, len(place))},
    )


@healthy
def validated_three_times(rng):
    step = np.arange(100, 30_001, 100)
    place = np.array([10_000, 20_000, 30_000])
    return log(
        step,
        train_loss=power(step, start=9, floor=2.6, half=700) + rng.normal(0, 0.08, len(step)),
        val={"step": place, "val_loss": power(place, start=9, floor=2.9, half=700) + rng.normal(0, 0.02, 3)},
    )


@healthy
def a_long_warm_up_seldom_logged(rng):
    step = np.arange(500, 50_001, 500)
    return log(
        step,
        train_loss=power(step, start=10.8, floor=3.0, half=2500) + rng.normal(0, 0.04, len(step)),
        learning_rate=scheduled(step, peak=6e-4, warmup=5000, total=50_000),
    )


@healthy
def epochs_alone(rng):
    step = np.arange(0, 100)
    return log(
        step,
        means=True,
        train_loss=power(step, start=1.8, floor=0.25, half=5) + rng.normal(0, 0.01, 100),
        val={"step": step, "val_loss": power(step, start=1.5, floor=0.45, half=5) + rng.normal(0, 0.02, 100)},
    )


@healthy
def last_rows_of_a_test(rng):
    step = np.arange(1, 41)
    val = power(step, start=1.6, floor=0.5, half=4) + rng.normal(0, 0.01, 40)
    return log(
        step,
        means=True,
        train_loss=power(step, start=1.7, floor=0.45, half=4) + rng.normal(0, 0.01, 40),
        val={"step": np.append(step, [41, 42]), "val_loss": np.append(val, val[-1] + [0.15, 0.14])},
    )


@healthy
def mixed_inputs_above_validation(rng):
    step = np.arange(1, 301)
    return log(
        step,
        means=True,
        train_loss=power(step, start=6.9, floor=2.6, half=15) + rng.normal(0, 0.015, 300),
        val={"step": step, "val_loss": power(step, start=6.5, floor=0.7, half=8) + rng.normal(0, 0.006, 300)},
    )


@healthy
def contrastive_over_more_rows_in_validation(rng):
    step = np.arange(1, 2001)
    place = np.arange(100, 2001, 100)
    return log(
        step,
        train_loss=power(step, start=4.16, floor=1.5, half=120) + rng.normal(0, 0.08, 2000),
        val={"step": place, "val_loss": power(place, start=5.0, floor=2.9, half=120) + rng.normal(0, 0.02, 20)},
    )


@healthy
def small_and_noisy_validation(rng):
    step = np.arange(1, 61)
    return log(
        step,
        means=True,
        train_loss=power(step, start=0.7, floor=0.25, half=6) + rng.normal(0, 0.01, 60),
        val={"step": step, "val_loss": power(step, start=0.7, floor=0.38, half=4) + rng.normal(0, 0.05, 60)},
    )


@healthy
def learned_before_the_first_row(rng):
    step = np.arange(50, 1001, 50)
    place = np.arange(25, 1001, 25)
    return log(
        step,
        train_loss=power(step, start=2.3, floor=0.0, half=4) * rng.uniform(0.6, 1.4, len(step)),
        val={"step": place, "val_loss": 0.09 + 0.4 * np.exp(-place / 25) + rng.normal(0, 0.002, len(place))},
    )


@healthy
def regression_on_a_stream(rng):
    step = np.arange(50, 2001, 50)
    return log(step, train_loss=4 * rng.chisquare(32, len(step)) / 32)


@healthy
def a_rate_that_rises_and_falls(rng):
    step = np.arange(10, 10_001, 10)
    phase = (step % 2000) / 2000
    rate = 1e-4 + 9e-4 * (1 - np.abs(2 * phase - 1))
    loss = power(step, start=4.5, floor=1.8, half=400) + 120 * (rate - 1e-4) + rng.normal(0, 0.05, len(step))
    return log(step, train_loss=loss, learning_rate=rate)


@cache
def rulebook() -> Rulebook:
    return Rulebook.load()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "name",
    LOGS,
)
def test_a_healthy_log_gives_no_alarm(name, seed):
    diagnosis = diagnose(LOGS[name](np.random.default_rng([seed, len(name)])), rulebook())
    alarms = [
        f"{found.rule}@{found.since:g}: {found.message}"
        for found in diagnosis.findings
        if found.severity in {"warning", "error"}
    ]
    assert alarms == []
    assert diagnosis.verdict in {"healthy", "undecided"}
