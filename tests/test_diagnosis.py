"""The diagnoser: one evaluator, live and offline; and silence is not health."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.diagnosis import Diagnoser, diagnose
from lossdoctor.plans import Plans
from lossdoctor.rulebook import Rulebook, load_rule
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.info import LayerInfo, ModelInfo, OptimizerInfo, RunInfo, facts
from lossdoctor.runs.tables import Block, Column, Run, Table
from lossdoctor.signals import FACTS, SIGNALS

NAN, INF = float("nan"), float("inf")
BOOK = Rulebook.load()
HEAD = """
id = "{id}"
title = "A test"
family = "stability"
category = "unstable"
severity = "warning"
kind = "state"
clock = "step"
explain = "..."
sources = []
message = "The loss is {{loss:.3g}}."
measures = {{ loss = "otherwise(0, 0)" }}
"""


def book(directory, **rules):
    """A rulebook of rules given as {id: lines of TOML that replace or add to a sound head}."""
    made = {}
    for name, text in rules.items():
        keys = {line.split("=")[0].strip() for line in text.split("[[")[0].splitlines() if "=" in line}
        head = [line for line in HEAD.format(id=name).strip().splitlines() if line.split("=")[0].strip() not in keys]
        path = directory / f"{name}.toml"
        path.write_text("\n".join([*head, text]), encoding="utf-8")
        made[name] = load_rule(path)
    explanations = {name: frozenset(rule.explains) for name, rule in made.items()}
    return Rulebook(made, explanations)


def table(step, **columns):
    return Table({"step": Column(np.asarray(step, float))} | {name: column(values) for name, values in columns.items()})


def column(values):
    if isinstance(values, Column):
        return values
    observed = np.array([one is not None for one in values])
    numbers = np.array([NAN if one is None else one for one in values], dtype=np.float32)
    return Column(numbers, None if observed.all() else observed)


def run_of(steps=None, evaluations=None, layers=None, **info):
    return Run(
        "run",
        Path("run"),
        RunInfo(**info),
        steps or Table(),
        evaluations or Table(),
        layers or Table(),
        warnings=("torn",),
    )


def steps(**columns):
    return table(range(1, len(next(iter(columns.values()))) + 1), **columns)


def observed_in(run, cuts, rules=BOOK):
    diagnoser = Diagnoser(rules, run_facts={}, layers=[layer.name for layer in run.info.model.layers])
    began = [finding for block in run.cut(cuts) for finding in diagnoser.observe(block)]
    return diagnoser, began


# -- findings ---------------------------------------------------------------------------------------------------------


def test_a_finding_says_since_when_how_bad_and_what_to_do(tmp_path):
    rules = book(
        tmp_path,
        high="""
        patience = 2
        when = "train_loss > limit"
        error_when = "train_loss > 8"
        peak = "loss"
        evidence = "train_loss"
        message = "The loss is {loss:.3g}, above {limit}."
        thresholds = { limit = 4 }
        measures = { loss = "train_loss", unknown = "last(grad_norm)", factor = "limit / loss" }
        [[fixes]]
        advice = "Lower it: x {factor:.1f}."
        action = "scale_lr"
        applicability = "safe"
        arguments = { factor = "factor" }
        verify = { when = "train_loss < limit", within = 3 }
        [[fixes]]
        advice = "Only where it is known: {unknown}."
        [[fixes]]
        advice = "Only if small."
        when = "loss < 1"
        """,
    )
    diagnosis = diagnose(run_of(steps(train_loss=[1, 5, 8, 9, 6, 1])), rules)
    (finding,) = diagnosis.findings
    assert (finding.rule, finding.since, finding.detected, finding.until) == ("high", 2, 3, None)
    assert finding.severity == "error"
    assert not finding.resolved
    assert finding.message == "The loss is 8, above 4."
    assert finding.evidence == {"loss": 8.0, "factor": 0.5}
    assert finding.peak == 9
    assert finding.evidence_signal == "train_loss"
    (prescription,) = finding.prescriptions
    assert prescription.advice == "Lower it: x 0.5."
    assert prescription.arguments == {"factor": 0.5}
    assert (prescription.verify, prescription.within) == ("train_loss < limit", 3)
    assert (diagnosis.verdict, diagnosis.category, diagnosis.summary) == ("high", "unstable", finding.message)
    assert (diagnosis.warnings, diagnosis.status) == (["torn"], "finished")


def test_a_state_that_ends_is_resolved_and_an_event_is_not(tmp_path):
    rules = book(tmp_path, state='when = "train_loss > 4"', event='when = "train_loss > 4"\nkind = "event"')
    found = {finding.rule: finding for finding in diagnose(run_of(steps(train_loss=[1, 9, 9, 1, 1])), rules).findings}
    assert (found["state"].resolved, found["state"].severity, found["state"].until) == (True, "info", 3)
    assert (found["event"].resolved, found["event"].severity, found["event"].until) == (False, "warning", 3)


def test_a_state_that_holds_at_the_end_has_no_end(tmp_path):
    rules = book(tmp_path, state='when = "train_loss > 4"', event='when = "train_loss > 4"\nkind = "event"')
    found = {finding.rule: finding for finding in diagnose(run_of(steps(train_loss=[1, 9, 9])), rules).findings}
    assert (found["state"].until, found["event"].until) == (None, 3)


def test_the_first_variant_that_holds_gives_message_and_fixes(tmp_path):
    rules = book(
        tmp_path,
        high="""
        when = "train_loss > 4"
        kind = "event"
        [[variants]]
        when = "train_loss > 8"
        message = "very high"
        [[variants.fixes]]
        advice = "stop"
        [[variants]]
        when = "train_loss > 6"
        message = "rather high"
        [[fixes]]
        advice = "wait"
        """,
    )
    said = {
        loss: [
            (one.message, [fix.advice for fix in one.prescriptions])
            for one in diagnose(run_of(steps(train_loss=[loss])), rules).findings
        ]
        for loss in (9, 7, 5)
    }
    assert said == {9: [("very high", ["stop"])], 7: [("rather high", ["wait"])], 5: [("The loss is 0.", ["wait"])]}


def test_layers_are_named_worst_first(tmp_path):
    rules = book(
        tmp_path,
        big="""
        clock = "interval"
        each = "layer"
        when = "layer_grad_norm > 2"
        peak = "norm"
        measures = { norm = "layer_grad_norm", loss = "norm" }
        """,
    )
    layers = Table(
        {
            "step": Column(np.array([2.0, 4.0])),
            "layer_grad_norm": Column(np.array([[1, 3, 5], [1, 9, 5]], dtype=np.float32)),
        }
    )
    model = ModelInfo(layers=[LayerInfo(name=name, type="Linear", parameters=1, trainable=1) for name in "abc"])
    (finding,) = diagnose(run_of(steps(train_loss=[1] * 4), layers=layers, model=model), rules).findings
    assert finding.layers == ["b", "c"]
    assert finding.evidence == {"norm": 5.0, "loss": 5.0}
    assert finding.peak == 9


def test_a_rule_ticks_only_where_all_it_needs_was_observed(tmp_path):
    rules = book(
        tmp_path,
        both='when = "count(train_loss > 0) >= 2 and grad_norm > 0"\nmeasures = { loss = "count(train_loss > 0)" }',
    )
    run = run_of(steps(train_loss=[1, 1, NAN, 1, None], grad_norm=[1, None, 1, 1, 1]))
    (finding,) = diagnose(run, rules).findings
    assert (finding.since, finding.evidence) == (4, {"loss": 2.0})


def test_findings_that_began_are_returned_once_and_in_order(tmp_path):
    rules = book(tmp_path, b='when = "train_loss > 4"\nkind = "event"', a='when = "train_loss > 6"\nkind = "event"')
    run = run_of(steps(train_loss=[1, 5, 9, 1, 9]))
    for cuts in ([], [1, 2, 3, 4], [3]):
        _, began = observed_in(run, cuts, rules)
        assert [(finding.rule, finding.detected) for finding in began] == [("b", 2), ("a", 3), ("a", 5), ("b", 5)]


def test_causes_come_first_and_explain_the_rest(tmp_path):
    rules = book(
        tmp_path,
        cause='when = "train_loss > 6"\nexplains = ["effect"]',
        effect='when = "train_loss > 4"\nseverity = "error"',
    )
    diagnosis = diagnose(run_of(steps(train_loss=[1, 5, 9])), rules)
    assert [(one.rule, one.explained_by) for one in diagnosis.findings] == [("cause", None), ("effect", "cause")]
    assert diagnosis.verdict == "cause"


# -- passed, undecided, verdict ---------------------------------------------------------------------------------------


def undecided(directory, when, run, **more):
    lines = "\n".join([f'when = "{when}"', *(f"{key} = {value}" for key, value in more.items())])
    diagnosis = diagnose(run, book(directory, rule=lines))
    assert diagnosis.findings == []
    return diagnosis.undecided[0] if diagnosis.undecided else None


def test_a_rule_without_its_signal_is_undecided_and_says_how_to_record_it(tmp_path):
    why = undecided(tmp_path, "val_loss > 4", run_of(steps(train_loss=[1] * 9)), clock='"evaluation"')
    assert why.reason == "no val_loss was recorded; report it with monitor.evaluation(loss=...)"
    assert why.missing == ["val_loss"]


def test_all_signals_that_are_missing_are_named_by_what_to_record(tmp_path):
    why = undecided(tmp_path, "mean_grad_norm > 4 and max_train_loss_non_finite > 0", run_of(), clock='"interval"')
    assert why.missing == ["grad_norm", "train_loss"]
    assert why.reason.startswith("no grad_norm and no train_loss was recorded; ")


def test_signals_that_never_meet_are_named(tmp_path):
    run = run_of(steps(train_loss=[1, None], grad_norm=[None, 1]))
    why = undecided(tmp_path, "train_loss > 4 and grad_norm > 4", run)
    assert why.reason == "grad_norm and train_loss were never observed together"


@pytest.mark.parametrize(
    ("when", "losses", "patience", "reason"),
    [
        ("train_loss > 4", [1, 1], 3, "too short: 2 step ticks were seen, 2 could be decided"),
        ("mean(train_loss, 9) > 4", [1], 1, "too short: 1 step tick was seen, 0 could be decided"),
        ("train_loss > classes", [1, 1], 1, "classes is not known"),
        ("train_loss > classes and total_steps > 1", [1, 1], 1, "classes and total_steps are not known"),
    ],
)
def test_a_rule_that_saw_too_little_is_undecided_and_says_why(tmp_path, when, losses, patience, reason):
    assert undecided(tmp_path, when, run_of(steps(train_loss=losses)), patience=patience).reason == reason


def test_a_rule_passes_once_it_was_decided_as_often_as_its_patience_asks(tmp_path):
    rules = book(tmp_path, rule='when = "train_loss > 4"\npatience = 3')
    assert diagnose(run_of(steps(train_loss=[1, 1, NAN, 1])), rules).passed == ["rule"]
    assert diagnose(run_of(steps(train_loss=[1, 1, NAN])), rules).passed == []


def test_a_training_that_ended_in_its_first_step_is_judged_by_facts_alone():
    ended = RunInfo(started=1.0, status="crashed", exception="IndexError: Target 10 is out of bounds.")
    nothing = Table({"step": Column(np.empty(0))})
    diagnosis = diagnose(Run("", Path(), ended, nothing, nothing), BOOK)
    assert diagnosis.verdict == "invalid_labels"
    assert "before a step was done" in diagnosis.summary
    assert "invalid_labels" not in {*diagnosis.passed, *(why.rule for why in diagnosis.undecided)}
    # What needs a signal stays undecided, whatever stands in for it where it is missing.
    assert [finding.rule for finding in diagnosis.findings if finding.severity != "info"] == ["invalid_labels"]
    begun = diagnose(Run("", Path(), ended, table([1.0], train_loss=[1.0]), nothing), BOOK)
    assert "before a step was done" not in begun.summary


def test_facts_of_the_run_can_decide(tmp_path):
    rules = book(tmp_path, rule='when = "train_loss > classes"\nkind = "event"')
    assert diagnose(run_of(steps(train_loss=[5]), classes=4), rules).verdict == "rule"
    assert diagnose(run_of(steps(train_loss=[5]), classes=6), rules).passed == ["rule"]


def test_what_is_learned_of_a_run_on_the_way_decides_from_then_on(tmp_path):
    rules = book(tmp_path, rule='when = "train_loss > classes"\nkind = "event"\napplies_when = "outputs > 1"')
    first, second = run_of(steps(train_loss=[5, 5])).cut([1])
    diagnoser = Diagnoser(rules, run_facts={})
    assert diagnoser.observe(first) == []
    diagnoser.learn({"classes": 4.0})
    assert [finding.rule for finding in diagnoser.observe(second)] == ["rule"]
    diagnoser.learn({"outputs": 1.0})
    assert diagnoser.diagnosis().findings == [], "a rule that turns out not to apply says nothing"


def test_every_rule_is_found_passed_or_undecided():
    for run in (run_of(), run_of(steps(train_loss=[1, NAN, 2])), synthetic(3)):
        diagnosis = diagnose(run, BOOK)
        told = [
            *{one.rule for one in diagnosis.findings},
            *diagnosis.passed,
            *(one.rule for one in diagnosis.undecided),
        ]
        known = facts(run.info)
        assert sorted(told) == [rule.id for rule in BOOK.rules.values() if Plans.of(BOOK).applies(rule, known)]


def test_a_rule_that_does_not_apply_is_neither_passed_nor_undecided(tmp_path):
    rules = book(tmp_path, rule='when = "train_loss > 4"\napplies_when = "classes > 1"')

    def told(**info):
        diagnosis = diagnose(run_of(steps(train_loss=[1, 1]), **info), rules)
        return diagnosis.passed, diagnosis.undecided

    assert told(classes=1) == ([], [])
    assert told(classes=2) == (["rule"], [])
    assert told() == (["rule"], []), "what is not known to be false may apply"


def test_an_empty_run_is_undecided_and_not_healthy():
    diagnosis = diagnose(run_of(), BOOK)
    assert (diagnosis.verdict, diagnosis.category, diagnosis.steps) == ("undecided", "undecided", 0)
    assert "no train_loss was recorded" in diagnosis.summary


def test_a_run_is_healthy_with_its_reasons(tmp_path):
    rules = book(tmp_path, rule='when = "train_loss > 4"\nvital = true')
    diagnosis = diagnose(run_of(steps(train_loss=np.linspace(3, 1, 200), learning_rate=[0.1] * 200)), rules)
    assert diagnosis.verdict == diagnosis.category == "healthy"
    assert diagnosis.summary == "training loss fell from 2.99 to 1.04; LR: constant 0.1"


def test_a_diagnosis_carries_what_is_known_about_the_run():
    act = Intervention(id=1, step=5, time=0, rule="cause", action="scale_lr", reason="...")
    made = Run(
        "name", Path("p"), RunInfo(config={"a": 1}, status="crashed"), steps(train_loss=[1, 2]), interventions=(act,)
    )
    diagnosis = diagnose(made, BOOK)
    assert (diagnosis.run, diagnosis.status, diagnosis.config) == ("name", "crashed", {"a": 1})
    assert (diagnosis.steps, diagnosis.evaluations, diagnosis.interventions) == (2, 0, [act])


def test_rules_on_the_run_clock_are_judged_at_the_end_and_may_count_ticks(tmp_path):
    rules = book(tmp_path, never='clock = "run"\nwhen = "evaluations == 0 and steps >= 3"\nkind = "event"')
    diagnoser, began = observed_in(run_of(steps(train_loss=[1, 2, 3])), [1, 2], rules)
    assert began == []
    assert [one.rule for one in diagnoser.diagnosis().findings] == ["never"]
    assert (diagnoser.ticks("never"), diagnoser.active("never"), diagnoser.verified("never", "x")) == (0, False, None)
    with_evaluation = run_of(steps(train_loss=[1, 2, 3]), table([3], val_loss=[1]))
    assert diagnose(with_evaluation, rules).findings == []


# -- what the remedies ask --------------------------------------------------------------------------------------------


def test_a_fix_is_verified_at_the_latest_tick(tmp_path):
    rules = book(
        tmp_path,
        high='when = "train_loss > 4"\n[[fixes]]\nadvice = "x"\nverify = { when = "train_loss < 2", within = 3 }',
    )
    diagnoser = Diagnoser(rules, run_facts={})
    seen = []
    for number, loss in enumerate([1, 9, 3, 1, None], start=1):
        diagnoser.observe(Block(table([number], train_loss=[loss])))
        seen.append((diagnoser.ticks("high"), diagnoser.active("high"), diagnoser.verified("high", "train_loss < 2")))
    assert seen == [(1, False, True), (2, True, False), (3, False, False), (4, False, True), (4, False, True)]
    assert diagnoser.verified("high", "another condition") is None


# -- one evaluator ----------------------------------------------------------------------------------------------------


def anything(rng, shape):
    """Values of a signal of which only the name is known: small or large, steady, rising, noisy, or now and then 1."""
    scale = 10.0 ** rng.integers(-4, 3)
    return {
        "steady": np.full(shape, scale),
        "one": np.ones(shape),
        "none": np.zeros(shape),
        "rising": scale * np.cumsum(np.ones(shape), axis=0),
        "noisy": scale * np.exp(rng.standard_normal(shape)),
        "seldom": (rng.random(shape) < 0.1).astype(np.float64),
    }[rng.choice(["steady", "one", "none", "rising", "noisy", "seldom"])]


def synthetic(seed):
    """A run with one of many courses, gaps, non-finite values, evaluations at odd moments and layers."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 260))
    course = rng.choice(["falls", "climbs", "flat", "spikes", "breaks"])
    x = np.arange(rows) / max(rows - 1, 1)
    level = {
        "falls": 2 * np.exp(-3 * x),
        "climbs": 2 * np.exp(-5 * x) + 4 * np.maximum(x - 0.5, 0),
        "flat": np.full(rows, 2.0),
        "spikes": 2 * np.exp(-3 * x) + 9 * (rng.random(rows) < 0.03),
        "breaks": np.where(x > 0.8, NAN, 2 - x),
    }[course]

    def observed(values, share):
        values = np.asarray(values).astype(np.float32)
        values[rng.random(values.shape) < 0.01] = rng.choice([NAN, INF, -INF])
        mask = rng.random(values.shape) < share
        return Column(np.where(mask, values, np.float32(NAN)), mask)

    step = np.cumsum(rng.integers(1, 3, rows)).astype(np.float64)
    recorded = {
        "train_loss": level + 0.05 * rng.standard_normal(rows),
        "learning_rate": 0.1 * np.cos(x),
        "grad_norm": np.exp(rng.standard_normal(rows) + 6 * x * (course == "climbs")),
        "grad_norm_clipped": np.ones(rows) / 4096,
        "update_ratio": np.full(rows, 10.0 ** rng.integers(-7, -1)),
        "skipped": rng.random(rows) < rng.choice([0.0, 0.1, 0.9]),
        "loss_scale": np.full(rows, 65536.0),
        "data_wait": rng.random(rows),
        "step_time": np.ones(rows),
    }
    for name, signal in SIGNALS.items():
        if signal.source == "step" and name not in {*recorded, "step", "time"}:
            recorded[name] = anything(rng, rows)
    kept = [name for name in recorded if rng.random() < 0.8]
    share = rng.choice([1.0, 0.7])
    at = np.sort(rng.integers(0, step[-1] + 2, rng.integers(0, 20))).astype(np.float64)
    validation = np.interp(at, step, np.nan_to_num(level, nan=3.0)) + np.maximum(at / step[-1] - 0.4, 0) * rng.choice(
        [0, 2]
    )
    samples = step[:: int(rng.integers(1, 12))]
    model = ModelInfo(layers=[LayerInfo(name=f"l{n}", type="Linear", parameters=1, trainable=1) for n in range(4)])
    per_layer = 10.0 ** -(np.arange(4.0)[::-1] * rng.choice([0, 2])) * np.exp(rng.standard_normal((len(samples), 4)))
    return Run(
        "synthetic",
        Path("synthetic"),
        RunInfo(
            model=model,
            total_steps=int(step[-1]),
            optimizers=[OptimizerInfo(type="SGD", scale_invariant=bool(rng.random() < 0.5))],
            loss_scaling=True,
        ),
        Table({"step": Column(step)} | {name: observed(recorded[name], share) for name in kept}),
        Table(
            {
                "step": Column(at),
                "val_loss": observed(validation, share),
                "val_accuracy": observed(x[:1] + 0 * at, share),
            }
        ),
        Table(
            {"step": Column(samples), "layer_grad_to_param": observed(per_layer, share)}
            | {
                name: observed(anything(rng, per_layer.shape), share)
                for name in ("layer_dead_share", "layer_saturated_share")
            }
        ),
    )


