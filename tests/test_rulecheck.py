"""Tests inside rule files: the notation of series, and that a test which fails is reported."""

import math

import pytest

from lossdoctor.rulecheck import check_rules, series

RULE = """
id = "sample"
title = "A test"
family = "stability"
category = "unstable"
severity = "warning"
kind = "state"
clock = "step"
explain = "..."
sources = []
patience = 2
when = "train_loss > 2 and otherwise(grad_norm, 0) < otherwise(classes, 5)"
error_when = "train_loss > 8"
message = "The loss is {loss:.3g}."
measures = { loss = "train_loss" }

[[fixes]]
advice = "Lower it by {factor:.1f}."
action = "scale_lr"
arguments = { factor = "loss / 10" }
"""
FIRING = '[[tests]]\nname = "fires"\ngiven.train_loss = "1x3 5x3"\nexpect.fires_at = 5\n'
SILENT = '[[tests]]\nname = "silent"\ngiven.train_loss = "1x9"\nexpect.silent = true\n'
MISSING = '[[tests]]\nname = "missing"\ngiven.grad_norm = "1x9"\nexpect.undecided = true\n'


def problems(tmp_path, *tests, rule=RULE):
    path = tmp_path / "sample.toml"
    path.write_text(rule + "\n".join(tests), encoding="utf-8")
    found = check_rules([path])
    assert all(one.startswith(f"{tmp_path.name}/sample.toml: ") and "\n" not in one for one in found)
    return [one.removeprefix(f"{tmp_path.name}/sample.toml: ") for one in found]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", [1]),
        ("1 -2 .5 1e3", [1, -2, 0.5, 1000]),
        ("1+2x3", [1, 3, 5, 7]),
        ("1-2x2", [1, -1, -3]),
        ("-1+0.5x2", [-1, -0.5, 0]),
        ("3x2", [3, 3, 3]),
        ("1*2x3", [1, 2, 4, 8]),
        ("8*0.5x2", [8, 4, 2]),
        ("1x0", [1]),
        ("1e-3+1e-3x1", [0.001, 0.002]),
        ("", []),
        ("  7   8 ", [7, 8]),
    ],
)
def test_a_series_is_written_as_in_promtool(text, values):
    assert series(text) == pytest.approx(values)


def test_an_underscore_is_a_missing_value():
    assert [math.isnan(value) for value in series("1 _ 2 _x3")] == [False, True, False, True, True, True]


def test_a_geometric_ramp_may_leave_the_range_of_numbers():
    assert series("1*10x400")[-1] == math.inf


@pytest.mark.parametrize("text", ["a", "1+2", "1+2x", "1+2x-3", "x3", "1//2x3", "1x3x4", "nan", "inf", "1,2"])
def test_what_is_no_series_is_refused(text):
    with pytest.raises(ValueError, match="is not a"):
        series(text)


@pytest.mark.parametrize("text", ["1x99999", "1x9999 1x9999", "_x99999999", "1x" + "9" * 5000])
def test_a_series_is_bounded(text):
    with pytest.raises(ValueError, match="more than 10000 ticks"):
        series(text)


