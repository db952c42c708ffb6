"""Columns grow value by value, and not without end."""

import math

import pytest

from lossdoctor.runs.collecting import Columns, number


@pytest.mark.parametrize(
    ("written", "read"),
    [(1, 1.0), ("1e-3", 0.001), (" -2.5 ", -2.5), ("Infinity", math.inf), ("-inf", -math.inf), (10**400, math.inf)],
)
def test_numbers_are_read_however_they_are_spelled(written, read):
    assert number(written) == read


@pytest.mark.parametrize("written", [True, None, "", "text", "1_000", "0x10", "1" * 50, [1], {"a": 1}, "nano"])
def test_what_is_no_number_is_none(written):
    assert number(written) is None


def test_a_column_knows_its_rows():
    columns = Columns()
    for value in (3.0, 2.0, 1.0):
        row = columns.row()
        columns.add("loss", row, value)
        if value == 2:
            columns.add("val", row, 9.0)
    series = columns.series()
    assert series["loss"].values.tolist() == [3, 2, 1]
    assert series["val"].at.tolist() == [1]


def test_a_second_value_in_a_row_replaces_the_first():
    columns = Columns()
    row = columns.row()
    columns.add("loss", row, 1.0)
    columns.add("loss", row, 2.0)
    assert columns.series()["loss"].values.tolist() == [2.0]


def test_what_does_not_fit_is_left_out_and_told():
    columns = Columns(values=3, columns=2)
    for name in ("a", "b", "c", "a", "a"):
        columns.add(name, columns.row(), 1.0)
    assert list(columns.series()) == ["a", "b"]
    assert columns.full
    assert columns.lost


def test_a_row_is_written_at_once():
    columns = Columns()
    columns.add_row({"loss": 2.0, "lr": 0.1})
    columns.add_row({"lr": 0.2})
    series = columns.series()
    assert (columns.rows, series["loss"].at.tolist(), series["lr"].values.tolist()) == (2, [0], [0.1, 0.2])
