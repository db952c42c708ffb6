"""lossdoctor.runs.stacking."""

import numpy as np
import pytest

from lossdoctor.runs.stacking import Stack, stack
from tests.runs.recordings import table


def test_one_table_is_returned_without_a_copy():
    only = table(step=[1, 2], x=[3, 4])
    assert stack([table(), only, table(step=[])]) is only


def test_no_rows_are_no_columns():
    assert len(stack([])) == 0
    assert stack([table(step=[])]).columns == {}


def test_a_column_that_a_table_lacks_is_unobserved_there():
    stacked = stack([table(step=[1, 2]), table(step=[3], x=[np.nan])])
    assert stacked.step.tolist() == [1, 2, 3]
    assert stacked.columns["x"].observed.tolist() == [False, False, True]
    assert np.isnan(stacked.columns["x"].values).all()
    assert stacked.columns["x"].values.dtype == np.float32


def test_there_is_a_mask_only_where_something_is_unobserved():
    stacked = stack([table(step=[1], x=[1], y=[None]), table(step=[2], x=[2], y=[2])])
    assert stacked.columns["x"].observed is None
    assert stacked.columns["y"].observed.tolist() == [False, True]


def test_layer_columns_take_the_last_width():
    stacked = stack([table(step=[1], g=[[1, 2]]), table(step=[2], g=[[1, None, 3]])])
    assert stacked.columns["g"].mask().tolist() == [[False, False, False], [True, False, True]]


def piled(tables, expected=0):
    pile = Stack(expected)
    for one in tables:
        pile.add(one)
    return pile.table()


@pytest.mark.parametrize("expected", [0, 2, 100])
@pytest.mark.parametrize(
    "tables",
    [
        [],
        [table(step=[1, 2], x=[3, None])],
        [table(step=[1, 2], x=[3, 4]), table(step=[]), table(step=[3], x=[5])],
        [table(step=[1, 2]), table(step=[3], x=[np.nan]), table(step=[4, 5, 6], y=[1, None, 2])],
        [table(step=[1], g=[[1, 2]]), table(step=[2], g=[[1, None, 3]]), table(step=[3])],
        [table(step=[at], x=[at if at % 3 else None]) for at in range(40)],
    ],
)
def test_table_by_table_is_the_same_as_all_at_once(tables, expected):
    at_once, one_by_one = stack(tables), piled(tables, expected)
    assert list(one_by_one.columns) == list(at_once.columns)
    for name, column in at_once.columns.items():
        found = one_by_one.columns[name]
        assert found.values.dtype == column.values.dtype
        np.testing.assert_array_equal(found.values, column.values)
        assert (found.observed is None) == (column.observed is None)
        np.testing.assert_array_equal(found.mask(), column.mask())


def test_a_single_table_is_piled_without_a_copy():
    only = table(step=[1, 2], x=[3, 4])
    assert piled([table(), only]) is only
