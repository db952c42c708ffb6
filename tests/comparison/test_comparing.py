"""Comparisons of recorded runs: settings, attribution, replicates, honesty."""

from functools import partial

import jsonschema
import msgspec
import pytest

import lossdoctor
from lossdoctor import comparison as compared
from lossdoctor.comparison import render, render_json, schema
from lossdoctor.errors import LogError, UsageError
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook
from tests.comparison.runs_on_disk import recorded

RULEBOOK = Rulebook.load()
compare = partial(compared.compare, rulebook=RULEBOOK)


def _differing(comparison, *sources):
    return [one.name for one in comparison.differences if one.source in (sources or ("config", "recipe"))]


def test_identical_runs_are_said_to_be_identical(tmp_path):
    comparison = compare([recorded(tmp_path / "a", lr=1e-3), recorded(tmp_path / "b", lr=1e-3)])
    assert comparison.identical
    assert comparison.runs[1].same_as == str(tmp_path / "a")
    assert comparison.remarks[0].startswith("The runs are identical")
    assert "where" not in render(comparison).plain


def test_one_setting_is_attributed_and_seen_once_though_it_was_recorded_twice(tmp_path):
    """The learning rate is in the configuration and in the recipe."""
    first, second = recorded(tmp_path / "a", lr=1e-3), recorded(tmp_path / "b", lr=3e-3, shift=0.2)
    comparison = compare([first, second])
    assert _differing(comparison) == ["lr"]
    assert comparison.attributable == "lr"
    contrast = next(one for one in comparison.contrasts if (one.metric, one.of) == ("val_loss", "final"))
    assert (contrast.result, contrast.method) == ("worse", "noise")
    assert contrast.low < 0.2 < contrast.high


def test_several_settings_are_not_attributable(tmp_path):
    first = recorded(tmp_path / "a", lr=1e-3, depth=2)
    comparison = compare([first, recorded(tmp_path / "b", lr=3e-3, depth=3, shift=0.2)])
    assert comparison.attributable is None
    assert any("not attributable" in remark for remark in comparison.remarks)


def test_one_setting_with_another_seed_is_not_attributable_with_one_run_of_each(tmp_path):
    first = recorded(tmp_path / "a", lr=1e-3, seed=0)
    comparison = compare([first, recorded(tmp_path / "b", lr=3e-3, seed=1)])
    assert comparison.attributable is None
    assert any("The seed differs too" in remark for remark in comparison.remarks)


def test_what_only_the_recipe_shows_counts_as_a_setting(tmp_path):
    first = recorded(tmp_path / "a", optimizer="AdamW")
    assert _differing(compare([first, recorded(tmp_path / "b", optimizer="SGD")])) == ["optimizer"]


def test_names_and_places_are_no_settings(tmp_path):
    first = recorded(tmp_path / "a", run_name="x", output_dir="a")
    comparison = compare([first, recorded(tmp_path / "b", run_name="y", output_dir="b", shift=0.1)])
    assert _differing(comparison) == []
    assert any("No recorded setting differs" in remark for remark in comparison.remarks)


def test_seeds_are_replicates_and_welch_compares_the_groups(tmp_path):
    for seed in range(3):
        recorded(tmp_path / f"adam-{seed}", seed=seed, opt="adam")
        recorded(tmp_path / f"sgd-{seed}", seed=10 + seed, opt="sgd", shift=0.1)
        recorded(tmp_path / f"rms-{seed}", seed=20 + seed, opt="rms")
    comparison = compare([tmp_path], by=["opt", "seed"])
    assert comparison.by == ["opt"]
    assert [group.settings for group in comparison.groups] == [{"opt": "adam"}, {"opt": "rms"}, {"opt": "sgd"}]
    assert [group.replicates for group in comparison.groups] == [3, 3, 3]
    found = {one.group: one for one in comparison.contrasts if (one.metric, one.of) == ("val_loss", "best")}
    assert [found[group].result for group in (1, 2)] == ["no difference", "worse"]
    assert {one.method for one in found.values()} == {"seeds"}
    assert found[2].low < 0.1 < found[2].high
    assert "Welch's t-test over seeds" in " ".join(render(comparison).plain.split())


def test_welch_agrees_with_scipy(tmp_path):
    from scipy import stats

    for seed in range(3):
        recorded(tmp_path / f"a-{seed}", seed=seed, opt="a")
    for seed in range(4):
        recorded(tmp_path / f"b-{seed}", seed=10 + seed, opt="b", shift=0.004)
    comparison = compare([tmp_path], by=["opt"])
    contrast = next(one for one in comparison.contrasts if (one.metric, one.of) == ("val_loss", "final"))
    values = [
        [outcome.final.value for run in comparison.runs if run.group == group for outcome in run.outcomes
         if outcome.metric == "val_loss"]
        for group in (0, 1)
    ]  # fmt: skip
    expected = stats.ttest_ind(values[1], values[0], equal_var=False)
    assert contrast.p_value == pytest.approx(expected.pvalue)
    assert contrast.low == pytest.approx(expected.confidence_interval().low)


