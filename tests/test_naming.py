"""Findings say which parameters they are about, as run.json names them."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from lossdoctor import Monitor
from lossdoctor.analysis import analyze
from lossdoctor.errors import RuleError
from lossdoctor.findings import Finding
from lossdoctor.naming import LISTS, named
from lossdoctor.reports import markdown, text
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook, load_rule
from lossdoctor.runs.info import ModelChecks

RULES = Rulebook.load().rules
FROZEN = Path(__file__).parents[1] / "rules" / "frozen_parameters.toml"


def _finding(rule: str = "frozen_parameters", *, resolved: bool = False) -> Finding:
    return Finding(
        rule=rule,
        title="",
        family="learning",
        category="invalid",
        severity="warning",
        clock="interval",
        since=4,
        detected=10,
        resolved=resolved,
        message="2 parameter tensors",
    )


def test_every_list_of_names_in_run_json_may_be_asked_for():
    assert {
        "modules_in_eval",
        "parameters_never_moved",
        "parameters_without_gradient",
        "parameters_without_optimizer",
    } == LISTS


def test_a_finding_gets_the_names_of_all_its_lists_once_each():
    checks = ModelChecks(
        parameters_without_optimizer=["head.weight", "head.bias"], parameters_without_gradient=["head.bias", "spare"]
    )
    assert named(_finding(), RULES, checks).names == ["head.weight", "head.bias", "spare"]


def test_what_is_over_is_about_nothing():
    checks = ModelChecks(parameters_without_optimizer=["head.weight"])
    assert named(_finding(resolved=True), RULES, checks).names == []


def test_a_rule_without_lists_names_nothing():
    checks = ModelChecks(parameters_without_optimizer=["head.weight"])
    assert named(_finding("divergence"), RULES, checks).names == []


def test_a_list_that_run_json_does_not_have_is_an_error_with_a_hint(tmp_path):
    broken = tmp_path / FROZEN.name
    broken.write_text(
        FROZEN.read_text(encoding="utf-8").replace('"parameters_never_moved"]', '"parameters_never_move"]')
    )
    with pytest.raises(RuleError, match=re.escape("names: run.json has no list 'parameters_never_move'; did you mean")):
        load_rule(broken)


@pytest.fixture(scope="module")
def surgery(tmp_path_factory) -> Path:
    """A training whose model got a new head after the optimizer was made."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("surgery")
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model[2] = nn.Linear(16, 4)
    with Monitor(model, optimizer, run_dir=directory, remediate="off") as monitor:
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(torch.randn(32, 8)), torch.randint(4, (32,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    return directory


def test_a_new_head_that_the_optimizer_does_not_hold_is_named(surgery):
    [diagnosis] = analyze(surgery)
    finding = next(finding for finding in diagnosis.findings if finding.rule == "frozen_parameters")
    assert finding.names == ["2.weight", "2.bias"]
    assert (finding.severity, finding.category, finding.resolved) == ("warning", "invalid", False)


def test_reports_show_the_names(surgery):
    [diagnosis] = analyze(surgery)
    assert "names: 2.weight, 2.bias" in text.render(diagnosis, page=Page(width=100)).plain
    assert "2.weight, 2.bias" in markdown.render([diagnosis])


def test_the_live_diagnosis_names_them_too(tmp_path):
    model, stranger = nn.Linear(4, 2), nn.Linear(4, 2)
    optimizer = torch.optim.SGD(stranger.parameters(), lr=0.1)
    with Monitor(model, optimizer, run_dir=tmp_path, remediate="suggest") as monitor:
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(torch.randn(32, 4)), torch.randint(2, (32,)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.zero_grad()
            monitor.step(loss)
        found = {finding.rule: finding for finding in monitor.diagnosis().findings}
    assert found["frozen_parameters"].names == ["weight", "bias"]
    assert found["frozen_parameters"].severity == "error"
