"""What a loop reports: numbers as it has them, and calls that may lead nowhere."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lossdoctor.capture.faults import Faults

__all__ = ["IdleCalls", "one_number"]

_CALLS = 16
_CALLS_DROPPED = 20
_CALLS_WITH_BACKWARD = 1024
"""Calls of monitor.step without an optimizer step before it is mentioned: without a backward pass either, with one
whose gradient was thrown away, and with one whose gradient may be a part of a sum."""
_SAMPLES = 8


def one_number(name: str, value: Any, faults: Faults) -> Tensor | float | None:
    """The value as a number or a tensor of one element; None, and one warning for each name, if it is no such thing."""
    if isinstance(value, Tensor):
        if value.numel() == 1 and not value.is_complex():
            return value
        what = f"of shape {tuple(value.shape)}"
    else:
        try:
            return float(value)
        except (TypeError, ValueError):
            what = f"of type {type(value).__name__}"
    faults.mention(name, f"{name} {what} is not one number and is not recorded; report its mean, e.g. value.mean()")
    return None


class IdleCalls:
    """Whether monitor.step is called without any optimizer step, and each call has to count as a step of its own.

    `optimizers` hold the parameters that are to move: where they do, somebody else steps them.
    """

    def __init__(self, faults: Faults, optimizers: Sequence[Optimizer] = ()) -> None:
        self.is_stepless = self.is_counting = not optimizers
        """Whether each call is a step, and whether `finished` has anything to do."""
        self._faults, self._optimizers = faults, optimizers
        self._without = self._with_backward = self._dropped = 0
        self._has_stepped = self._nothing_moves = False
        self._before: list[tuple[Tensor, Tensor]] = []

    def finished(self, values: dict[str, float], *, stepped: bool) -> None:
        """A record is finished: an optimizer stepped after all, or its values say that none did."""
        if stepped:
            self.is_stepless = self.is_counting = self._nothing_moves = False
            self._has_stepped = True
            self._without = self._with_backward = self._dropped = 0
            self._before = []
        elif self._nothing_moves:
            tensors = sum(len(group["params"]) for one in self._optimizers for group in one.param_groups)
            values["calls_without_step"] = float(self._without + self._with_backward)
            values["parameters_never_moved"] = float(tensors)
            values["parameters_without_gradient"] = values["parameters_without_optimizer"] = 0.0

    def called(self, *, had_backward: bool) -> None:
        """A call without an optimizer step; behind a backward pass it may be a micro-batch of many."""
        self.is_counting = True
        if had_backward:
            self._with_backward += 1
            if self._with_backward == 1:
                self._before = list(_samples(self._optimizers))
        else:
            self._without += 1
        if self.is_stepless:
            return
        if self._without >= _CALLS or self._with_backward >= _CALLS_WITH_BACKWARD or self._dropped >= _CALLS_DROPPED:
            self._give_up()

    def dropped(self) -> None:
        """The gradients of a call were thrown away without a step: it was no micro-batch."""
        self._dropped += 1

    def evaluated(self) -> None:
        """An evaluation, or the end: nobody gets so far without a single step."""
        if not (self.is_stepless or self._has_stepped) and self._with_backward >= _CALLS_DROPPED:
            self._give_up()

    def _give_up(self) -> None:
        self.is_stepless = True
        calls = self._without + self._with_backward
        # A clone is compared once, as a version is not counted up by everything that moves a parameter.
        self._nothing_moves = bool(self._before) and all(
            before.shape == one.shape and torch.equal(before, one.detach()) for one, before in self._before
        )
        self._before = []
        so_far = "since the last step" if self._has_stepped else "so far"
        self._faults.mention(
            "steps",
            f"optimizer.step() was not called in {calls} calls of monitor.step {so_far}: the gradients are made and "
            "thrown away, and nothing is trained. Every call is recorded as one step"
            if self._nothing_moves
            else f"no step of the Monitor's optimizer in {calls} calls of monitor.step; give Monitor the optimizer "
            "that the loop steps. Until then every call is recorded as one step",
        )


def _samples(optimizers: Sequence[Optimizer]) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the smallest parameters that can move, each with a copy."""
    parameters = [one for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]]
    moving = [one for one in parameters if one.requires_grad and not is_lazy(one) and one.numel()]
    for one in sorted(moving, key=Tensor.numel)[:_SAMPLES]:
        yield one, one.detach().clone()
