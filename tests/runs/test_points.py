"""Metrics that were stored one by one come into common rows."""

import numpy as np
import pytest

from lossdoctor.runs.points import Points, laid_out


def points(step, value, time=None):
    return Points(np.array(step, float), np.array(value, float), None if time is None else np.array(time, float))


def test_metrics_of_the_same_steps_share_rows():
    series, rows = laid_out({"loss": points([0, 10, 20], [3, 2, 1]), "val": points([10], [2.5])})
    assert rows == 3
    assert series["step"].values.tolist() == [0, 10, 20]
    assert series["val"].at.tolist() == [1]


def test_points_in_any_order_come_out_by_step():
    series, _ = laid_out({"b": points([2], [5]), "a": points([1, 3], [1, 2])})
    assert series["step"].values.tolist() == [1, 2, 3]
    assert series["a"].at.tolist() == [0, 2]


def test_a_training_that_began_anew_is_not_mixed_with_the_first():
    series, rows = laid_out({"loss": points([0, 1, 2, 0, 1], [5, 4, 3, 9, 8]), "lr": points([0, 1, 2, 0, 1], [1] * 5)})
    assert rows == 5
    assert series["step"].values.tolist() == [0, 1, 2, 0, 1]
    assert series["loss"].values.tolist() == [5, 4, 3, 9, 8]


def test_metrics_without_steps_are_counted():
    series, _ = laid_out({"loss": points([0, 0, 0], [3, 2, 1])})
    assert series["step"].values.tolist() == [0, 1, 2]


def test_a_metric_without_steps_is_placed_by_its_time():
    loss = points(range(0, 100, 10), range(10), time=range(10))
    series, _ = laid_out({"loss": loss, "val": points([0, 0], [1, 2], time=[4.5, 9.5])})
    assert series["step"].values[series["val"].at].tolist() == [40, 90]


def test_steps_within_the_same_tick_of_the_clock_keep_their_order():
    again = [0, 1, 2, 3, 1, 2]
    time = [0, 0, 0, 0, 1, 1]
    series, _ = laid_out({"a": points(again, again, time), "b": points(again, again, time)})
    assert series["step"].values.tolist() == again


def test_of_two_values_at_one_step_the_last_counts():
    series, _ = laid_out({"loss": points([0, 1, 1, 2], [4, 3, 2, 1])})
    assert series["loss"].values.tolist() == [4, 2, 1]


@pytest.mark.parametrize("empty", [{}, {"loss": points([], [])}])
def test_nothing_comes_of_nothing(empty):
    assert laid_out(empty) == ({}, 0)
