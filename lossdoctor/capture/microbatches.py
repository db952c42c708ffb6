"""Counting the backward passes of a step by what they do to the gradient of one parameter."""

from torch import Tensor

__all__ = ["MicroBatches"]


class MicroBatches:
    """The backward passes since an optimizer's step, as far as their gradients were kept.

    Accumulating in place adds one to a gradient's version; a new tensor, or one that was zeroed, starts again.
    """

    def __init__(self, *, sharded: bool = False) -> None:
        self.count = 0
        self.expected = 0
        """How many the step before had."""
        self._sharded = sharded
        self._version = -1

    def saw(self, gradient: Tensor | None) -> bool:
        """Count one; whether gradients of the earlier ones were certainly thrown away.

        That is where the gradient is a new tensor, as `zero_grad()` leaves it. One that was changed in place may have
        been zeroed or clipped, and one with a graph (create_graph=True) is new each time.
        """
        if self._sharded and self.count:
            self.count += 1  # the gradient seen here is about to be reduced and thrown away in any case
            return False
        version = -1 if gradient is None else gradient._version  # noqa: SLF001 - the only sign of a change that costs nothing
        last, self._version = self._version, version
        if self.count and version == last + 1:
            self.count += 1
            return False
        is_dropped = bool(self.count) and version <= last and gradient is not None and not gradient.requires_grad
        self.count = 1
        return is_dropped

    def changed(self, gradient: Tensor | None) -> None:
        """DDP has put the gradient of all ranks in place: that is nothing the loop did."""
        self._version = -1 if gradient is None else gradient._version  # noqa: SLF001

    def stepped(self) -> None:
        """The step is over."""
        self.expected, self.count = self.count, 0
