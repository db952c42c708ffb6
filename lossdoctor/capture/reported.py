"""What a loop reports: numbers as it has them, and calls that may lead nowhere."""

from typing import Any

from torch import Tensor

from lossdoctor.capture.faults import Faults

__all__ = ["IdleCalls", "one_number"]

_CALLS = 16
_CALLS_WITH_BACKWARD = 1024
"""Calls of monitor.step without an optimizer step before it is mentioned."""


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
    """Whether monitor.step is called without any optimizer step, and each call has to count as a step of its own."""

    def __init__(self, faults: Faults, *, is_stepless: bool = False) -> None:
        self.is_stepless = is_stepless
        self.is_counting = is_stepless
        """Whether `stepped` has anything to take back."""
        self._faults = faults
        self._without = self._with_backward = 0

    def stepped(self) -> None:
        """An optimizer stepped after all."""
        self.is_stepless = self.is_counting = False
        self._without = self._with_backward = 0

    def called(self, *, had_backward: bool) -> None:
        """A call without an optimizer step; behind a backward pass it may be a micro-batch of many."""
        self.is_counting = True
        if had_backward:
            self._with_backward += 1
        else:
            self._without += 1
        if self._without >= _CALLS or self._with_backward >= _CALLS_WITH_BACKWARD:
            self.is_stepless = True
            calls = self._without + self._with_backward
            self._faults.mention(
                "steps",
                f"no step of the Monitor's optimizer in {calls} calls of monitor.step; give Monitor the optimizer that "
                "the loop steps. Until then every call is recorded as one step",
            )
