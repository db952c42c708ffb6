"""Calls of monitor.step that lead nowhere."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lossdoctor import Monitor
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.reported import IdleCalls
from lossdoctor.runs.reader import read_run


def column(directory: Path, name: str) -> list[float]:
    """What was recorded of a signal, at the steps at which it was."""
    found: list[float] = []
    for block in read_run(directory).blocks():
        if name in block.steps.columns:
            values = block.steps.columns[name]
            found += values.values[values.mask()].tolist()
    return found


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def loss_of(model: nn.Module) -> Tensor:
    inputs = torch.randn(8, 4)
    return functional.mse_loss(model(inputs).squeeze(1), inputs.sum(1))


@pytest.mark.parametrize("zeroed", ["before", "after"])
def test_a_loop_without_optimizer_step_is_told_so_after_twenty_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, zeroed: str
) -> None:
    model, optimizer = model_and_optimizer()
    with (
        caplog.at_level(logging.WARNING, "lossdoctor"),
        Monitor(model, optimizer, tmp_path, remediate="off") as monitor,
    ):
        for call in range(60):
            loss = loss_of(model)
            if zeroed == "before":
                optimizer.zero_grad()
            loss.backward()
            if zeroed == "after":
                optimizer.zero_grad()
            monitor.step(loss)
            told = [record for record in caplog.records if "optimizer.step() was not called" in record.getMessage()]
            assert bool(told) == (call >= 20)
    calls = column(tmp_path, "calls_without_step")
    assert len(calls) >= 30
    assert calls[-1] == 60
    assert set(column(tmp_path, "parameters_never_moved")) == {2.0}


def test_somebody_elses_optimizer_is_not_called_a_missing_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = model_and_optimizer()
    other = torch.optim.SGD(model.parameters(), lr=0.01)
    with (
        caplog.at_level(logging.WARNING, "lossdoctor"),
        Monitor(model, optimizer, tmp_path, remediate="off") as monitor,
    ):
        for _ in range(60):
            loss = loss_of(model)
            other.zero_grad()
            loss.backward()
            other.step()
            monitor.step(loss)
    assert "give Monitor the optimizer that the loop steps" in caplog.text
    assert column(tmp_path, "calls_without_step") == []


def test_an_accumulation_of_many_micro_batches_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = model_and_optimizer()
    with (
        caplog.at_level(logging.WARNING, "lossdoctor"),
        Monitor(model, optimizer, tmp_path, remediate="off") as monitor,
    ):
        for call in range(1, 201):
            loss = loss_of(model)
            loss.backward()
            if call % 50 == 0:
                optimizer.step()
                optimizer.zero_grad()
            monitor.step(loss)
            if call % 60 == 0:
                monitor.evaluation(loss=1.0)
    assert caplog.text == ""
    assert column(tmp_path, "micro_batches") == [50.0] * 4


def test_an_evaluation_before_any_step_shows_that_there_is_none(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    with Monitor(model, optimizer, tmp_path, remediate="off") as monitor:
        for call in range(80):
            loss = loss_of(model)
            loss.backward()  # never zeroed either: no call is known not to be a micro-batch
            monitor.step(loss)
            if call == 39:
                monitor.evaluation(loss=1.0)
    assert column(tmp_path, "calls_without_step")[-1] == 80


def test_a_step_after_all_takes_it_back() -> None:
    _, optimizer = model_and_optimizer()
    idle = IdleCalls(Faults(), [optimizer])
    for _ in range(30):
        idle.called(had_backward=True)
        idle.dropped()
    values: dict[str, float] = {}
    idle.finished(values, stepped=False)
    assert values["calls_without_step"] == 30
    afterwards: dict[str, float] = {}
    idle.finished(afterwards, stepped=True)
    assert (idle.is_stepless, idle.is_counting, afterwards) == (False, False, {})
