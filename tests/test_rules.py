"""Laws over every rule that comes with lossdoctor."""

import re
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.diagnosis import diagnose
from lossdoctor.rulebook import ACTIONS, Rulebook, rules_directory
from lossdoctor.rulecheck import check_rule
from lossdoctor.runs.info import ModelInfo, OptimizerInfo, RunInfo
from lossdoctor.runs.tables import Column, Run, Table

BOOK = Rulebook.load()
RULES = list(BOOK.rules.values())
IDS = [rule.id for rule in RULES]
every_rule = pytest.mark.parametrize("rule", RULES, ids=IDS)
CATALOGUE = Path(__file__).parents[2] / "shared" / "CATALOGUE.md"

JUDGES_THE_LEVEL = {"underfitting"}
"""Rules that compare the loss with its start, so that an offset matters."""


def all_fixes(rule):
    return [*rule.fixes, *(fix for variant in rule.variants for fix in variant.fixes)]


@every_rule
def test_the_tests_in_a_rule_file_pass(rule):
    assert check_rule(rule) == []


@every_rule
def test_a_rule_explains_only_what_there_is(rule):
    unknown = {*rule.explains} - {*IDS}
    if unknown and not CATALOGUE.exists():
        pytest.skip("the catalogue of planned rules is not at hand")
    planned = set(re.findall(r"[a-z][a-z_]+", CATALOGUE.read_text(encoding="utf-8"))) if unknown else set()
    assert not unknown - planned
    assert len({*rule.explains}) == len(rule.explains)


@every_rule
def test_a_fix_names_a_known_action_and_says_something(rule):
    fixes = all_fixes(rule)
    assert fixes, "a finding without a fix helps nobody"
    for fix in fixes:
        assert fix.action is None or fix.action in ACTIONS
        assert len(fix.advice) > 10
        assert fix.advice.endswith((".", ")"))


@every_rule
def test_an_explanation_says_what_why_and_when_it_is_a_false_alarm(rule):
    paragraphs = [paragraph.split(":")[0] for paragraph in rule.explain.strip().split("\n\n")]
    assert paragraphs[0] == "What it means"
    assert "Why it matters" in paragraphs
    if rule.severity != "benign":
        assert {"When it is a false alarm", "Look-alikes"} & {*paragraphs}


@every_rule
def test_a_rule_names_its_sources(rule):
    assert rule.sources
    assert all(len(source) > 5 for source in rule.sources)


@every_rule
def test_a_message_states_a_fault_in_a_sentence(rule):
    for message in (rule.message, *(variant.message for variant in rule.variants)):
        assert message[0].isupper() or message[0] == "{" or message.split("_")[0] in {"val", "train"}
        assert message.endswith(".")
        assert "{" in message, "with its numbers"


@every_rule
def test_every_threshold_and_measure_is_used(rule):
    text = (rules_directory() / f"{rule.id}.toml").read_text(encoding="utf-8")
    text = re.sub(r"#.*", "", text.split("[[tests]]")[0])
    for name in (*rule.thresholds, *rule.measures):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is defined but not used"


@every_rule
def test_a_drawn_signal_is_one_the_rule_may_see(rule):
    assert rule.evidence is None or any(
        name.endswith(rule.evidence) or name.startswith("layer_") for name in rule.signals | rule.optional
    )


def test_no_health_without_the_rules_that_matter():
    assert {rule.id for rule in RULES if rule.vital} >= {"non_finite_loss", "divergence", "not_learning"}


# -- the scale law ----------------------------------------------------------------------------------------------------

ROWS = 600
COURSES = {
    "falls": lambda x, rng: 2 * np.exp(-4 * x),
    "climbs back": lambda x, rng: 2 * np.exp(-6 * x) + 1.5 * np.maximum(x - 0.5, 0) * 2,
    "never moves": lambda x, rng: 2 + 0 * x,
    "stands still": lambda x, rng: np.maximum(2 - 8 * x, 0.5),
    "crawls": lambda x, rng: 2 - 0.5 * x,
    "spikes": lambda x, rng: 2 * np.exp(-4 * x) + 20 * (rng.random(len(x)) < 0.01),
    "breaks": lambda x, rng: np.where(x > 0.7, np.nan, 2 - x),
}


def course(name, factor, offset):
    rng = np.random.default_rng(11)
    x = np.arange(ROWS) / ROWS
    train = COURSES[name](x, rng) + 0.02 * rng.standard_normal(ROWS)
    at = np.arange(30.0, ROWS + 1, 30)
    validation = np.interp(at, x * ROWS, np.nan_to_num(COURSES[name](x, np.random.default_rng(1)), nan=3.0))
    validation = np.minimum(validation, 3) + 1.5 * np.maximum(at / ROWS - 0.5, 0) + 0.003 * rng.standard_normal(len(at))
    ratio = 1e-5 if name == "crawls" else 0.02
    return Run(
        name,
        Path(name),
        RunInfo(total_steps=ROWS, model=ModelInfo(), optimizers=[OptimizerInfo(type="SGD")]),
        Table(
            {
                "step": Column(np.arange(1.0, ROWS + 1)),
                "train_loss": Column(factor * train + offset),
                "learning_rate": Column(np.full(ROWS, 0.1)),
                "grad_norm": Column(np.exp(0.1 * rng.standard_normal(ROWS) + x)),
                "update_ratio": Column(np.full(ROWS, ratio)),
            }
        ),
        Table({"step": Column(at), "val_loss": Column(factor * validation + offset)}),
    )


def told(run, without=frozenset()):
    findings = diagnose(run, BOOK).findings
    return sorted(
        (one.rule, one.since, one.detected, one.until or 0.0, one.severity)
        for one in findings
        if one.rule not in without
    )


@pytest.mark.parametrize("factor", [2.0**-10, 0.37, 1000.0])
@pytest.mark.parametrize("name", COURSES)
def test_the_unit_of_the_loss_does_not_matter(name, factor):
    assert told(course(name, factor, 0.0)) == told(course(name, 1.0, 0.0))


@pytest.mark.parametrize("offset", [-10.0, 5.0])
@pytest.mark.parametrize("name", COURSES)
def test_an_offset_of_the_loss_does_not_matter(name, offset):
    assert told(course(name, 3.0, offset), JUDGES_THE_LEVEL) == told(course(name, 1.0, 0.0), JUDGES_THE_LEVEL)


def test_the_courses_make_the_rules_on_losses_fire():
    fired = {rule for name in COURSES for rule, *_ in told(course(name, 1.0, 0.0))}
    assert fired >= {"divergence", "overfitting", "loss_spike", "non_finite_loss", "not_learning"}


def test_thresholds_can_be_swept():
    run = course("climbs back", 1.0, 0.0)
    lenient = Rulebook.load((), {"divergence.max_lost": 100.0})
    assert "divergence" in {one.rule for one in diagnose(run, BOOK).findings}
    assert "divergence" not in {one.rule for one in diagnose(run, lenient).findings}
