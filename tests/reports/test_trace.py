"""Curves of bounded size."""

import numpy as np
import pytest

from lossdoctor.reports.trace import Trace


def _traced(values, *, pieces=1):
    trace = Trace()
    steps = np.arange(1.0, len(values) + 1)
    for part in np.array_split(np.arange(len(values)), pieces):
        trace.add(steps[part], np.asarray(values, dtype=float)[part])
    return trace


def test_few_values_are_kept_as_they_are():
    steps, values = _traced([3.0, 2.0, 1.0]).points()
    assert steps.tolist() == [1, 2, 3]
    assert values.tolist() == [3, 2, 1]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_million_values_stay_few_and_one_spike_survives(pieces):
    values = np.ones(1_000_000 if pieces < 1000 else 20_000)
    values[777] = 50.0
    trace = _traced(values, pieces=pieces)
    assert len(trace) <= 512
    assert trace.points()[1].max() == 50.0


def test_any_cut_gives_the_same_curve():
    values = np.random.default_rng(0).normal(size=5000)
    whole, cut = _traced(values).points(), _traced(values, pieces=333).points()
    assert np.array_equal(whole[0], cut[0])
    assert np.allclose(whole[1], cut[1])


def test_what_is_not_finite_is_marked_and_never_dropped():
    values = np.ones(5000)
    values[4000] = np.inf
    assert np.isnan(_traced(values).points()[1]).sum() == 1
    assert np.isnan(_traced([np.nan, np.nan]).points()[1]).all()


def test_the_latest_value_is_known():
    assert _traced([1.0, np.nan]).last != _traced([1.0, np.nan]).last
    assert _traced(range(10_000)).last == 9999
