"""Scales: log where it helps, a few wild values do not squeeze the rest, ticks that can be told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossdoctor.reports.scales import Scale, fitting, step_ticks, ticks

FALLING = 2.3 * np.exp(-np.arange(1000) / 200) + 0.3


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        (FALLING, False),
        (np.geomspace(2.3, 1e-4, 500), True),
        (-FALLING, False),
        (np.r_[FALLING, 240.0], True),
        (np.zeros(10), False),
        (np.r_[0.0, np.geomspace(1e-5, 1.0, 100)], True),
    ],
    ids=["falling", "decades", "negative", "one spike", "zeros", "zero first"],
)
def test_a_logarithmic_scale_is_taken_where_values_span_decades(values, logarithmic):
    assert fitting([values]).logarithmic is logarithmic


def test_a_wild_value_is_marked_at_the_edge_and_leaves_the_rest_readable():
    values = np.r_[-FALLING, -1e9]
    scale = fitting([values])
    assert scale.beyond(values).sum() == 1
    heights = scale.heights(values)
    assert heights[-1] == 0.0
    assert np.ptp(heights[:-1]) > 0.5


def test_a_loss_that_stays_high_is_no_outlier():
    values = np.r_[FALLING, np.linspace(1.0, 50.0, 300)]
    assert not fitting([values]).beyond(values).any()


def test_a_constant_and_nothing_at_all_have_a_scale():
    for curves in ([np.full(5, 0.001)], [np.zeros(3)], [np.empty(0)], []):
        scale = fitting(curves)
        assert scale.low < scale.high


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50), st.none() | st.booleans())
def test_heights_lie_within_the_axis_whatever_the_values(values, logarithmic):
    scale = fitting([np.array(values)], logarithmic=logarithmic)
    heights = scale.heights(np.array(values))
    assert ((heights >= 0) & (heights <= 1)).all()
    assert all(np.isfinite([value for value, _ in ticks(scale)]))


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("ends", [(1e-7, 3e-7), (0.9999, 1.0001), (1.0, 9.0), (1e-9, 1e9), (65536.0, 131072.0)])
def test_ticks_lie_within_the_scale_and_no_two_labels_are_alike(ends, logarithmic):
    found = ticks(Scale(*ends, logarithmic=logarithmic))
    labels = [label for _, label in found]
    assert 1 <= len(found) <= 10
    assert len(set(labels)) == len(labels)
    slack = 1e-6 * (ends[1] - ends[0]) if not logarithmic else 0.001 * ends[0]
    assert all(ends[0] - slack <= value <= ends[1] + slack for value, _ in found)


@pytest.mark.parametrize(
    ("last", "labels"),
    [
        (10, ["2", "4", "6", "8", "10"]),
        (1000, ["200", "400", "600", "800", "1,000"]),
        (1_000_000, ["0.2M", "0.4M", "0.6M", "0.8M", "1M"]),
    ],
)
def test_steps_are_labelled_as_people_say_them(last, labels):
    assert [label for _, label in step_ticks(1, last)] == labels
