"""Statistics: any cut into blocks gives the same bits, and each agrees with a slow, obvious reference."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.statistics import ELEMENTWISE, MAX_WINDOW, VOCABULARY, Held, Streak

LAWS = settings(max_examples=50, deadline=None)
CONDITIONS = {"share": (0,), "streak": (0,), "count": (0,), "at_first": (1,)}
"""Which arguments of a word are conditions rather than numbers."""

ODD = np.array([np.nan, np.nan, 0.0, -0.0, 1.0, -1.0, 1e12, 1e-12, 0.5])
"""Values among which ties, gaps and absorbed digits are common."""


def made(word, window):
    entry = VOCABULARY[word]
    return entry.make(window) if entry.window else entry.make()


def blocks(arrays, cuts):
    bounds = [0, *sorted(cuts), len(arrays[0])]
    for begin, end in itertools.pairwise(bounds):
        yield [array[begin:end] for array in arrays]


def in_blocks(statistic, arrays, cuts):
    return np.concatenate([statistic(*block) for block in blocks(arrays, cuts)])


def same_bits(one, other):
    """Whether two arrays are equal to the last bit; the sign of a zero and the payload of a NaN are no difference."""
    bits = [np.where(np.isnan(array), np.nan, array + 0.0).tobytes() for array in (one, other)]
    return one.shape == other.shape and bits[0] == bits[1]


@st.composite
def series_and_cuts(draw, word):
    ticks = draw(st.integers(1, 40))
    layers = draw(st.sampled_from([0, 1, 3]))  # 0: one-dimensional
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    odd = draw(st.sampled_from([0.2, 0.9]))
    shape = (ticks, layers) if layers else (ticks,)
    arrays = []
    for argument in range(VOCABULARY[word].series):
        if argument in CONDITIONS.get(word, ()):
            arrays.append(rng.choice([0.0, 1.0, np.nan], shape))
        else:
            arrays.append(np.where(rng.random(shape) < odd, rng.choice(ODD, shape), rng.standard_normal(shape)))
    # Repeated cuts are empty blocks.
    cuts = draw(st.lists(st.integers(0, ticks), max_size=12))
    return arrays, cuts, draw(st.integers(1, 12))


@pytest.mark.parametrize("word", VOCABULARY)
def test_any_cut_into_blocks_gives_the_same_bits(word):
    @LAWS
    @given(series_and_cuts(word))
    def law(case):
        arrays, cuts, window = case
        with np.errstate(all="ignore"):
            whole = made(word, window)(*arrays)
            cut = in_blocks(made(word, window), arrays, cuts)
            singly = in_blocks(made(word, window), arrays, range(1, len(arrays[0])))
        assert len(whole) == len(arrays[0])
        assert same_bits(whole, cut)
        assert same_bits(whole, singly)

    law()


@pytest.mark.parametrize("word", VOCABULARY)
def test_no_output_depends_on_a_later_input(word):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(60) for _ in range(VOCABULARY[word].series)]
    for argument in CONDITIONS.get(word, ()):
        arrays[argument] = (arrays[argument] > 0).astype(np.float64)
    later = [np.concatenate((array[:30], 1.0 - array[30:])) for array in arrays]
    assert same_bits(made(word, 7)(*arrays)[:30], made(word, 7)(*later)[:30])


@pytest.mark.parametrize("word", VOCABULARY)
def test_no_input_is_changed(word):
    arrays = [np.array([1.0, np.nan, 0.0, 1.0, 3.0]) for _ in range(VOCABULARY[word].series)]
    for array in arrays:
        array.flags.writeable = False
    made(word, 2)(*arrays)
    assert all(same_bits(array, np.array([1.0, np.nan, 0.0, 1.0, 3.0])) for array in arrays)


# -- a slow reference for each word: the value at tick t from all inputs up to t --------------------------------------


def observed(x):
    return x[~np.isnan(x)]


def median_of(x, enough):
    return np.median(observed(x)) if len(observed(x)) >= enough else np.nan


def half(window):
    return (window + 1) // 2


def typical(x, window):
    """The median of the ticks before the last of `x`."""
    return median_of(x[:-1][-window:], half(window))


def noise(x, window=64):
    differences = [abs(x[i] - 2 * x[i - 1] + x[i - 2]) for i in range(2, len(x))]
    return 1.4826 / np.sqrt(6) * median_of(np.array(differences)[-window:], 1)


def start(x):
    return np.median(observed(x)[:3]) if len(observed(x)) else np.nan


def lowest(x):
    return np.nanmin(x) if len(observed(x)) else np.nan


def progress(x):
    return np.fmax(start(x) - lowest(x), 3 * noise(x))


def setback(x):
    return (x[-1] - lowest(x)) / progress(x) if progress(x) > 0 else np.nan


def spread(x, window):
    deviations = np.array([abs(x[i] - typical(x[: i + 1], window)) for i in range(len(x))])
    return 1.4826 * typical(deviations, window)


def change(x, window):
    if len(x) < window or np.isnan(x[-window:]).any():
        return np.nan
    return np.polyfit(np.arange(window), x[-window:], 1)[0] * (window - 1) if window > 1 else 0.0


def at_trough(y, x):
    if not len(observed(x)):
        return np.nan
    top = np.nanargmax(x)
    return y[top + np.nanargmin(x[top:])]


def streak(condition):
    length = 0
    for truth in condition:
        length = 0 if truth == 0 else length + (truth == 1)
    return length


REFERENCES = {
    "last": lambda x, w: observed(x)[-1] if len(observed(x)) else np.nan,
    "first": lambda x, w: observed(x)[0] if len(observed(x)) else np.nan,
    "start": lambda x, w: start(x),
    "lowest": lambda x, w: lowest(x),
    "highest": lambda x, w: -lowest(-x),
    "at_lowest": lambda y, x, w: y[np.nanargmin(x)] if len(observed(x)) else np.nan,
    "at_trough": lambda y, x, w: at_trough(y, x),
    "at_first": lambda y, c, w: y[np.argmax(c == 1)] if (c == 1).any() else np.nan,
    "typical": typical,
    "spread": spread,
    "recent_low": lambda x, w: lowest(x[-w:]),
    "median": lambda x, w: median_of(x[-w:], half(w)),
    "mean": lambda x, w: np.mean(x[-w:]) if len(x) >= w else np.nan,
    "change": change,
    "noise": noise,
    "progress": lambda x, w: progress(x),
    "setback": lambda x, w: setback(x),
    "before": lambda x, w: x[-1 - w] if len(x) > w else np.nan,
    "share": lambda c, w: np.mean(c[-w:] == 1) if len(c) >= w else np.nan,
    "streak": lambda c, w: streak(c),
    "count": lambda c, w: np.sum(c == 1),
    "across_median": lambda x, w: x[-1],
    "across_max": lambda x, w: x[-1],
    "across_last": lambda x, w: x[-1],
}


def test_every_word_has_a_reference():
    assert {*REFERENCES} == {*VOCABULARY}


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("window", [1, 2, 5, 8])
@pytest.mark.parametrize("word", VOCABULARY)
def test_a_word_agrees_with_its_slow_reference(word, window, holes):
    rng = np.random.default_rng(window)
    arrays = [2 - np.arange(90) / 60 + 0.2 * rng.standard_normal(90) for _ in range(VOCABULARY[word].series)]
    for argument in CONDITIONS.get(word, ()):
        arrays[argument] = (arrays[argument] > 1.2).astype(np.float64)
    for array in arrays:
        array[rng.random(90) < holes] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = [REFERENCES[word](*(array[: t + 1] for array in arrays), window) for t in range(90)]
    np.testing.assert_allclose(made(word, window)(*arrays), np.array(expected, dtype=np.float64), rtol=1e-9, atol=1e-12)


# -- laws of particular words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-3.0, 0.0, 100.0])
@pytest.mark.parametrize("factor", [0.01, 1.0, 64.0])
def test_a_setback_is_the_same_for_every_scale_and_offset_of_the_loss(factor, offset):
    rng = np.random.default_rng(3)
    loss = 2 * np.exp(-np.arange(200) / 50) + 0.02 * rng.standard_normal(200) + np.linspace(0, 0.5, 200) ** 3
    setback_of = made("setback", 0)(factor * loss + offset)
    np.testing.assert_allclose(setback_of[3:], made("setback", 0)(loss)[3:], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("word", ["noise", "progress", "change", "spread"])
def test_measures_of_size_scale_with_the_loss_and_forget_its_offset(word):
    loss = np.random.default_rng(4).standard_normal(200).cumsum()
    np.testing.assert_allclose(made(word, 9)(8 * loss - 5), 8 * made(word, 9)(loss), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("word", ["typical", "median", "lowest", "start", "first", "mean"])
def test_measures_of_level_follow_scale_and_offset(word):
    loss = np.random.default_rng(5).standard_normal(200)
    np.testing.assert_allclose(made(word, 9)(8 * loss - 5), 8 * made(word, 9)(loss) - 5, rtol=1e-9, atol=1e-9)


def test_a_baseline_does_not_see_the_value_it_is_for():
    calm = np.ones(40)
    spiked = np.where(np.arange(40) == 39, 1e12, calm)
    assert made("typical", 10)(spiked)[39] == 1.0
    assert made("spread", 10)(spiked)[39] == made("spread", 10)(calm)[39]


def test_a_single_spike_leaves_no_trace_in_a_median():
    spiked = np.where(np.arange(400) == 50, 1e12, 1.0)
    assert np.all(made("typical", 10)(spiked)[5:] == 1.0)


def test_a_straight_line_has_no_noise():
    assert np.all(made("noise", 64)(np.arange(50.0))[2:] == 0)


def test_noise_estimates_the_standard_deviation_of_white_noise_on_a_trend():
    rng = np.random.default_rng(6)
    series = np.linspace(5, 0, 20_000) + 0.1 * rng.standard_normal(20_000)
    assert np.median(made("noise", 64)(series)[64:]) == pytest.approx(0.1, rel=0.05)


def test_change_is_the_rise_across_the_window():
    assert made("change", 5)(np.arange(10.0) * 2)[-1] == pytest.approx(8.0)


def test_start_takes_the_first_three_values_however_far_apart():
    gaps = np.array([5.0, np.nan, np.nan, np.nan, 1.0, np.nan, np.nan, 2.0, 100.0])
    assert made("start", 0)(gaps)[-1] == 2.0


def test_the_first_of_equal_minima_counts():
    steps = np.arange(5.0)
    assert made("at_lowest", 0)(steps, np.array([3.0, 1.0, 2.0, 1.0, 1.0])).tolist() == [0, 1, 1, 1, 1]


def test_a_value_per_layer_meets_one_for_all():
    layers, loss = np.arange(6.0).reshape(3, 2), np.array([[3.0], [1.0], [2.0]])
    assert made("at_lowest", 0)(layers, loss).tolist() == [[0, 1], [2, 3], [2, 3]]
    assert made("at_lowest", 0)(loss, layers).tolist() == [[3, 3], [3, 3], [3, 3]]
    assert made("at_first", 0)(loss, (layers > 1).astype(float))[-1].tolist() == [1, 1]


def test_across_looks_at_the_layers_of_one_tick():
    layers = np.array([[1.0, 5.0, np.nan], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(made("across_max", 0)(layers), [[5.0], [np.nan]])
    np.testing.assert_array_equal(made("across_median", 0)(layers), [[3.0], [np.nan]])
    np.testing.assert_array_equal(made("across_last", 0)(layers), layers[:, -1:])


@pytest.mark.parametrize("word", ["across_last", "across_max", "across_median"])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_across_no_layers_is_undecided(word, shape):
    across = made(word, 0)(np.empty(shape))
    assert across.shape == (shape[0], 1)
    assert np.isnan(across).all()


def test_an_undecided_tick_neither_extends_nor_breaks_a_streak():
    assert Streak()(np.array([1.0, np.nan, 1.0, 0.0, np.nan, 1.0])).tolist() == [1, 1, 2, 0, 0, 1]


def test_held_keeps_the_latest_value_that_was_taken():
    held = Held()
    assert np.isnan(held(np.array([1.0]), np.array([False])))[0]
    assert held(np.array([2.0, 3.0]), np.array([True, False])).tolist() == [2, 2]
    assert held(np.array([4.0, 5.0]), np.array([False, False])).tolist() == [2, 2]
    assert held(np.array([6.0, 7.0]), np.array([True, True])).tolist() == [6, 7]


def test_the_longest_window_works_on_a_short_series():
    assert np.isnan(made("median", MAX_WINDOW)(np.ones(10))).all()
    assert np.isnan(made("mean", MAX_WINDOW)(np.ones(10))).all()


@pytest.mark.parametrize(("word", "expected"), [("min", 1.0), ("max", 2.0)])
def test_the_lower_or_higher_of_something_unknown_is_unknown(word, expected):
    function, arguments = ELEMENTWISE[word]
    assert arguments == 2
    assert function(np.float64(1), np.float64(2)) == expected
    assert np.isnan(function(np.float64(1), np.nan))


@pytest.mark.parametrize("word", ["median", "typical", "spread"])
def test_a_series_of_one_value_is_decided_no_sooner_than_another(word):
    filters = [VOCABULARY[word].make(6) for _ in range(3)]
    constant, varied = np.ones(20), np.arange(20.0)
    np.testing.assert_array_equal(np.isnan(filters[0](constant)), np.isnan(filters[1](varied)))
    row_by_row = np.concatenate([filters[2](constant[row : row + 1]) for row in range(20)])
    np.testing.assert_array_equal(row_by_row, VOCABULARY[word].make(6)(constant))
