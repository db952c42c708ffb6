"""Verified copies of a training's state, to go back to: never a bad one over a good one.

A snapshot holds parameters, buffers, the optimizers' state, the scaler's scale and what `also` objects say is theirs.
It never holds `param_groups` or a scheduler: a rewind turns back tensors, not the plan of the training.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lossdoctor.remedies.agreement import Agreement
from lossdoctor.remedies.copies import Saved, copied, fresh, leaves, put_back, size_of
from lossdoctor.remedies.finite import CudaReadback, Readback, all_finite, floating, non_finite_flag, on_host

__all__ = ["Snapshot", "Snapshots", "is_due"]

logger = logging.getLogger(__name__)


class Snapshot:
    """The state of a training after the optimizer step `step`. `value` is the metric it is kept for, if for one."""

    def __init__(self, step: float, *, value: float | None = None) -> None:
        self.step = step
        self.value = value
        self.tensors: list[tuple[Tensor, Saved]] = []
        self.optimizer_states: list[dict[Any, Any]] = []
        self.scale: tuple[Saved | None, Saved | None] | None = None
        self.also: list[Any] = []
        self.finite: bool | None = None
        self.readback: Readback | None = None

    @property
    def verified(self) -> bool:
        """Whether the state is known to be finite."""
        if self.finite is None and self.readback is not None and (arrived := self.readback.arrived()):
            self.finite = not any(arrived)
        return self.finite is True

    @property
    def memory(self) -> int:
        """Bytes of its tensors."""
        parts = [[saved for _, saved in self.tensors], self.optimizer_states, self.also]
        return sum(size_of(part) for part in parts)


def is_due(step: float, last: float, *, total_steps: int | None = None) -> bool:
    """Whether a snapshot is due: every twentieth of the steps so far, but not more often than every 16 steps.

    A run that is known to be short is copied more often, down to every 4 steps. Steps decide, not clocks: a run with
    the same seed goes the same way on a slow machine.
    """
    smallest = 16 if total_steps is None else min(max(total_steps // 20, 4), 16)
    return step - last >= max(smallest, step // 20)


class Snapshots:
    """Several generations of verified snapshots, and the best weights.

    The first, taken before the first update, is kept for ever. Of the others the newest is kept and older ones so that
    their ages are spread evenly on a logarithmic scale.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        scaler: GradScaler | None = None,
        also: Sequence[Any] = (),
        generations: int = 5,
        agreement: Agreement | None = None,
        readback: Callable[[], Readback] = CudaReadback,
    ) -> None:
        self._model, self._optimizers = model, list(optimizers)
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._also = [thing for thing in also if not self._is_scheduler(thing)]
        self._generations = max(generations, 2)
        self._agreement = agreement
        self._make_readback = readback
        self._kept: list[Snapshot] = []
        self._candidates: list[Snapshot] = []
        self._best: Snapshot | None = None
        self._best_candidate: Snapshot | None = None
        self._masks: set[int] | None = None

    @staticmethod
    def _is_scheduler(thing: Any) -> bool:
        if isinstance(thing, LRScheduler):
            logger.warning("also=: a learning-rate scheduler is never rewound; it was left out")
            return True
        return False

    def _tensors(self) -> Iterator[Tensor]:
        """Parameters and buffers, each once; not what shares memory with itself (expanded constants)."""
        seen: set[int] = set()
        groups = (group["params"] for optimizer in self._optimizers for group in optimizer.param_groups)
        for tensor in (*self._model.parameters(), *self._model.buffers(), *(one for group in groups for one in group)):
            stacked = any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
            if id(tensor) not in seen and not stacked:
                seen.add(id(tensor))
                yield tensor

    def is_ready(self) -> bool:
        """Whether the model can be copied: lazy modules have no parameters before their first batch."""
        return not any(is_lazy(tensor) for tensor in (*self._model.parameters(), *self._model.buffers()))

    def copy(self, step: float, *, optimizers: bool = True, value: float | None = None) -> Snapshot:
        """A snapshot of the present state that is not kept; its `finite` is set, or known later on CUDA."""
        with torch.no_grad():
            snapshot = Snapshot(step, value=value)
            snapshot.tensors = [(tensor, copied(tensor)) for tensor in self._tensors()]
            if optimizers:
                snapshot.optimizer_states = [
                    {key: copied(state) for key, state in optimizer.state.items()} for optimizer in self._optimizers
                ]
                if self._scaler is not None:
                    # The tensors themselves: state_dict() would wait for the device.
                    snapshot.scale = (copied(self._scaler._scale), copied(self._scaler._growth_tracker))  # noqa: SLF001
            snapshot.also = [copied(thing.state_dict()) for thing in self._also]
            self._verify(snapshot, optimizers=optimizers)
        return snapshot

    def _verify(self, snapshot: Snapshot, *, optimizers: bool) -> None:
        """Find out whether a snapshot is finite, buffers that never were finite (masks of -inf) excepted."""
        if self._masks is None:  # the only look at device memory that waits: once, before the first step
            buffers = [buffer for buffer in self._model.buffers() if floating([buffer])]
            self._masks = {id(buffer) for buffer in buffers if not all_finite(floating([buffer]))}
        live = [tensor for tensor, _ in snapshot.tensors if id(tensor) not in self._masks]
        if optimizers:
            live += [tensor for optimizer in self._optimizers for tensor in leaves(dict(optimizer.state))]
        checked = floating(getattr(tensor, "_local_tensor", tensor) for tensor in live)
        snapshot.finite = all_finite([tensor for tensor in checked if tensor.device.type == "cpu"])
        elsewhere = [tensor for tensor in checked if tensor.device.type != "cpu"]
        if elsewhere and snapshot.finite:
            snapshot.finite, snapshot.readback = None, self._make_readback()
            snapshot.readback.send(non_finite_flag(elsewhere))

    def take(self, step: float) -> bool:
        """Copy the present state as a candidate; it is kept once it is known to be finite. False if it is not."""
        if not self._fits() or self.weights_are_finite() is False:
            return False
        snapshot = self.copy(step)
        if snapshot.finite is False:
            return False
        self._candidates.append(snapshot)
        self._promote()
        return True

    def _fits(self) -> bool:
        """Whether there is host memory for another snapshot; fewer generations are kept where it is short."""
        if self._generations and not self._kept and not self._candidates:
            # Weights and an optimizer's two moments; one generation more is alive while the oldest is replaced.
            each = 3 * sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())
            room = _available_memory() // 2
            fitting = room // max(each, 1) - 1
            if fitting < self._generations:
                self._generations = fitting if fitting >= 2 else 0  # noqa: PLR2004 - the first and the newest
                logger.warning(
                    "snapshots for a rewind would take %.1f GB each, half of the free memory is %.1f GB: %s",
                    each / 1e9,
                    room / 1e9,
                    f"{self._generations} are kept" if self._generations else "none are taken, there will be no rewind",
                )
            else:
                held, size = self._generations + 1, each / 1e6  # one more is alive while the oldest is replaced
                logger.info("snapshots for a rewind: at most %d of %.3g MB each in memory", held, size)
        return self._generations > 0

    def take_best(self, step: float, value: float) -> bool:
        """Copy the weights (not the optimizers' state) as the best so far; False if they are not finite."""
        snapshot = self.copy(step, optimizers=False, value=value)
        if snapshot.finite is False:
            return False
        self._best_candidate = snapshot
        self._promote()
        return True

    def _promote(self) -> None:
        if self._best_candidate is not None and self._best_candidate.verified:
            self._best, self._best_candidate = self._best_candidate, None
        for candidate in list(self._candidates):
            if candidate.verified:
                self._kept.append(candidate)
            if candidate.finite is not None:
                self._candidates.remove(candidate)
        while len(self._kept) > self._generations:
            ages = [self._kept[-1].step - snapshot.step + 1 for snapshot in self._kept]
            # What its neighbours replace best goes first; the first and the newest stay.
            ratios = {number: ages[number - 1] / ages[number + 1] for number in range(1, len(self._kept) - 1)}
            del self._kept[min(ratios, key=lambda number: (ratios[number], number))]

    def weights_are_finite(self) -> bool | None:
        """Whether the live parameters are finite; None where reading them would wait for a device."""
        weights = floating(self._model.parameters())
        return all_finite(weights) if on_host(weights) else None

    @property
    def newest_step(self) -> float | None:
        """The step of the newest snapshot, verified or not yet; None if there is none."""
        return max((snapshot.step for snapshot in (*self._kept, *self._candidates)), default=None)

    @property
    def steps(self) -> list[float]:
        """The steps of the verified snapshots, ascending."""
        self._promote()
        return [snapshot.step for snapshot in self._kept]

    @property
    def best(self) -> Snapshot | None:
        """The weights of the best evaluation; None before the first."""
        self._promote()
        return self._best

    @property
    def memory(self) -> int:
        """Bytes held by all snapshots."""
        held = (*self._kept, *self._candidates, self._best, self._best_candidate)
        return sum(snapshot.memory for snapshot in held if snapshot is not None)

    def before(self, since: float, *, other_than: frozenset[float] = frozenset()) -> Snapshot | None:
        """The newest verified snapshot whose weights the step records before `since` have shown to be sound.

        The weights after step s are first seen at work by the record of step s + 1; that record must be before
        `since`. The first snapshot of a run is never refused: nothing older exists. `other_than` are steps of
        snapshots not to return.
        """
        self._promote()
        kept = self._kept
        if self._agreement is not None:
            common = self._agreement.common({one.step for one in kept})
            kept = [one for one in kept if one.step in common]
        sound = [one for one in kept if one.step + 1 < since or (one is kept[0] and one.step < since)]
        return next((snapshot for snapshot in reversed(sound) if snapshot.step not in other_than), None)

    def drop_after(self, step: float) -> None:
        """Drop snapshots younger than `step`: a fault is in them, or a rewind has made them untrue."""
        self._candidates = [snapshot for snapshot in self._candidates if snapshot.step <= step]
        self._kept = [snapshot for snapshot in self._kept if snapshot.step <= step]

    def restore(self, snapshot: Snapshot) -> None:
        """Write a snapshot's values into the live tensors, in place. Gradients become zero: they belong elsewhere."""
        # First, because only here code that is not ours can fail.
        for thing, saved_thing in zip(self._also, snapshot.also, strict=True):
            thing.load_state_dict(fresh(saved_thing))
        with torch.no_grad():
            for tensor, saved in snapshot.tensors:
                if isinstance(tensor, torch.nn.Parameter) or tensor.requires_grad:
                    tensor.copy_(saved.values, non_blocking=True)
                    if tensor.grad is not None:
                        tensor.grad.zero_()
                else:
                    tensor.data.copy_(saved.values, non_blocking=True)  # as BatchNorm does: not a new version
            for optimizer, states in zip(self._optimizers, snapshot.optimizer_states, strict=False):
                for key in [key for key in optimizer.state if key not in states]:
                    del optimizer.state[key]
                for key, saved_state in states.items():
                    optimizer.state[key] = put_back(optimizer.state.get(key), saved_state)
            self._restore_scale(snapshot)

    def _restore_scale(self, snapshot: Snapshot) -> None:
        if self._scaler is None or snapshot.scale is None:
            return
        scaler, (scale, tracker) = self._scaler, snapshot.scale
        if scaler._scale is not None:  # noqa: SLF001 - load_state_dict() wants numbers, and those would wait for the device
            scaler._scale.copy_(scale.values) if scale is not None else scaler._scale.fill_(scaler._init_scale)  # noqa: SLF001
        if scaler._growth_tracker is not None:  # noqa: SLF001
            if tracker is not None:
                scaler._growth_tracker.copy_(tracker.values)  # noqa: SLF001
            else:
                scaler._growth_tracker.fill_(scaler._init_growth_tracker)  # noqa: SLF001


def _available_memory() -> int:
    """Bytes of host memory that are free or can be freed; very many where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 1 << 62
