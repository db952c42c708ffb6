"""What the ranks of a sharded training tell each other at every optimizer step: is any gradient not finite?

A rank sees the gradients of its own shards only, and a step that one of them must not take is to be taken by none. So
every optimizer step begins with the sum over all ranks of three numbers: whether gradients are not finite, the squares
of their norms where somebody asks for the whole norm, and whether a rank has left. It is an all-reduce of 24 bytes on a
group of our own. On CUDA it is queued behind the backward pass, and nothing waits for it on the host.

The sum is made at every step, whatever a rank has seen. A rank whose remedies end goes on adding zeros until all know
of it, and then all end at the same step.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.optim import Optimizer

from lossdoctor.remedies.finite import CudaReadback, Readback, all_finite, floating, non_finite_flag
from lossdoctor.remedies.keeping.holding import local

__all__ = ["Exchange", "LeftError", "SharedSight"]

_ANSWER = timedelta(minutes=10)
_LOOK_EVERY = 8
"""Sums after which the ranks look, on a device, whether one of them has left: that waits for the sum before."""


class LeftError(RuntimeError):
    """A rank takes part in the remedies no more."""

    def __init__(self) -> None:
        super().__init__("a rank takes part no more, as its remedies failed or its Monitor was closed: all let go")


class Exchange:
    """Sums over all ranks. `shares` is what the norm of each tensor a rank holds counts for in the whole one."""

    def __init__(
        self, group: Any, shares: Callable[[Sequence[Tensor]], list[float]], *, readback: Readback | None = None
    ) -> None:
        self._group, self.shares = group, shares
        self._readback: Readback = CudaReadback() if readback is None else readback
        self._count = 0
        self._has_left = 0.0
        self.is_over = False
        """Whether a rank has left, and all know of it: nothing is exchanged any more."""

    @classmethod
    def open(cls, model: torch.nn.Module, shares: Callable[[Sequence[Tensor]], list[float]]) -> "Exchange":
        """A new group of all ranks, for the device that the model's gradients are on. All ranks call it together."""
        on_host = all(parameter.device.type == "cpu" for parameter in model.parameters())
        return cls(distributed.new_group(backend="gloo" if on_host else None, timeout=_ANSWER), shares)

    def leave(self) -> None:
        """From now on tell the others that this rank takes part no more."""
        self._has_left = 1.0

    def add_up(self, bad: float, squares: float) -> tuple[float, float]:
        """The sums over all ranks of numbers on the host. Raises LeftError, on all ranks at once."""
        if self.is_over:
            raise LeftError
        numbers = torch.tensor([bad, squares, self._has_left], dtype=torch.float64)
        self._reduce(numbers)
        bad, squares, gone = numbers.tolist()
        if gone:
            self.is_over = True
            raise LeftError
        return bad, squares

    def add_up_on_device(self, bad: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over all ranks of scalars on a device. Raises LeftError, on all ranks at once, a little later."""
        if self.is_over:
            raise LeftError
        self._count += 1
        if self._count % _LOOK_EVERY == 0 and any(self._readback.arrived(wait=True)):
            self.is_over = True
            raise LeftError
        numbers = torch.stack((bad.double(), squares.double(), bad.new_full((), self._has_left, dtype=torch.float64)))
        self._reduce(numbers)
        self._readback.send(numbers[2])
        return numbers[0], numbers[1]

    def add_nothing(self, device: torch.device) -> None:
        """Take part in a sum with nothing to say. Raises nothing."""
        try:
            if device.type == "cpu":
                self.add_up(0.0, 0.0)
            else:
                nothing = torch.zeros((), device=device)
                self.add_up_on_device(nothing, nothing)
        except Exception:  # noqa: BLE001 - all know that it is over, or there is no group any more
            self.is_over = True

    def _reduce(self, numbers: Tensor) -> None:
        try:
            distributed.all_reduce(numbers, group=self._group)
        except Exception:
            self.is_over = True
            raise


class SharedSight:
    """What all ranks together see of one optimizer's gradients.

    `bad`: whether any is not finite; on a device a float32 scalar of 1 or 0. `norm`: that of all shards together,
    unscaled; 0 where it was not asked for.
    """

    def __init__(self, exchange: Exchange, *, on_device: bool | None = None) -> None:
        self._exchange, self._on_device = exchange, on_device
        self.bad: Tensor | bool = False
        self.norm = torch.zeros(())
        self.is_told = False
        """Whether the others have heard of the step under way."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is exchanged any more."""
        return self._exchange.is_over

    def leave(self, optimizer: Optimizer, *, step: bool) -> None:
        """Tell the others that this rank takes part no more: at the `step` under way, if they heard nothing of it yet.

        From then on call it in every step until it `is_over`.
        """
        self._exchange.leave()
        if step and not self.is_told and not self.is_over:
            self.is_told = True
            self._exchange.add_nothing(self._device(optimizer))

    def look(self, optimizer: Optimizer, *, nothing: bool, norm: bool) -> None:
        """Look at this rank's gradients (or, with `nothing`, do not) and hear of the others'; asks for the `norm`, too.

        A fault of this rank's is said to the others before it is raised. Raises LeftError, on all ranks alike.
        """
        parameters = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        tensors: list[Tensor] = []
        if not nothing:
            tensors = [_reduced(one.grad) for one in parameters]
        device = self._device(optimizer)
        shares = self._exchange.shares(parameters) if norm and tensors else []
        squares = _squares(tensors if shares else [], shares, device)
        seen = floating(tensors)
        if device.type == "cpu" and not self._on_device:
            mine = float(not all_finite(seen)), squares.item()
            self.is_told = True
            bad, of_all = self._exchange.add_up(*mine)
            self.bad, squares = bad > 0, torch.tensor(of_all, dtype=torch.float64)
        else:
            flag = non_finite_flag(seen).to(device) if seen else torch.zeros((), device=device)
            self.is_told = True
            found, squares = self._exchange.add_up_on_device(flag, squares)
            self.bad = (found > 0).to(torch.float32)
        scale = getattr(optimizer, "grad_scale", None)
        whole = squares.sqrt()
        self.norm = whole / scale.to(device, non_blocking=True) if isinstance(scale, Tensor) else whole

    @staticmethod
    def _device(optimizer: Optimizer) -> torch.device:
        first: Tensor = next(parameter for group in optimizer.param_groups for parameter in group["params"])
        return first.device


def _reduced(gradient: Tensor) -> Tensor:
    """This rank's part of a gradient; one whose parts have yet to be added up over the ranks is, before."""
    placements = getattr(gradient, "placements", ())
    if any(placement.is_partial() for placement in placements):
        from torch.distributed.tensor import Replicate  # noqa: PLC0415 - only where there are DTensors

        whole = [Replicate() if placement.is_partial() else placement for placement in placements]
        gradient = gradient.redistribute(placements=whole)  # type: ignore[attr-defined]
    return local(gradient)


def _squares(tensors: list[Tensor], shares: list[float], device: torch.device) -> Tensor:
    """The sum of the squares of this rank's shares of norms, float64."""
    norms = []
    for tensor, share in zip(tensors, shares, strict=True):
        for values in floating([tensor]):
            norm = torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, torch.float32))
            norms.append(norm.to(device, torch.float64) * share)
    return torch.stack(norms).square().sum() if norms else torch.zeros((), dtype=torch.float64, device=device)
