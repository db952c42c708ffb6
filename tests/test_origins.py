"""Where numbers first stopped being finite: backwards from the last layer, forwards from the first."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.clocks import StepClock, names_on, recorded
from lossdoctor.diagnosis import Diagnoser, diagnose
from lossdoctor.origins import ORIGINS, origin
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.info import LayerInfo, ModelInfo, RunInfo, facts
from lossdoctor.runs.tables import Block, Column, Run, Table

NAN, INF = float("nan"), float("inf")


def layers(signal, *rows, steps):
    values = np.array(rows)
    return Table({"step": Column(np.array(steps, dtype=float)), signal: Column(values)})


def steps(count):
    return np.arange(1.0, count + 1)


def test_a_broken_gradient_began_at_the_last_layer_that_has_one():
    table = layers("layer_grad_norm", [0.1, 0.2, 0.3], [NAN, INF, 0.3], steps=[2, 4])
    found = origin("broken_gradient_layer", table, steps(5))
    np.testing.assert_array_equal(found, [NAN, NAN, NAN, 1, NAN])


def test_a_broken_output_began_at_the_first_layer_that_has_one():
    table = layers("layer_activation_std", [0.1, NAN, INF], steps=[3])
    np.testing.assert_array_equal(origin("broken_output_layer", table, steps(3)), [NAN, NAN, 1])


def test_what_was_not_measured_is_not_broken():
    column = Column(np.array([[NAN, 0.2]]), np.array([[False, True]]))
    table = Table({"step": Column(np.array([1.0])), "layer_grad_norm": column})
    assert np.isnan(origin("broken_gradient_layer", table, steps(2))).all()
    assert np.isnan(origin("broken_gradient_layer", Table(), steps(2))).all()
    assert len(origin("broken_gradient_layer", table, steps(0))) == 0


def test_a_layer_row_without_its_step_says_nothing():
    table = layers("layer_grad_norm", [NAN, 0.1], [NAN, 0.1], steps=[2.5, 9])
    assert np.isnan(origin("broken_gradient_layer", table, steps(4))).all()


def test_the_step_clock_knows_both_names_and_what_they_are_made_of():
    assert {*ORIGINS} <= names_on("step")
    assert not {*ORIGINS} & names_on("interval")
    assert {recorded(name) for name in ORIGINS} == {"layer_grad_norm", "layer_activation_std"}
    block = Block(Table({"step": Column(steps(2))}), layers=layers("layer_grad_norm", [NAN, 0.1], steps=[2]))
    ticks = StepClock(["broken_gradient_layer"]).observe(block)
    np.testing.assert_array_equal(ticks.signals["broken_gradient_layer"], [NAN, 0])


def run(gradient, loss, **also):
    count = len(loss)
    columns = {"train_loss": loss, "grad_norm": gradient, **also}
    return Run(
        "run",
        Path("run"),
        RunInfo(model=ModelInfo(layers=[LayerInfo(name=n, type="Linear", parameters=1, trainable=1) for n in "abc"])),
        Table({"step": Column(steps(count)), **{name: Column(np.array(v)) for name, v in columns.items()}}),
    )


@pytest.mark.parametrize("cut", [[], [3], [1, 2, 3, 4, 5, 6, 7]])
def test_a_finding_names_the_layer_where_a_gradient_broke(cut):
    broken = layers("layer_grad_norm", [NAN, NAN, 0.3], steps=[8])
    whole = dataclasses.replace(run([0.5] * 7 + [NAN], [1.0] * 8), layers=broken)
    names = [layer.name for layer in whole.info.model.layers]
    diagnoser = Diagnoser(Rulebook.load(), run_facts=facts(whole.info), layers=names)
    for block in whole.cut(cut):
        diagnoser.observe(block)
    finding = next(one for one in diagnoser.diagnosis().findings if one.rule == "non_finite_gradient")
    assert finding.layers == ["b"]
    assert "those behind it are sound" in finding.message


def test_a_loss_of_nothing_is_known_by_its_gradient():
    found = diagnose(run([0.5] * 7 + [0.0], [1.0] * 7 + [NAN])).findings
    finding = next(one for one in found if one.rule == "non_finite_loss")
    assert "no label of the batch counts" in finding.message
    assert not finding.layers
