"""Noise, partings, final and best values."""

import numpy as np
import pytest

from lossdoctor.comparison.series import Series, outcome, part, reached


def _series(values, steps=None, name="train_loss"):
    values = np.asarray(values, dtype=float)
    return Series(name, np.arange(1.0, len(values) + 1) if steps is None else np.asarray(steps, dtype=float), values)


def _falling(seed, rows=2000, scale=0.05):
    step = np.arange(1.0, rows + 1)
    return 0.3 + 2 * np.exp(-step / 200) + scale * np.random.default_rng(seed).standard_normal(rows)


def test_equal_curves_are_identical():
    parting = part(_series(_falling(0)), _series(_falling(0)), "b")
    assert (parting.identical, parting.parted_at, parting.same_until) == (True, None, 2000)


def test_a_nan_equals_a_nan():
    values = [1.0, np.nan, 0.5]
    assert part(_series(values), _series(values), "b").identical


@pytest.mark.parametrize("seed", range(1, 21))
def test_other_noise_on_the_same_curve_is_no_parting(seed):
    parting = part(_series(_falling(0)), _series(_falling(seed)), "b")
    assert (parting.identical, parting.parted_at, parting.same_until) == (False, None, None)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.1, -0.2])
def test_a_shift_is_found_near_its_step_whatever_the_unit(shift, scale):
    other = _falling(1)
    other[1000:] += shift
    parted = part(_series(scale * _falling(0)), _series(scale * other), "b").parted_at
    assert 900 <= parted <= 1150


def test_curves_that_are_equal_up_to_a_step_say_so():
    other = _falling(0)
    other[500:] += 0.3
    parting = part(_series(_falling(0)), _series(other), "b")
    assert parting.same_until == 500
    assert 450 <= parting.parted_at <= 560


def test_a_passing_spike_is_no_parting():
    other = _falling(1)
    other[700:705] += 50
    assert part(_series(_falling(0)), _series(other), "b").parted_at is None


def test_where_one_is_not_finite_they_part():
    other = _falling(1)
    other[800:] = np.nan
    assert part(_series(_falling(0)), _series(other), "b").parted_at == 801


def test_curves_of_other_cadence_are_compared_by_step():
    sparse = _series(_falling(1)[9::10], np.arange(10, 2001, 10))
    assert part(_series(_falling(0)), sparse, "b").parted_at is None


def test_curves_without_common_steps_cannot_be_compared():
    parting = part(_series([3, 2, 1]), _series([3, 2, 1], [7, 8, 9]), "b")
    assert (parting.compared_from, parting.parted_at) == (None, None)


def test_final_values_lie_within_their_interval_about_as_often_as_promised():
    hits = 0
    for seed in range(200):
        final = outcome(_series(0.3 + 0.05 * np.random.default_rng(seed).standard_normal(2000))).final
        hits += final.low <= 0.3 <= final.high
    assert 0.90 <= hits / 200 <= 0.99


def test_the_direction_of_a_metric_decides_what_is_best():
    values = [0.5, 0.9, 0.7, 0.6, 0.65]
    assert outcome(_series(values, name="val_accuracy")).best.value == 0.9
    assert outcome(_series(values, name="val_loss")).best.value == 0.5
    assert outcome(_series(values, name="val_temperature")).best is None


def test_a_run_that_ends_without_a_number_has_no_interval():
    final = outcome(_series([1.0, 0.5, 0.4, 0.3, np.nan], name="val_loss")).final
    assert np.isnan(final.value)
    assert final.low is None


def test_few_values_have_no_noise():
    assert outcome(_series([1.0, 0.5], name="val_loss")).final.method == "none"


def test_a_target_is_reached_at_its_first_step():
    series = _series([0.9, 0.5, 0.4], [10, 20, 30], "val_loss")
    times = (np.arange(1.0, 31), np.arange(30.0))
    assert reached(series, 0.5, times).step == 20
    assert reached(series, 0.5, times).seconds == 19
    assert reached(series, 0.1, times).step is None