def known(seed):
    """Facts of such a run: most of them, and any."""
    rng = np.random.default_rng(seed)
    return {name: float(rng.choice([0, 1, 1, 4, 1000])) for name in FACTS if rng.random() < 0.8}


def judged(seed, cuts):
    run = synthetic(seed)
    diagnoser = Diagnoser(
        BOOK,
        run_facts=known(seed) | {"total_steps": float(run.info.total_steps)},
        layers=[layer.name for layer in run.info.model.layers],
    )
    for block in run.cut(cuts):
        diagnoser.observe(block)
    return diagnoser.diagnosis()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 260), max_size=8))
def test_live_blocks_give_the_same_diagnosis_as_one_block(seed, cuts):
    rows = len(synthetic(seed).steps)
    whole = msgspec.json.encode(judged(seed, []))
    assert msgspec.json.encode(judged(seed, sorted({cut for cut in cuts if cut < rows}))) == whole
    assert msgspec.json.encode(judged(seed, list(range(8, rows, 16)))) == whole


@pytest.mark.parametrize("seed", range(6))
def test_row_by_row_gives_the_same_diagnosis_as_one_block(seed):
    rows = len(synthetic(seed).steps)
    assert msgspec.json.encode(judged(seed, list(range(1, rows)))) == msgspec.json.encode(judged(seed, []))


def test_the_synthetic_runs_make_most_rules_fire():
    fired = {finding.rule for seed in range(60) for finding in judged(seed, []).findings}
    assert len(fired) > 0.6 * len(BOOK.rules)  # the others need a course of their own, or facts that fit together


def test_blocks_of_any_size_cover_a_run():
    run = synthetic(1)
    sizes = [[len(block.steps) for block in run.blocks(rows)] for rows in (1, 7, 10**6)]
    assert {sum(size) for size in sizes} == {len(run.steps)}
    assert [sum(len(block.evaluations) for block in run.blocks(7))] == [len(run.evaluations)]
    assert list(itertools.chain(*sizes))
