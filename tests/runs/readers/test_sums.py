"""A loss that is added up over each epoch becomes the mean it was made of; other losses stay as they are."""

from pathlib import Path

import numpy as np
import pytest

from lossdoctor.runs.readers import Log, Series, runs_of
from lossdoctor.runs.readers.sums import without_running_sums


def log_of(**columns):
    values = {name: np.array(logged, dtype=float) for name, logged in columns.items()}
    rows = len(next(iter(values.values())))
    return Log(Path("log"), "CSV", {name: Series(one, np.arange(rows)) for name, one in values.items()}, rows)


def summed(losses, batches):
    """What a loop prints that adds up its loss and never divides."""
    return [loss * batch for loss in losses for batch in batches]


@pytest.mark.parametrize("batches", [[1, 51, 101, 151], [50, 100, 150, 200], [10, 20, 30, 40, 50]])
def test_a_sum_over_each_epoch_is_read_as_the_mean_of_its_batches(batches):
    losses = [2.0, 1.0, 0.5]
    count = len(batches)
    log = log_of(epoch=np.repeat([1, 2, 3], count), batch=batches * 3, loss=summed(losses, batches))
    (run,) = runs_of(log)
    assert run.steps.columns["train_loss"].values == pytest.approx(np.repeat(losses, count))
    assert any("a sum over each epoch" in line for line in run.read_as)


def test_where_no_epoch_is_logged_a_sum_begins_where_the_batches_do():
    log = log_of(batch=[10, 20, 30] * 3, loss=summed([2.0, 1.0, 0.5], [10, 20, 30]))
    assert without_running_sums(log).series["loss"].values == pytest.approx(np.repeat([2.0, 1.0, 0.5], 3))


def test_batches_counted_through_the_epochs_divide_a_sum_as_well():
    log = log_of(epoch=np.repeat([1, 2], 4), step=range(10, 90, 10), loss=summed([2.0, 1.0], [10, 20, 30, 40]))
    assert without_running_sums(log).series["loss"].values == pytest.approx(np.repeat([2.0, 1.0], 4))


@pytest.mark.parametrize(
    "loss",
    [
        [2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2],
        [2.0, 2.1, 2.2, 1.8, 1.9, 2.0, 1.6, 1.7, 1.8],  # hard examples come last, but nothing is added up
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],  # diverges
        [1.0, 2.0, 3.0, 1.0, np.nan, 3.0, 1.0, 2.0, 3.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ],
)
def test_what_is_no_sum_stays_as_it_is(loss):
    log = log_of(epoch=np.repeat([1, 2, 3], 3), batch=[10, 20, 30] * 3, loss=loss)
    assert without_running_sums(log).series["loss"].values == pytest.approx(np.array(loss), nan_ok=True)


def test_one_epoch_does_not_tell_a_sum_from_a_loss_that_rises():
    log = log_of(epoch=[1, 1, 1, 1], batch=[10, 20, 30, 40], loss=[10, 20, 30, 40])
    assert without_running_sums(log).series["loss"].values.tolist() == [10, 20, 30, 40]
