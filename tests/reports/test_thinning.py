"""Thinning: short, and nothing that stands out is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lossdoctor.reports.thinning import thin, typical

VALUES = arrays.arrays(
    np.float64, st.integers(1, 3000), elements=st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf])
)


@given(VALUES, st.integers(1, 200))
def test_extremes_ends_and_the_number_of_bad_rows_are_kept(values, stretches):
    steps = np.arange(len(values)) + 1.0
    curve = thin(steps, values, stretches)
    known = np.isfinite(values)
    assert curve.rows == len(values)
    assert curve.non_finite_rows == (~known).sum()
    assert (len(curve.non_finite) > 0) == (~known).any()
    assert not known[curve.non_finite.astype(int) - 1].any(), "a mark stands where a value was fine"
    assert (np.diff(curve.steps) > 0).all()
    assert (values[curve.steps.astype(int) - 1] == curve.values).all(), "a value was invented"
    if known.any():
        assert curve.values.min() == values[known].min()
        assert curve.values.max() == values[known].max()
        assert curve.values[[0, -1]].tolist() == values[known][[0, -1]].tolist()


@pytest.mark.parametrize("at", [0, 1, 499_999, 123_457, 999_998, 999_999])
def test_a_spike_of_one_step_in_a_million_stays_at_its_step(at):
    values = np.zeros(1_000_000)
    values[at] = 5.0
    curve = thin(np.arange(1e6), values, 500)
    assert len(curve.values) <= 1002
    assert curve.steps[curve.values == 5.0].tolist() == [at]


def test_a_short_curve_is_left_as_it_is():
    values = np.array([3.0, 1.0, 2.0])
    assert thin(np.arange(3.0), values, 2).values.tolist() == [3.0, 1.0, 2.0]


def test_a_line_is_broken_where_nothing_finite_lies_between():
    values = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    assert thin(np.arange(5.0), values, 100).gaps == {2}
    long = np.ones(10_000)
    long[5000:6000] = np.nan
    curve = thin(np.arange(1e4), long, 100)
    assert len(curve.gaps) == 1
    assert curve.steps[min(curve.gaps)] >= 6000


def test_one_bad_value_among_many_breaks_no_thinned_line():
    values = np.ones(10_000)
    values[77] = np.inf
    curve = thin(np.arange(1e4), values, 100)
    assert not curve.gaps
    assert curve.non_finite.tolist() == [77]


def test_the_median_course_takes_no_notice_of_spikes_and_of_what_is_not_finite():
    values = np.full(1000, 2.0)
    values[::10], values[5::10], values[900:] = 1e9, np.nan, np.nan
    steps, middle = typical(np.arange(1000.0), values, 10)
    assert middle.tolist() == [2.0] * 9
    assert steps[-1] < 900
