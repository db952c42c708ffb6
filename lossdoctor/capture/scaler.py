"""What a GradScaler is up to, read from its state without a sync (its get_scale() is one)."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["ScalerWatch", "clipped_while_scaled"]


class ScalerWatch:
    """The loss scale, and whether an optimizer step was attempted and skipped.

    GradScaler replaces `_per_optimizer_states` in each `update`, and `update` insists on a step or an inf check before
    it. So a new object there, or a stage STEPPED in it, is an attempt; an attempt in which no optimizer's pre-hook
    fired was skipped by the scaler. Nothing of this asks the device.
    """

    def __init__(self, scaler: Any) -> None:
        self._scaler = scaler
        self._states: object = getattr(scaler, "_per_optimizer_states", None)
        self._accounted: object = None

    @property
    def is_enabled(self) -> bool:
        """Whether gradients are scaled; a disabled scaler counts as none."""
        return self._scaler is not None and bool(self._scaler.is_enabled()) and hasattr(self._scaler, "_scale")

    @property
    def scale(self) -> Tensor | None:
        """The scale, on the scaler's device; None before the first backward pass."""
        scale: Tensor | None = self._scaler._scale  # noqa: SLF001 - get_scale() would be a sync
        return scale

    def is_ready(self, optimizer: Optimizer) -> bool:
        """Whether `unscale_` may be called: neither it nor `step` was since the last update."""
        return self._stage(optimizer) == "READY"

    def account(self) -> None:
        """An optimizer's step is running: the current attempt is not a skipped one."""
        self._states = self._accounted = self._scaler._per_optimizer_states  # noqa: SLF001

    def attempted(self) -> bool:
        """Whether there was an attempt that was not accounted for."""
        states = self._scaler._per_optimizer_states  # noqa: SLF001
        if states is not self._states:
            if self._states is not self._accounted:
                return True
            self._states = states
        return states is not self._accounted and any(state["stage"].name == "STEPPED" for state in states.values())

    def settle(self) -> None:
        """Count the attempt found by `attempted`: it will not be found again."""
        states = self._scaler._per_optimizer_states  # noqa: SLF001
        stepped = any(state["stage"].name == "STEPPED" for state in states.values())
        self._states = states
        self._accounted = states if stepped else None

    def _stage(self, optimizer: Optimizer) -> str:
        # .get: asking a defaultdict would make an entry.
        state = self._scaler._per_optimizer_states.get(id(optimizer))  # noqa: SLF001
        return "READY" if state is None else str(state["stage"].name)


def clipped_while_scaled(unclipped: float, clipped: float, scale: float) -> float | None:
    """Whether gradients were clipped before they were unscaled: 1, 0, or None where it cannot be told.

    Clipping to M before `unscale_` leaves a norm of M / scale, after it a norm of M. People choose an M of one or two
    digits (1.0, 0.5, 10) and scales are powers of two, so the norm tells which of the two it was.

    >>> clipped_while_scaled(8.0, 1.0 / 65536, 65536.0)
    1.0
    >>> clipped_while_scaled(8.0, 1.0, 65536.0)
    0.0
    >>> clipped_while_scaled(0.3, 0.3, 65536.0)
    0.0
    """
    if not (0 < clipped < float("inf") and 0 < unclipped < float("inf") and scale > 0):
        return None
    if clipped > 0.999 * unclipped:
        return 0.0
    if _is_round(clipped):
        return 0.0
    return 1.0 if scale > 1 and _is_round(clipped * scale) else None


def _is_round(number: float) -> bool:
    """Whether a number is one of at most two significant digits, as far as a float32 norm can tell.

    torch divides by norm + 1e-6, so a norm near 1e-3 comes out a little smaller.
    """
    nearest = float(f"{number:.1e}")
    return abs(number - nearest) <= 2e-5 * nearest
