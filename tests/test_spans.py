"""Rows that wait for the end of their span, and what is said of them."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lossdoctor.spans import Companions, Rows

NAN = float("nan")


def never(rows):
    """A column that was never recorded."""
    return np.broadcast_to(NAN, rows)


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 4), max_size=12), st.integers(0, 2**32 - 1))
def test_rows_are_taken_in_their_order_however_they_came(sizes, takes, seed):
    rng = np.random.default_rng(seed)
    every = np.where(rng.random(sum(sizes)) < 0.3, NAN, rng.standard_normal(sum(sizes)))
    rows, put, taken = Rows(["x", "y"]), 0, 0
    for size, wanted in itertools.zip_longest(sizes, takes, fillvalue=0):
        chunk = every[put : put + size]
        rows.extend(size, lambda name, chunk=chunk: chunk if name == "x" else never(len(chunk)))
        put += size
        take = min(wanted, len(rows))
        span = rows.take(take)
        expected = every[taken : taken + take]
        taken += take
        np.testing.assert_array_equal(span["x"], expected)
        np.testing.assert_array_equal(span.observed("x"), expected[~np.isnan(expected)])
        assert len(span.observed("y")) == 0
        assert len(rows) == put - taken


def test_a_column_that_is_recorded_from_some_row_on_is_missing_before():
    rows = Rows(["x"])
    rows.extend(2, lambda _: never(2))
    rows.extend(2, lambda _: np.array([1.0, 2.0]))
    span = rows.take(3)
    np.testing.assert_array_equal(span["x"], [NAN, NAN, 1])
    assert span.observed("x").tolist() == [1]


def test_companions_of_what_was_not_observed_are_missing():
    companions = Companions({"mean_x": ("x", "mean"), "max_x": ("x", "max"), "mean_y": ("y", "mean"), "z": ("z", None)})
    rows = Rows(companions.sources)
    columns = {"x": np.array([1.0, NAN, 5.0]), "y": never(3), "z": np.array([NAN, NAN, NAN])}
    rows.extend(3, columns.__getitem__)
    found = companions(rows.take(3))
    assert sorted(found) == companions.names == ["max_x", "mean_x", "mean_y", "z"]
    assert (found["mean_x"], found["max_x"]) == (3, 5)
    assert np.isnan([found["mean_y"], found["z"]]).all()
