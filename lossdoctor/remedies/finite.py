"""Are these tensors finite? Asked at once on the host, and without a wait on CUDA."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from lossdoctor.remedies.keeping.holding import local

__all__ = ["CudaReadback", "Readback", "all_finite", "floating", "non_finite_flag", "on_host", "weights_are_finite"]


def floating(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    """Those tensors that can hold a NaN and can be measured, sparse ones by their values.

    8-bit floats have no norm in torch and are left out.
    """
    found: list[Tensor] = []
    for tensor in tensors:
        if tensor is None or tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.element_size() == 1 or not tensor.numel():
            continue
        values = tensor.detach()
        if values.layout is torch.strided:
            found.append(values)
        elif values.layout is torch.sparse_coo:
            found.append(values._values())  # noqa: SLF001 - values() refuses what is not coalesced, and coalescing sums
    return found


def on_host(tensors: Iterable[Tensor]) -> bool:
    """Whether all tensors live in host memory, where reading a value waits for nothing."""
    return all(tensor.device.type == "cpu" for tensor in tensors)


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no element is NaN or Inf, for host tensors as `floating` gives them.

    The 2-norm is the fastest pass over the memory there; a norm that is not finite proves nothing (|x| ~ 1e20
    overflows in float32), so the elements are then looked at one by one.
    """
    if not tensors:
        return True
    norms = torch._foreach_norm(tensors)  # noqa: SLF001 - get_total_norm takes twice the time for a small model
    if math.isfinite(torch.stack(norms).sum().item()):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def weights_are_finite(model: torch.nn.Module) -> bool:
    """Whether all floating parameters of a model, as this process holds them, are finite. Waits for the device."""
    return all_finite(floating(map(local, model.parameters())))


def non_finite_flag(tensors: list[Tensor]) -> Tensor:
    """1.0 if any element is NaN or Inf, else 0.0: a float32 scalar on the tensors' (first) device, without a sync.

    The infinity norm is exact here: it cannot overflow, and NaN survives it.
    """
    return get_total_norm(tensors, float("inf")).isfinite().logical_not().to(torch.float32)


class Readback(Protocol):
    """Flags on their way from a device to the host, in order."""

    def send(self, flag: Tensor) -> None:
        """Start the copy of a flag."""

    def arrived(self, *, wait: bool = False) -> list[bool]:
        """The flags that have arrived since the last call, oldest first; all of them with `wait`."""

    def forget(self) -> None:
        """Drop the flags still on their way."""


class CudaReadback:
    """Copies flags to pinned memory, each with an event, and looks only at those whose event has passed."""

    def __init__(self) -> None:
        self._travelling: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def send(self, flag: Tensor) -> None:
        """Start the copy of a flag. One on another kind of device is dropped: reading it would wait."""
        if not flag.is_cuda:
            return
        host = torch.empty((), dtype=flag.dtype, pin_memory=True)
        host.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(flag.device))
        self._travelling.append((host, event))

    def arrived(self, *, wait: bool = False) -> list[bool]:
        """The flags that have arrived since the last call, oldest first; all of them with `wait`."""
        flags = []
        if wait and self._travelling:
            self._travelling[-1][1].synchronize()
        while self._travelling and self._travelling[0][1].query():
            flags.append(bool(self._travelling.popleft()[0]))
        return flags

    def forget(self) -> None:
        """Drop the flags still on their way."""
        self._travelling.clear()
