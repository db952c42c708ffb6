"""The sparkline shows what matters in a long run: spikes, NaN, and where the finding lies."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.reports.sparkline import sparkline


def _draw(values, **options):
    values = np.asarray(values, dtype=np.float64)
    return sparkline(np.arange(len(values), dtype=np.float64), values, **options)


def test_a_spike_of_one_step_among_a_million_is_visible():
    values = np.random.default_rng(0).normal(1.0, 0.01, 1_000_000)
    values[617_283] = 9.0
    line = _draw(values, width=60)
    assert line.bars.count("█") == 1
    assert line.bars.index("█") == 617_283 * 60 // 1_000_000


def test_a_dip_of_one_step_is_visible_too():
    values = np.full(10_000, 5.0)
    values[100] = 1.0
    values[0] = 5.1
    assert _draw(values, width=50).bars.count("▁") == 1


def test_a_nan_marks_its_column_and_is_counted():
    values = np.linspace(1, 0, 1000)
    values[503] = np.nan
    values[-1] = np.inf
    line = _draw(values, width=50)
    assert [column for column, bar in enumerate(line.bars) if bar == "×"] == [25, 49]
    assert line.non_finite == 2
    assert (line.low, line.high) == (values[-2], 1.0)


def test_values_that_are_all_nan_are_drawn_as_marks():
    line = _draw([np.nan, np.nan], width=50)
    assert set(line.bars) == {"×"}
    assert np.isnan(line.low)


def test_the_span_is_marked_under_the_columns_it_touches():
    line = _draw(np.arange(100.0), span=(50, 59), width=50)
    assert line.marks == " " * 25 + "^" * 5 + " " * 20


def test_a_span_between_two_rows_or_after_the_last_is_still_marked():
    steps = np.array([10.0, 20.0, 30.0])
    assert sparkline(steps, steps, span=(21, 22), width=3).marks == "  ^"
    assert sparkline(steps, steps, span=(40, 50), width=3).marks == "  ^"


def test_few_values_are_widened():
    assert _draw([1.0, 2.0], width=60).bars == "▁" * 24 + "█" * 24


def test_a_positive_signal_over_decades_is_drawn_logarithmically():
    line = _draw(10.0 ** np.arange(8), width=8)
    assert line.logarithmic
    assert line.bars[:: len(line.bars) // 8] == "▁▂▃▄▅▆▇█"
    assert not _draw(np.arange(1, 9), width=8).logarithmic


def test_ascii_needs_no_other_characters():
    assert _draw([*range(8), np.nan], width=9, unicode=False).bars.isascii()


def test_nothing_observed_is_nothing_drawn():
    assert _draw([]) is None


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=200), st.integers(1, 90))
def test_any_values_are_drawn_within_the_width(values, width):
    line = _draw(values, width=width, span=(0, 3))
    assert len(line.bars) == len(line.marks) <= max(width, 1)
    assert "^" in line.marks
    assert ("×" in line.bars) == (not np.isfinite(values).all())