def test_the_same_run_twice_is_no_replicate(tmp_path):
    for name in ("a", "b"):
        recorded(tmp_path / name, opt="adam", seed=0)
    recorded(tmp_path / "c", opt="sgd", seed=0, shift=0.1)
    comparison = compare([tmp_path], by=["opt"])
    assert comparison.groups[0].replicates == 1
    assert next(one for one in comparison.contrasts if one.metric == "val_loss").method == "noise"


def test_the_same_settings_and_seed_with_other_numbers_are_no_replicates(tmp_path):
    """Something that was not recorded differs: the code, the data."""
    comparison = compare([recorded(tmp_path / "a", lr=1.0), recorded(tmp_path / "b", lr=1.0, shift=0.2)])
    assert len(comparison.groups) == 2
    assert any("neither does the seed" in remark for remark in comparison.remarks)
    assert next(one for one in comparison.contrasts if one.metric == "val_loss").result == "worse"


def test_what_varies_within_or_along_with_groups_is_said(tmp_path):
    recorded(tmp_path / "a", opt="adam", wd=0.1, depth=2)
    recorded(tmp_path / "b", opt="adam", wd=0.2, depth=2, seed=1)
    recorded(tmp_path / "c", opt="sgd", wd=0.1, depth=3)
    remarks = " ".join(compare([tmp_path], by=["opt"]).remarks)
    assert "Within groups, wd varies too" in remarks
    assert "differ in depth as well as in opt" in remarks


def test_findings_gained_and_lost_are_against_the_first(tmp_path):
    first = recorded(tmp_path / "a")
    bad = recorded(tmp_path / "b", shift=float("nan"), shift_from=300)
    forth, back = compare([first, bad]), compare([bad, first])
    assert "non_finite_loss" in forth.runs[1].gained
    assert "non_finite_loss" in back.runs[1].lost
    assert forth.partings[0].parted_at == 301


def test_the_target_is_what_every_run_reached_and_costs_time(tmp_path):
    comparison = compare([recorded(tmp_path / "a"), recorded(tmp_path / "b", shift=0.2)])
    worst = max(
        outcome.best.value for run in comparison.runs for outcome in run.outcomes if outcome.metric == "val_loss"
    )
    assert comparison.target.value == worst
    steps = [run.reached.step for run in comparison.runs]
    assert steps[0] < steps[1]
    assert comparison.runs[1].reached.seconds == pytest.approx((steps[1] - 1) * 0.01, rel=1e-3)


def test_metrics_of_ones_own_are_compared_in_their_direction(tmp_path):
    comparison = compare([recorded(tmp_path / "a"), recorded(tmp_path / "b", lr=0.1, shift=0.2)], metric="val_f1")
    assert comparison.groups[0].best_run == str(tmp_path / "a")
    found = [one.result for one in comparison.contrasts if one.metric == "val_f1"]
    assert found == ["worse", "worse"]


def test_mistakes_name_what_there_is(tmp_path):
    first, second = recorded(tmp_path / "a", lr=1.0), recorded(tmp_path / "b", lr=2.0)
    with pytest.raises(UsageError, match="--by lrr: no run has this setting; did you mean 'lr'"):
        compare([first, second], by=["lrr"])
    with pytest.raises(UsageError, match="--metric val_los: not every run has it; did you mean 'val_loss'"):
        compare([first, second], metric="val_los")
    with pytest.raises(LogError, match="1 run to compare"):
        compare([first, first])


def test_foreign_logs_are_compared_too(tmp_path):
    for name, shift in (("a", 0.0), ("b", 1.0)):
        lines = [f"{n},{9 / n + shift},{9 / n + shift}" for n in range(1, 41)]
        (tmp_path / f"{name}.csv").write_text("step,train_loss,val_loss\n" + "\n".join(lines) + "\n")
    comparison = compare([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert comparison.remarks[0].startswith("No settings were recorded")
    assert comparison.partings[0].parted_at is not None


def test_the_document_conforms_to_its_schema_and_is_ascii(tmp_path):
    bad = recorded(tmp_path / "b\x1b[31m<b>", shift=float("nan"), shift_from=300, note="\u202e")
    text = render_json(compare([recorded(tmp_path / "a"), bad]))
    assert text.isascii()
    jsonschema.validate(msgspec.json.decode(text), schema())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_page_and_nothing_steers_the_terminal(tmp_path, width):
    bad = recorded(tmp_path / "b\x1b[31m", shift=0.2, lr=0.5, note="\u202e\x1b[2J", long="word " * 30)
    text = render(compare([recorded(tmp_path / "a"), bad]), page=Page(width)).plain
    assert max(map(len, text.splitlines())) <= width
    assert not {"\x1b", "\u202e"}.intersection(text)


def test_compare_is_part_of_the_package(tmp_path):
    comparison = lossdoctor.compare([recorded(tmp_path / "a"), recorded(tmp_path / "b")])
    assert isinstance(comparison, lossdoctor.Comparison)
