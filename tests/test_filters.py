"""Filters look first whether a block has anything new for them; what they then leave out changes nothing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.statistics import VOCABULARY

NAN = float("nan")


def series(seed, rows):
    """Falls, then stays; constant for long; conditions; missing values, single ones and long stretches of them."""
    rng = np.random.default_rng(seed)
    kinds = {
        "falls": np.maximum(2 - np.arange(rows) / 80, 1) + 0.3 * rng.random(rows),
        "stays": np.where(np.arange(rows) < rng.integers(0, rows), 1.0, 3.0),
        "condition": np.repeat(rng.integers(0, 2, rows // 20 + 1), 20)[:rows].astype(np.float64),
        "never": np.zeros(rows),
        "always": np.ones(rows),
        "missing": np.full(rows, NAN),
    }
    for name in ("falls", "stays", "condition"):
        kinds[f"{name}, with gaps"] = np.where(rng.random(rows) < 0.3, NAN, kinds[name])
        kinds[f"{name}, late"] = np.where(np.arange(rows) < rows // 2, NAN, kinds[name])
    return kinds


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("word", VOCABULARY)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 399), max_size=4))
def test_long_blocks_give_what_short_ones_give(word, layered, seed, cuts):
    entry = VOCABULARY[word]
    rows = 400
    kinds = [*series(seed, rows).values()]
    for first, second in itertools.pairwise([*kinds, kinds[0]]):
        arrays = [np.stack((one, kinds[0]), axis=1) if layered else one for one in (first, second)[: entry.series]]
        found = []
        for bounds in (sorted({0, rows, *cuts}), range(0, rows + 1, 5)):
            statistic = entry.make(10) if entry.window else entry.make()
            with np.errstate(all="ignore"):
                blocks = [statistic(*(one[a:b] for one in arrays)) for a, b in itertools.pairwise(bounds)]
            found.append(np.concatenate(blocks))
        np.testing.assert_array_equal(found[0], found[1])
