"""`lossdoctor rules`: list, explain, check."""

import json

import pytest

from lossdoctor.rulebook import rules_directory

RULE = """
id       = "mine"
title    = "My own rule"
family   = "learning"
category = "undertrained"
severity = "warning"
kind     = "state"
clock    = "step"
when     = "train_loss > too_high"
message  = "The loss is {loss:.1f}."
explain  = "What it means."
sources  = ["me"]

[thresholds]
too_high = 3   # from experience;
               # and from a book
other    = 1

[measures]
loss = "train_loss"

[[fixes]]
advice = "Lower it from {loss:.1f}."

[[tests]]
name             = "high"
given.train_loss = "5"
expect.fires_at  = 0

[[tests]]
name             = "low"
given.train_loss = "1x9"
expect.silent    = true

[[tests]]
name             = "no loss"
given.grad_norm  = "1x9"
expect.undecided = true
"""


@pytest.fixture
def mine(workplace):
    (workplace / "mine").mkdir()
    (workplace / "mine/mine.toml").write_text(RULE)
    return workplace / "mine/mine.toml"


def test_every_rule_file_is_listed(call):
    code, out, _ = call("rules", "list")
    assert code == 0
    assert out.splitlines()[0].split() == ["id", "severity", "family", "clock", "title"]
    listed = {line.split()[0] for line in out.splitlines()[1:] if not line.startswith(" ")}
    assert listed == {path.stem for path in rules_directory().glob("*.toml")}


def test_the_list_is_available_as_json_and_as_a_markdown_table(call, mine):
    rules = json.loads(call("rules", "list", "--rules", "mine", "--format", "json")[1])
    assert next(rule for rule in rules if rule["id"] == "mine")["thresholds"] == {"too_high": 3, "other": 1}
    table = call("rules", "list", "--rules", "mine", "--format", "markdown")[1]
    assert "| `mine` | warning | learning | step | My own rule |  |  |  |" in table.splitlines()


def test_a_rule_is_explained_with_its_thresholds_signals_fixes_and_sources(call, mine):
    code, out, _ = call("rules", "explain", "mine", "--rules", "mine")
    assert code == 0
    for line in (
        "mine: My own rule",
        "What it means.",
        "  train_loss > too_high",
        "  too_high  3  from experience; and from a book",
        "  train_loss  training loss; the mean over the micro-batches of an optimizer step",
        "  - Lower it from <loss>. [manual]",
        "  - me",
    ):
        assert line in out.splitlines()


def test_a_threshold_in_force_is_shown_with_its_default(call, mine, workplace):
    (workplace / "lossdoctor.toml").write_text('rules = ["mine"]\n[thresholds]\nmine.too_high = 7\n')
    assert "  too_high  7 (default 3)  from experience; and from a book" in call("rules", "explain", "mine")[1]


def test_every_rule_can_be_explained(call):
    for path in rules_directory().glob("*.toml"):
        code, out, err = call("rules", "explain", path.stem)
        assert (code, err) == (0, "")
        assert out.startswith(f"{path.stem}: ")


def test_an_unknown_rule_gets_a_suggestion(call):
    assert call("rules", "explain", "overfiting") == (
        2,
        "",
        "error: unknown rule 'overfiting'; did you mean 'overfitting'?\n",
    )
    assert "lossdoctor rules list" in call("rules", "explain", "zzz")[2]


def test_a_rule_whose_tests_pass_exits_with_0(call, mine):
    assert call("rules", "check", mine) == (0, "lossdoctor: 1 rule file, 3 tests: all pass\n", "")


def test_a_failing_test_is_named_with_its_file_and_exits_with_1(call, mine):
    mine.write_text(RULE.replace("fires_at  = 0", "fires_at  = 1"))
    code, out, _ = call("rules", "check", "mine")
    first, last = out.splitlines()
    assert code == 1
    assert first.startswith("mine/mine.toml: test 'high': ")
    assert last == "lossdoctor: 1 rule file, 3 tests: 1 problem"


def test_a_rule_file_with_a_typo_is_a_problem_with_a_suggestion(call, mine):
    mine.write_text(RULE.replace("train_loss > too_high", "train_los > too_high"))
    code, out, _ = call("rules", "check", mine)
    assert code == 1
    assert out.startswith("mine/mine.toml: when: unknown name 'train_los'; did you mean 'train_loss'?\n")


def test_a_file_that_is_not_there_exits_with_2(call, workplace):
    assert call("rules", "check", "nowhere.toml") == (2, "", "error: nowhere.toml: no such file or directory\n")
    (workplace / "empty").mkdir()
    assert call("rules", "check", "empty")[0] == 2
