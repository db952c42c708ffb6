"""What slows a training down or fills its memory, without a change to what it learns: loaders, histories, leaks."""

import mmap
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Burden", "Load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Burden:
    """Times are seconds, and really slept; sizes are float32 numbers, and really held."""

    batch_seconds: float = 0.0
    """The loader takes so long for a batch."""
    epoch_seconds: float = 0.0
    """And so much longer for the first of an epoch, as where its workers start anew."""
    slower_batches: float = 0.0
    """Each batch takes so much longer than the one before it."""
    step_seconds: float = 0.0
    """A step computes so much longer."""
    slower_steps: float = 0.0
    """Each step takes so much longer than the one before it."""
    slow_phase: tuple[int, int, float] | None = None
    """From one step to another everything takes so much longer: another program runs on the machine."""
    history: int = 0
    """So many numbers of each step are kept, and their mean over all steps is taken in each."""
    keeps_activations: bool = False
    """A hook collects the outputs of every layer, and nobody empties the list."""
    kept: int = 0
    """So many numbers of each step are kept."""
    kept_until: int | None = None
    """Up to this step: a store that is full."""


class Load:
    """A burden at work on one training."""

    def __init__(self, burden: Burden, model: nn.Module) -> None:
        self._burden = burden
        self._batches = 0
        self._held: list[Tensor] = []
        self._pages: list[mmap.mmap] = []
        self.mean = 0.0
        if burden.keeps_activations:
            for module in model.modules():
                if not list(module.children()):
                    module.register_forward_hook(self._keep)

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The loader, as slow as it is to be."""
        return _Slow(self, loader)

    def drawn(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of one epoch."""
        burden = self._burden
        for number, batch in enumerate(loader):
            late = burden.batch_seconds + burden.slower_batches * self._batches
            time.sleep(late + (0 if number else burden.epoch_seconds))
            self._batches += 1
            yield batch

    def stepped(self, step: int) -> None:
        """What the loop does besides, at the end of a step."""
        burden = self._burden
        begin, end, seconds = burden.slow_phase or (0, 0, 0.0)
        if late := burden.step_seconds + burden.slower_steps * step + (seconds if begin <= step < end else 0.0):
            time.sleep(late)
        if burden.history:
            self._held.append(torch.full((burden.history,), float(step)))
            self.mean = torch.stack(self._held).mean().item()
        if burden.kept and (burden.kept_until is None or step < burden.kept_until):
            # From the system itself: the allocator would reuse what an earlier training in this process gave back.
            self._pages.append(mmap.mmap(-1, 4 * burden.kept))
            self._pages[-1].write(b"\1" * (4 * burden.kept))

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._held.append(output)


class _Slow:
    """Each iteration is one over the loader."""

    def __init__(self, load: Load, loader: Iterable[Any]) -> None:
        self._load, self._loader = load, loader

    def __iter__(self) -> Iterator[Any]:
        return self._load.drawn(self._loader)
