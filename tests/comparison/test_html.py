"""The page of a comparison: complete, harmless, one colour a group, no value lost."""

import re

import pytest

from lossdoctor.comparison import compare_curves, render_html
from lossdoctor.rulebook import Rulebook
from tests.comparison.runs_on_disk import recorded
from tests.reports.strangers import EVIL

RULEBOOK = Rulebook.load()


@pytest.fixture
def page_on(tmp_path):
    def page(*runs, **options):
        places = [recorded(tmp_path / name, **settings) for name, settings in runs]
        comparison, curves = compare_curves(places, rulebook=RULEBOOK, **options)
        return render_html(comparison, curves)

    return page


def _figures(page):
    return {
        re.search(r"<b>(.*?)</b>", figure)[1]: figure
        for figure in re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    }


def test_what_the_text_says_the_page_says(page_on):
    page = page_on(("a", {"lr": 1e-3}), ("b", {"lr": 3e-3, "shift": 0.2}))
    for words in (
        "2 runs compared",
        "A 0.001, B 0.003",
        "apart from step",
        "worse; p &lt; 0.0001",
        "every run reached",
    ):
        assert words in page


def test_every_run_has_a_curve_of_each_metric_in_its_own_colour(page_on):
    figures = _figures(page_on(("a", {"lr": 1e-3}), ("b", {"lr": 3e-3, "shift": 0.2})))
    assert [*figures] == ["val_loss", "train_loss", "val_f1"]
    for figure in figures.values():
        assert re.findall(r'class="line (run-\d)" d="M[^"]+" data-label="(\w)"', figure) == [
            ("run-0", "A"),
            ("run-1", "B"),
        ]


def test_the_runs_of_a_group_have_one_colour(page_on):
    runs = [(f"{opt}{seed}", {"opt": opt, "seed": seed}) for opt in "ab" for seed in range(2)]
    figure = _figures(page_on(*runs, by=["opt"]))["val_loss"]
    assert re.findall(r'class="line (run-\d)"', figure) == ["run-0", "run-0", "run-1", "run-1"]


def test_values_that_are_no_numbers_are_marked_and_counted(page_on):
    page = page_on(("a", {}), ("b", {"lr": 0.1, "shift": float("nan"), "shift_from": 300}))
    assert "B: 300 × NaN or Inf" in _figures(page)["train_loss"]


def test_more_runs_than_colours_are_told_apart_by_dashes_and_none_is_named_in_the_chart(page_on):
    figure = _figures(page_on(*((f"r{lr}", {"lr": lr / 1e3}) for lr in range(1, 11))))["val_loss"]
    classes = re.findall(r'class="line ([^"]+)"', figure)
    assert len(set(classes)) == 10
    assert "data-label" not in figure


@pytest.mark.parametrize("text", EVIL)
def test_settings_and_names_stay_text(page_on, text):
    page = page_on(("a", {"note": "plain"}), ("b", {"note": text, text: 1}))
    assert len(re.findall(r"<script", page)) == len(re.findall(r"<style", page)) == 1
    assert not re.search(r"<(img|svg onload)|\x1b|\u202e", page)
    assert "default-src 'none'" in page
