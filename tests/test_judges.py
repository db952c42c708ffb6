"""Rules with different required signals share what they can, and nobody can tell."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.clocks import Ticks
from lossdoctor.judges import Judges
from lossdoctor.plans import GroupPlan, Plans
from lossdoctor.rulebook import Rulebook

NAN = float("nan")
BOOK = Rulebook.load()
ON_STEPS = [rule for rule in BOOK.rules.values() if rule.clock == "step"]
BY_SIGNALS = {}
for _rule in ON_STEPS:
    BY_SIGNALS.setdefault(_rule.signals, []).append(_rule)
NAMES = sorted({"step"}.union(*(rule.signals | rule.optional for rule in ON_STEPS)))
FACTS = {"classes": 10.0, "total_steps": 400.0}


def ticks_of(seed, rows, missing):
    """Signals that jump, each missing now and then or from some row on."""
    rng = np.random.default_rng(seed)
    signals = {}
    for name in NAMES:
        values = np.exp(rng.standard_normal(rows)) * np.where(rng.random(rows) < 0.02, 1e4, 1.0)
        values = np.round(values) if rng.random() < 0.3 else values
        kind = rng.integers(0, 4)
        if kind == 1:
            values[rng.random(rows) < missing] = NAN
        elif kind == 2:
            values[rng.integers(0, rows) :] = NAN
        elif kind == 3:
            values = np.broadcast_to(NAN, rows)
        signals[name] = values
    signals["step"] = np.arange(1.0, rows + 1)
    return Ticks(signals["step"], signals)


def told(judges):
    """What became of every rule, as text in which NaN equals NaN."""
    return {
        state.rule.id: (state.ticks, state.tracker.decided, [repr(one) for one in state.tracker.episodes])
        for group in judges.groups
        for state in group.states
    } | {f"{state.rule.id}?": group.undecided(state) for group in judges.groups for state in group.states}


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.5]), st.lists(st.integers(1, 299), max_size=5))
def test_rules_that_share_statistics_find_what_each_finds_alone(seed, missing, cuts):
    ticks = ticks_of(seed, 300, missing)
    plans = Plans(BOOK)
    together = Judges([plans.group(rules) for rules in BY_SIGNALS.values()], FACTS)
    for begin, end in itertools.pairwise(sorted({0, 300, *cuts})):
        together.observe(ticks[begin:end])
    found = told(together)
    for rule in ON_STEPS:
        alone = Judges([GroupPlan.of(rule)], FACTS)
        alone.observe(ticks)
        assert {name: found[name] for name in (rule.id, f"{rule.id}?")} == told(alone)


def test_a_long_block_is_judged_in_parts_and_nobody_can_tell(monkeypatch):
    ticks = ticks_of(5, 300, 0.1)
    found = []
    for rows in (300, 64, 7):
        monkeypatch.setattr("lossdoctor.judges._ROWS", rows)
        plans = Plans(BOOK)
        judges = Judges([plans.group(rules) for rules in BY_SIGNALS.values()], FACTS)
        judges.observe(ticks)
        found.append(told(judges))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("rows", [0, 1])
def test_few_ticks_do_no_harm(rows):
    judges = Judges([GroupPlan.of(rule) for rule in ON_STEPS], FACTS)
    assert judges.observe(ticks_of(1, 3, 0.0)[:rows]) is not None
