"""Counting the backward passes of a step by what they do to the gradient of one parameter."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["MicroBatches"]

_Guard: TypeAlias = Callable[[str, Callable[[Tensor], None]], Callable[..., Any]]


_LOOKS = 8
"""How often a gradient is looked at: each waits for a device."""


class _LeftOver:
    """Whether the gradient of the step before is still there when the first backward pass of a step begins.

    Its version tells that nobody seems to have zeroed it; as `grad.data.zero_()` leaves no such trace, the gradient
    itself is then looked at once, before the next pass adds to it. `guard` wraps what the engine calls.
    """

    def __init__(self, guard: _Guard) -> None:
        self.found: bool | None = None
        self._guard = guard
        self._version = -2
        self._is_first = False
        self._looks = 0
        self._handle: RemovableHandle | None = None

    def stepped(self, parameter: Tensor | None) -> None:
        """A step is over."""
        gradient = None if parameter is None else parameter.grad
        self._version = -2 if gradient is None else gradient._version  # noqa: SLF001
        self._is_first = True

    def began(self, parameter: Tensor) -> None:
        """The first backward pass since has added to the parameter's gradient."""
        self._is_first = False
        gradient = parameter.grad
        if gradient is None or gradient._version != self._version + 1:  # noqa: SLF001
            self.found = False
        elif self._handle is None and not self.found and self._looks < _LOOKS:
            self._handle = parameter.register_hook(
                self._guard("gradients that are left over", lambda _: self._look(parameter))
            )

    def _look(self, parameter: Tensor) -> None:
        if self._is_first:
            self.remove()
            self._looks += 1
            # What is zero may have been zeroed behind its version's back, or be the gradient of a dead unit.
            self.found = True if parameter.grad is not None and bool(parameter.grad.any()) else None

    def remove(self) -> None:
        """Take the hook out, if there is one."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class MicroBatches:
    """The backward passes since an optimizer's step, as far as their gradients were kept.

    Accumulating in place adds one to a gradient's version; a new tensor, or one that was zeroed, starts again. With a
    `guard`, which wraps what the engine calls, it is also found out whether gradients are zeroed at all.
    """

    def __init__(self, *, sharded: bool = False, guard: _Guard | None = None) -> None:
        self._left = None if guard is None else _LeftOver(guard)
        self.count = 0
        self.expected = 0
        """How many the step before had."""
        self._sharded = sharded
        self._version = -1

    def first(self, parameter: Tensor) -> None:
        """Count the first since a step."""
        gradient = parameter.grad
        if self._left is not None:
            self._left.began(parameter)
        self._version = -1 if gradient is None else gradient._version  # noqa: SLF001 - the only sign of a change that costs nothing
        self.count = 1

    def saw(self, gradient: Tensor | None) -> bool:
        """Count one more; whether gradients of the earlier ones were certainly thrown away.

        That is where the gradient is a new tensor, as `zero_grad()` leaves it. One that was changed in place may have
        been zeroed or clipped, and one with a graph (create_graph=True) is new each time.
        """
        if self._sharded:
            self.count += 1  # the gradient seen here is about to be reduced and thrown away in any case
            return False
        version = -1 if gradient is None else gradient._version  # noqa: SLF001
        last, self._version = self._version, version
        if version == last + 1:
            self.count += 1
            return False
        is_dropped = version <= last and gradient is not None and not gradient.requires_grad
        self.count = 1
        if self._left is not None:  # zeroed after all, behind a pass that was for something else
            self._left.found = False
        return is_dropped

    def changed(self, gradient: Tensor | None) -> None:
        """DDP has put the gradient of all ranks in place: that is nothing the loop did."""
        self._version = -1 if gradient is None else gradient._version  # noqa: SLF001

    def stepped(self, parameter: Tensor | None = None) -> None:
        """The step is over. It is the parameter whose gradient is looked at, if there was one."""
        self.expected, self.count = self.count, 0
        if self._left is not None:
            self._left.stepped(parameter)

    def note(self, values: dict[str, float]) -> None:
        """Write down whether this step's gradient was added to that of the step before, where that is known."""
        if self._left is not None and self._left.found is not None:
            values["gradient_left_over"] = float(self._left.found)

    def close(self) -> None:
        """Take every hook out."""
        if self._left is not None:
            self._left.remove()
