"""What a rule says of an episode."""

from pathlib import Path

import numpy as np
import pytest

from lossdoctor.diagnosis import diagnose
from lossdoctor.errors import RuleError
from lossdoctor.findings import Finding
from lossdoctor.rulebook import Rulebook, load_rule
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Column, Run, Table

RULE = """
id = "late"
title = "A test"
family = "stability"
category = "unstable"
severity = "warning"
kind = "event"
clock = "step"
when = "train_loss > 2"
patience = 3
message = "It happened at {happened:d}."
explain = "..."
sources = []
at_step = "AT_STEP"
[measures]
happened = "at_first(step, train_loss > BOUND)"
"""


def found(directory: Path, bound: float, at_step: str = "happened") -> Finding:
    """The one finding in a loss that rises by 0.1 a step."""
    path = directory / "late.toml"
    path.write_text(RULE.replace("AT_STEP", at_step).replace("BOUND", str(bound)), encoding="utf-8")
    rule = load_rule(path)
    steps = np.arange(1.0, 41.0)
    table = Table({"step": Column(steps), "train_loss": Column(steps / 10)})
    run = Run("run", Path("run"), RunInfo(), table, Table(), Table())
    (finding,) = diagnose(run, Rulebook({"late": rule}, {})).findings
    return finding


def test_a_rule_may_say_at_which_step_it_happened(tmp_path: Path) -> None:
    finding = found(tmp_path, 0.55)
    assert (finding.since, finding.detected, finding.message) == (6, 23, "It happened at 6.")


def test_what_happened_is_not_known_or_later_begins_where_the_condition_held(tmp_path: Path) -> None:
    assert found(tmp_path, 99).since == 21
    assert found(tmp_path, 2.15).since == 21


def test_the_step_has_to_be_a_measure(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="at_step: unknown measure"):
        found(tmp_path, 0.5, at_step="happend")