def test_a_rule_with_all_three_kinds_of_test_passes(tmp_path):
    assert problems(tmp_path, FIRING, SILENT, MISSING) == []


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((SILENT, MISSING), "no firing test (expect.fires_at)"),
        ((FIRING, MISSING), "no silent test (expect.silent)"),
        ((FIRING, SILENT), "no missing-signal test (expect.undecided)"),
    ],
)
def test_each_kind_of_test_is_asked_for(tmp_path, kept, said):
    assert problems(tmp_path, *kept) == [said]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('given.train_loss = "1x3 5x3"\nexpect.fires_at = 4', "fires_at: expected 4, found 5"),
        ('given.train_loss = "1x9"\nexpect.fires_at = 4', "expected to fire at tick 4, but it was silent"),
        ('given.grad_norm = "1x9"\nexpect.fires_at = 4', "expected to fire at tick 4, but it was undecided"),
        ('given.train_loss = "5x9"\nexpect.silent = true', "expected silence, but it fired at tick 1: The loss is 5."),
        ('given.grad_norm = "5x9"\nexpect.silent = true', "expected silence, but it was undecided"),
        ('given.train_loss = "5x9"\nexpect.undecided = true', "expected undecided, but it fired"),
        ('given.train_loss = "1x9"\nexpect.undecided = true', "expected undecided, but it was decided"),
        ('given.train_loss = "5x3 1x3"\nexpect.fires_at = 1\nexpect.until = 2', "until: expected 2, found 3"),
        ('given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.until = 2', "until: expected 2, found None"),
        (
            'given.train_loss = "5x3 1x3 5x3"\nexpect.fires_at = 1\nexpect.episode = 2',
            "fires_at: expected 1, found 9",
        ),
        ('given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.episode = 2', "episode: expected 2, found 1"),
        (
            'given.train_loss = "9x3"\nexpect.fires_at = 1\nexpect.severity = "info"',
            "severity: expected info, found error",
        ),
        (
            'given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.message = "6"',
            "message: expected '6' in 'The loss is 5.'",
        ),
        (
            'given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.advice = "up"',
            "advice: expected 'up' in 'Lower it by 0.5.'",
        ),
        (
            'given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.action = "rewind"',
            "action: expected 'rewind' among ['scale_lr']",
        ),
        (
            'given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.arguments.factor = 0.6',
            "arguments.factor: expected 0.6, found 0.5",
        ),
        (
            'given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.arguments.before = 3',
            "arguments.before: expected 3, found None",
        ),
        ('given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.layers = [0]', "layers: expected [0], found []"),
        (
            'given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.mesage = "5"',
            "expect: unknown key 'mesage'; did you mean 'message'?",
        ),
        ('given.train_loss = "5x3"\nexpect.fires_at = 1\nexpect.message = 5', "expect.message: 5 is not str"),
        ('given.train_loss = "5x3"\nexpect.message = "5"', "expect: says neither fires_at, silent nor undecided"),
        (
            'given.train_los = "5x3"\nexpect.silent = true',
            "given: unknown signal 'train_los'; did you mean 'train_loss'?",
        ),
        ('given.train_loss = "5+x3"\nexpect.silent = true', "'5+x3' is not a+bxn"),
        (
            'given.train_loss = "5x3"\ngiven.grad_norm = "1x4"\nexpect.silent = true',
            "given: series of different length",
        ),
        ('given.train_loss = ["5x3", "5x4"]\nexpect.silent = true', "given.train_loss: layers of different length"),
        ("given = {}\nexpect.silent = true", "given: series of different length"),
        (
            'given.train_loss = "5x3"\nfacts.clases = 3\nexpect.silent = true',
            "facts: unknown fact 'clases'; did you mean 'classes'?",
        ),
        ('given.train_loss = "5x3"\ngiven.step = "1 _ 2 3"\nexpect.silent = true', "given.step: every tick has a step"),
    ],
)
def test_a_test_that_fails_is_reported_with_its_name(tmp_path, lines, said):
    found = problems(tmp_path, FIRING, SILENT, MISSING, f'[[tests]]\nname = "odd"\n{lines}')
    assert len(found) == 1
    assert found[0].startswith("test 'odd': ")
    assert said in found[0]


def test_everything_a_test_can_expect_can_hold(tmp_path):
    sound = """
[[tests]]
name = "all of it"
given.train_loss = "1 5 9 1 1"
given.step = "10+10x4"
given.grad_norm = "7x4"
facts.classes = 8
expect.fires_at = 2
expect.until = 2
expect.severity = "info"
expect.message = "is 9"
expect.advice = "0.9"
expect.action = "scale_lr"
expect.arguments = { factor = 0.9 }
expect.layers = []
"""
    assert problems(tmp_path, FIRING, SILENT, MISSING, sound) == []


def test_a_wrong_file_does_not_hide_the_problems_of_others(tmp_path):
    (tmp_path / "broken.toml").write_text("id =")
    (tmp_path / "sample.toml").write_text(RULE)
    found = check_rules([tmp_path / "broken.toml", tmp_path / "sample.toml"])
    assert "not TOML" in found[0]
    assert len(found) == 4


def test_layers_of_a_test_are_numbered(tmp_path):
    rule = """
id = "sample"
title = "A test"
family = "stability"
category = "unstable"
severity = "warning"
kind = "state"
clock = "interval"
each = "layer"
explain = "..."
sources = []
when = "layer_grad_norm > 2 and layer_depth > 0.2"
message = "It is {norm:.3g}."
peak = "norm"
measures = { norm = "layer_grad_norm" }
"""
    tests = """
[[tests]]
name = "fires"
given.layer_grad_norm = ["9x2", "3x2", "1 1 5"]
expect.fires_at = 0
expect.layers = [2, 1]
expect.message = "3"
[[tests]]
name = "silent"
given.layer_grad_norm = ["9x2", "1x2"]
expect.silent = true
[[tests]]
name = "missing"
given.median_train_loss = "9x2"
expect.undecided = true
"""
    assert problems(tmp_path, tests, rule=rule) == []
