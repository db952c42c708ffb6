"""One count of steps from epochs, batches and steps."""

import numpy as np
import pytest

from lossdoctor.runs.printed.axis import steps

n = np.nan


def counted(epoch, step, batch, total=None):
    total = [n] * len(epoch) if total is None else total
    return steps(*(np.array(values, float) for values in (epoch, step, batch, total))).tolist()


def test_steps_that_go_on_are_kept():
    assert counted([1, 1, 2], [100, 200, 300], [n, n, n]) == [100, 200, 300]


def test_steps_that_begin_anew_with_each_epoch_are_counted_on():
    assert counted([1, 1, 2, 2], [0, 50, 0, 50], [n] * 4, [100] * 4) == [0, 50, 100, 150]


def test_without_a_total_the_next_epoch_begins_behind_the_last_batch_seen():
    assert counted([0, 0, 1], [n] * 3, [0, 40, 0]) == [0, 40, 40]


def test_an_epoch_that_is_resumed_keeps_its_steps():
    assert counted([5, 5, 6], [n] * 3, [0, 50, 0], [100] * 3) == [400, 450, 500]


def test_a_restart_begins_again():
    assert counted([1, 2, 1, 2], [n] * 4, [50] * 4, [100] * 4) == [50, 150, 50, 150]


def test_a_batch_number_and_a_step_are_one_count_if_they_go_on_from_each_other():
    assert counted([n] * 4, [0, n, n, 20], [n, 0, 10, n]) == [0, 0, 10, 20]


def test_a_batch_number_and_a_step_that_do_not_are_two():
    assert counted([n] * 5, [1000, n, 2000, n, 3000], [n, 5, n, 6, n]) == pytest.approx(
        [1000, n, 2000, n, 3000], nan_ok=True
    )
