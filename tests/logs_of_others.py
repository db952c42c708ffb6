"""Healthy trainings as other tools log them, made of seeds: what tests of the rules read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lossdoctor.runs import Run, RunInfo
from lossdoctor.runs.tables import Column, Table

__all__ = ["LOGS", "healthy", "log", "power", "scheduled", "smoothed"]

Rng = np.random.Generator
LOGS: dict[str, Callable[[Rng], Run]] = {}


def healthy(make: Callable[[Rng], Run]) -> Callable[[Rng], Run]:
    LOGS[make.__name__] = make
    return make


def log(step, *, means=False, val=None, **columns) -> Run:
    """A run of a log: `columns` beside `step`, and `val` with columns of its own."""

    def table(values):
        return Table({name: Column(np.asarray(column, dtype=np.float64)) for name, column in values.items()})

    return Run(
        name="log",
        path=Path("log.csv"),
        info=RunInfo(name="log"),
        steps=table({"step": step, **columns}),
        evaluations=table(val or {}),
        rows_are_means=means,
    )


def power(step, *, start, floor, half):
    """A loss that falls as a power of the steps, by half of its way in `half` steps."""
    return floor + (start - floor) / (1 + np.asarray(step) / half)


def smoothed(values, share):
    out = np.array(values, dtype=np.float64)
    for place in range(1, len(out)):
        out[place] = share * out[place - 1] + (1 - share) * out[place]
    return out


def wandering(rng, n, *, size, memory=0.99):
    """Slow ups and downs: noise with a memory of 1 / (1 - memory) rows and a standard deviation of `size`."""
    return smoothed(rng.normal(0, size, n), memory) * np.sqrt((1 + memory) / (1 - memory))


def scheduled(step, *, peak, warmup, total):
    step = np.asarray(step)
    return np.where(
        step < warmup, peak * step / warmup, peak / 2 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))
    )


@healthy
def gan_generator(rng):
    step = np.arange(50, 20001, 50)
    return log(
        step, train_loss=1.2 + wandering(rng, len(step), size=0.5, memory=0.9) ** 2 + rng.gamma(4, 0.15, len(step))
    )


@healthy
def gan_discriminator(rng):
    step = np.arange(100, 30001, 100)
    return log(step, train_loss=0.62 + 0.07 * np.exp(-step / 500) + rng.normal(0, 0.06, len(step)))


@healthy
def wasserstein_critic(rng):
    step = np.arange(100, 30001, 100)
    level = -1.2 - 3 * np.exp(
        -(((step - 1500) / 1200) ** 2)
    )  # deep at first, then nearer to zero as the generator learns
    return log(step, train_loss=level + rng.normal(0, 0.15, len(step)))


@healthy
def policy_gradient(rng):
    step = np.arange(1, 1501)
    return log(step, train_loss=rng.normal(0, 0.03, len(step)) + wandering(rng, len(step), size=0.01))


@healthy
def policy_gradient_with_entropy(rng):
    step = np.arange(10, 5001, 10)
    return log(
        step,
        train_loss=-0.4 * np.exp(-step / 2000) - 0.02 + rng.normal(0, 0.03, len(step)),
        learning_rate=3e-4 + 0 * step,
    )


@healthy
def value_loss_that_follows_the_returns(rng):
    step = np.arange(2048, 2048 * 400, 2048)
    return log(step, train_loss=0.3 + 2 * step / step[-1] + rng.gamma(2, 0.1, len(step)))


@healthy
def preference_pairs(rng):
    step = np.arange(10, 801, 10)
    loss = np.log(2) - 0.12 / (1 + np.exp(-(step - 350) / 90)) + rng.normal(0, 0.012, len(step))
    right = 0.52 + 0.2 / (1 + np.exp(-(step - 300) / 90)) + rng.normal(0, 0.06, len(step))
    return log(
        step,
        train_loss=np.round(loss, 4),
        train_accuracy=right,
        learning_rate=scheduled(step, peak=5e-7, warmup=80, total=800),
    )


@healthy
def diffusion(rng):
    step = np.arange(100, 100_001, 100)
    return log(step, train_loss=power(step, start=1.0, floor=0.035, half=60) + rng.gamma(1.5, 0.012, len(step)))


@healthy
def diffusion_fine_tuned(rng):
    step = np.arange(10, 4001, 10)
    return log(step, train_loss=rng.gamma(1.8, 0.07, len(step)), learning_rate=1e-5 + 0 * step)


@healthy
def fine_tuning_near_its_floor(rng):
    step = np.arange(10, 3001, 10)
    level = rng.uniform(0.9, 2.4)
    return log(
        step,
        train_loss=np.round(level - 0.03 * step / step[-1] + rng.normal(0, 0.06, len(step)), 4),
        learning_rate=scheduled(step, peak=2e-5, warmup=100, total=3000),
        val={"step": [1000, 2000, 3000], "val_loss": level + np.array([0.02, 0.01, 0.012])},
    )


@healthy
def adapters_with_accuracy(rng):
    step = np.arange(10, 2001, 10)
    return log(
        step,
        train_loss=1.05 + rng.normal(0, 0.08, len(step)),
        train_accuracy=0.72 + rng.normal(0, 0.02, len(step)),
        learning_rate=scheduled(step, peak=1e-4, warmup=60, total=2000),
    )


@healthy
def resumed_at_step_50000(rng):
    step = np.arange(50_000, 80_001, 50)
    place = np.arange(50_000, 80_001, 1000)
    return log(
        step,
        train_loss=power(step, start=10, floor=2.7, half=900) + rng.normal(0, 0.05, len(step)),
        learning_rate=scheduled(step, peak=3e-4, warmup=2000, total=100_000),
        val={
            "step": place,
            "val_loss": power(place, start=10, floor=2.85, half=900) + rng.normal(0, 0.003, len(place)),
        },
    )


@healthy
def three_decimals(rng):
    step = np.arange(1, 6001)
    return log(
        step, train_loss=np.round(power(step, start=0.69, floor=0.0, half=15) * rng.uniform(0.6, 1.4, len(step)), 3)
    )


@healthy
def three_decimals_that_stand_still(rng):
    place = np.arange(1, 61)
    return log(
        place,
        means=True,
        train_loss=np.round(0.012 + 0.3 * np.exp(-place / 3) + rng.normal(0, 0.0002, 60), 3),
        val={"step": place, "val_loss": np.round(0.031 + 0.28 * np.exp(-place / 3) + rng.normal(0, 0.0004, 60), 3)},
    )


@healthy
def a_loss_that_is_zero_in_all_digits(rng):
    step = np.arange(1, 301)
    return log(step, train_loss=np.round(np.where(step < 6, rng.uniform(0.01, 0.2, 300), 0.0), 3))
