"""What was measured of the rules ships with them and is said of each."""

import re

import pytest

from lossdoctor.accuracy import Accuracy, Measured, load_accuracy
from lossdoctor.reports import rules as sheets
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook, rules_directory

FOUND = Measured(runs=12, found=11, right=10, false_alarms=0, strays=2, delay=14.0)
ACCURACY = Accuracy(version="1.2.3", measured="2026-11-22", healthy=62, faulty=90, rules={"overfitting": FOUND})


@pytest.fixture
def overfitting():
    return Rulebook.load().rules["overfitting"]


def test_what_ships_is_read_and_knows_rules_in_force():
    accuracy = load_accuracy()
    assert accuracy.schema == "lossdoctor.accuracy/1"
    assert accuracy.healthy >= 60
    assert set(accuracy.rules) <= set(Rulebook.load().rules)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", accuracy.measured)
    for measured in accuracy.rules.values():
        assert 0 <= measured.right <= measured.runs
        assert 0 <= measured.found <= measured.runs


def test_the_figures_lie_beside_the_rules_that_ship():
    assert (rules_directory() / "accuracy.json").is_file()


def test_without_the_file_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr("lossdoctor.accuracy.rules_directory", lambda: tmp_path)
    assert load_accuracy() == Accuracy()


def test_a_card_says_what_was_measured_and_by_whom(overfitting):
    card = " ".join(sheets.card(overfitting, Page(), accuracy=ACCURACY).plain.split())
    assert (
        "found in 11 of 12 trainings with this fault, named as the cause in 10; 0 false alarms on 62 healthy "
        "trainings, 2 on trainings with another fault; median delay 14 steps"
    ) in card
    assert "(lossdoctor 1.2.3, 2026-11-22, 152 trainings, default thresholds)" in card


def test_a_card_of_a_rule_that_was_not_measured_says_nothing_of_it(overfitting):
    assert "measured:" not in sheets.card(overfitting, Page()).plain


def test_the_table_has_a_column_for_each_figure_and_leaves_unmeasured_rules_empty(overfitting):
    other = Rulebook.load().rules["divergence"]
    head, _, first, second = sheets.markdown_table([overfitting, other], ACCURACY).splitlines()
    assert head.endswith("| found | named | false alarms |")
    assert first.endswith("| 11 of 12 | 10 of 12 | 0 of 62 |")
    assert second.endswith("|  |  |  |")
    assert "found" not in sheets.markdown_table([overfitting]).splitlines()[0]


def test_the_catalogue_has_the_figures_as_data(overfitting):
    [entry] = sheets.catalogue([overfitting], ACCURACY)
    assert entry["measured"] == {"runs": 12, "found": 11, "right": 10, "false_alarms": 0, "strays": 2, "delay": 14.0}
    assert sheets.catalogue([overfitting])[0]["measured"] is None
