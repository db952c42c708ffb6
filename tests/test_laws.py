"""Laws for every sample run: how it is cut into blocks does not matter, nor the unit and the zero of its loss."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.diagnosis import Diagnoser, diagnose
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import read_run
from lossdoctor.runs.info import facts
from lossdoctor.runs.tables import Column, Run, Table

SAMPLES = sorted(path.parent for path in (Path(__file__).parents[1] / "sample_runs").glob("*/expected.toml"))
RULEBOOK = Rulebook.load()
KNOWS_CHANCE = {"underfitting", "slow_learning", "update_too_small", "impossible_loss"}
"""Exact fingerprints: the loss at ln C is that of guessing. Whether much of it is left, and whether a model begins far
below it because it was trained before, are questions that only the loss as it is can answer. `impossible_loss` asks
for a loss below zero where the loss's graph says that it is a cross-entropy, which has no other zero."""
WITHOUT_THEM = Rulebook.load(ignore=KNOWS_CHANCE)

samples = pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)


def _cut(run, rows):
    """Findings as they began, in order, and the diagnosis, of a run seen in blocks that end at these rows."""
    diagnoser = Diagnoser(RULEBOOK, run_facts=facts(run.info), layers=[layer.name for layer in run.info.model.layers])
    began = [finding for block in run.cut(rows) for finding in diagnoser.observe(block)]
    return began, diagnoser.diagnosis()


@samples
def test_findings_are_the_same_row_by_row(path):
    run = read_run(path)
    _, whole = _cut(run, [])
    began, diagnosis = _cut(run, range(1, len(run.steps)))
    assert diagnosis == whole
    assert [finding.detected for finding in began] == sorted(finding.detected for finding in began)


@samples
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_findings_are_the_same_for_any_cut(path, data):
    run = read_run(path)
    rows = data.draw(st.sets(st.integers(1, len(run.steps) - 1), max_size=12))
    assert _cut(run, sorted(rows))[1] == _cut(run, [])[1]


def _changed(run: Run, *, factor: float, offset: float) -> Run:
    """The run as it would be with the loss a loss + b: gradients are a times as large."""

    def column(name: str, values: Column) -> Column:
        if name in {"train_loss", "val_loss"}:
            return Column(values.values.astype(np.float64) * factor + offset, values.observed)
        if "grad" in name and not name.endswith("_non_finite"):
            return Column(values.values.astype(np.float64) * factor, values.observed)
        return values

    def table(rows: Table) -> Table:
        return Table({name: column(name, values) for name, values in rows.columns.items()})

    return dataclasses.replace(
        run, steps=table(run.steps), evaluations=table(run.evaluations), layers=table(run.layers)
    )


def _course(run, rulebook):
    return [
        (finding.rule, finding.since, finding.detected, finding.until, finding.severity, finding.layers)
        for finding in diagnose(run, rulebook).findings
    ]


@samples
@pytest.mark.parametrize("factor", [2.0**-6, 32.0])
def test_the_unit_of_the_loss_does_not_matter(path, factor):
    run = read_run(path)
    assert _course(_changed(run, factor=factor, offset=0.0), WITHOUT_THEM) == _course(run, WITHOUT_THEM)


@samples
@pytest.mark.parametrize("offset", [-3.0, 5.0])
def test_the_zero_of_the_loss_does_not_matter(path, offset):
    run = read_run(path)
    assert _course(_changed(run, factor=1.0, offset=offset), WITHOUT_THEM) == _course(run, WITHOUT_THEM)


def test_no_rule_is_exempt_without_need():
    needed = set()
    for path in SAMPLES:
        run = read_run(path)
        usual = _course(run, RULEBOOK)
        for factor, offset in ((2.0**-6, 0.0), (1.0, -3.0)):
            other = _course(_changed(run, factor=factor, offset=offset), RULEBOOK)
            needed |= {one[0] for one in usual if one not in other} | {one[0] for one in other if one not in usual}
    assert needed >= KNOWS_CHANCE


def test_a_diagnosis_survives_its_json():
    diagnosis = diagnose(read_run(SAMPLES[0]), RULEBOOK)
    assert msgspec.convert(msgspec.to_builtins(diagnosis), type(diagnosis)) == diagnosis
