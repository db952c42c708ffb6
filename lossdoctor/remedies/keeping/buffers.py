"""Running statistics that must not be kept: a NaN batch poisons them, whatever becomes of the step."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from lossdoctor.remedies.finite import all_finite, floating
from lossdoctor.remedies.keeping.holding import local

__all__ = ["GoodBuffers"]

SMALL_BUFFER = 65_536
"""Elements up to which a buffer of an unknown module is copied at every step: larger ones are tables and masks."""


class GoodBuffers:
    """The last finite values of a model's floating buffers: BatchNorm's running statistics above all.

    A NaN batch poisons them in the forward pass, whatever happens to the step. Elements that are not finite to begin
    with (an attention mask of -inf) stay as they are; large tables are left out, a snapshot has those.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._slots = list(_running_buffers(model))
        self._good: list[Tensor] = []
        self._masks: set[int] = set()
        self._flat: Tensor | None = None
        self.keep()

    def _live(self) -> tuple[list[Tensor], list[Tensor]]:
        """The buffers as they are now, on the host and on CUDA.

        `.data`, because BatchNorm's own kernel does not count its writes as versions; if ours did, a graph that is
        still alive would refuse its backward pass.
        """
        found = [owner.get(name) for owner, name in self._slots]
        buffers = [local(buffer.data) for buffer in found if buffer is not None]
        here = [buffer for buffer in buffers if buffer.device.type == "cpu"]
        return here, [buffer for buffer in buffers if buffer.is_cuda]

    def are_finite(self) -> bool:
        """Whether the buffers on the host are finite now, as far as they were before."""
        live, _ = self._live()
        return all_finite([buffer for number, buffer in enumerate(live) if number not in self._masks])

    def _matches(self, live: list[Tensor]) -> bool:
        return [(one.shape, one.dtype) for one in live] == [(one.shape, one.dtype) for one in self._good]

    def keep(self) -> bool:
        """Take the present values as good ones: those on the host if all are finite, on CUDA each that is.

        False if those on the host are not finite.
        """
        live, on_device = self._live()
        if not self._matches(live):
            self._good = [buffer.clone() for buffer in live]
            self._masks = {number for number, buffer in enumerate(live) if not all_finite([buffer])}
        if on_device:
            self._keep_on_device(on_device)
        if live and not self.are_finite():
            return False
        if live:
            torch._foreach_copy_(self._good, live)
        return True

    def give_back(self) -> None:
        """Write the last good values into the buffers on the host; those on CUDA never lose them."""
        live, _ = self._live()
        if live and self._matches(live):
            torch._foreach_copy_(live, self._good)

    def _keep_on_device(self, live: list[Tensor]) -> None:
        """Keep what is finite and give back what is not, decided on the device: nothing is read on the host."""
        now = torch.cat([buffer.reshape(-1) for buffer in live])  # widens to the widest dtype: exact both ways
        if self._flat is None or self._flat.shape != now.shape:
            self._flat = now
            return
        # An element that never was finite is a mask's.
        self._flat = torch.where(now.isfinite().logical_or(self._flat.isfinite().logical_not()), now, self._flat)
        pieces = self._flat.split([buffer.numel() for buffer in live])
        good = [piece.view(buffer.shape) for piece, buffer in zip(pieces, live, strict=True)]
        torch._foreach_copy_(live, good)


def _running_buffers(model: torch.nn.Module) -> Iterator[tuple[dict[str, Tensor | None], str]]:
    """Floating buffers that a forward pass may write, each once, as (owner's dictionary, name): `.to` replaces them."""
    seen: set[int] = set()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            usable = not is_lazy(buffer) and buffer.is_floating_point() and bool(floating([buffer]))
            if not usable or id(buffer) in seen:
                continue
            if isinstance(module, _NormBase) or buffer.numel() <= SMALL_BUFFER:
                seen.add(id(buffer))
                yield module._buffers, name  # noqa: SLF001 - the only handle that survives a move to another device
