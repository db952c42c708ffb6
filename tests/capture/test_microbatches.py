"""Whether gradients are zeroed between two steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run

Zero = Callable[[nn.Module, torch.optim.Optimizer], None]


def nothing(_model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
    """Leave the gradients as they are."""


def to_none(_model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """As zero_grad does today."""
    optimizer.zero_grad()


def in_place(_model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """As it did."""
    optimizer.zero_grad(set_to_none=False)


def by_data(model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
    """As old tutorials do: no version is counted up."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.data.zero_()


def left_over(
    directory: Path, zero: Zero, *, micro_batches: int = 1, clip: float = 0.0, attacks: bool = False
) -> set[float]:
    """What is recorded of gradients that were left over in a training of 40 steps, but for the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = torch.zeros(())
    with Monitor(model, optimizer, directory, remediate="off") as monitor:
        for _ in range(40):
            for _ in range(micro_batches):
                inputs = torch.randn(8, 4)
                if attacks:
                    inputs.requires_grad_()
                    functional.mse_loss(model(inputs).squeeze(1), inputs.sum(1)).backward()
                    assert inputs.grad is not None
                    inputs = (inputs + 0.01 * inputs.grad.sign()).detach()
                    optimizer.zero_grad()
                loss = functional.mse_loss(model(inputs).squeeze(1), inputs.sum(1))
                loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            zero(model, optimizer)
            monitor.step(loss)
    found: list[float] = []
    for block in read_run(directory).blocks():
        if "gradient_left_over" in block.steps.columns:
            values = block.steps.columns["gradient_left_over"]
            found += values.values[values.mask()].tolist()
    return set(found[1:])


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_gradients_that_are_never_zeroed_are_seen(tmp_path: Path, micro_batches: int, clip: float) -> None:
    assert left_over(tmp_path, nothing, micro_batches=micro_batches, clip=clip) == {1.0}


@pytest.mark.parametrize("zero", [to_none, in_place])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_gradients_that_are_zeroed_are_not(tmp_path: Path, zero: Zero, micro_batches: int, clip: float) -> None:
    assert left_over(tmp_path, zero, micro_batches=micro_batches, clip=clip) == {0.0}


def test_of_gradients_zeroed_behind_their_version_nothing_is_said(tmp_path: Path) -> None:
    assert 1.0 not in left_over(tmp_path, by_data)


def test_a_backward_pass_for_an_attack_before_zeroing_is_no_fault(tmp_path: Path) -> None:
    assert left_over(tmp_path, nothing, attacks=True) == {0.0}
