"""Verified copies of a training's state, to go back to: never a bad one over a good one.

A snapshot holds parameters, buffers, the optimizers' state, the scaler's scale and what `also` objects say is theirs.
It never holds `param_groups` or a scheduler: a rewind turns back tensors, not the plan of the training.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lossdoctor.remedies.finite import CudaReadback, Readback, all_finite, floating, non_finite_flag, on_host
from lossdoctor.remedies.keeping.copies import Keep, Saved, copied, fresh, in_memory, leaves, put_back, size_of
from lossdoctor.remedies.keeping.holding import Holding, local
from lossdoctor.remedies.keeping.places import Place

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

    def verify(self, *, wait: bool = False) -> None:
        """See whether it has become known if the state is finite; with `wait` it has."""
        if self.finite is None and self.readback is not None:
            arrived = self.readback.arrived(wait=True) if wait else self.readback.arrived()
            self.finite = not any(arrived) if arrived else None

    @property
    def verified(self) -> bool:
        """Whether the state is known to be finite."""
        self.verify()
        return self.finite is True

    @property
    def memory(self) -> int:
        """Bytes of its tensors."""
        parts = [[saved for _, saved in self.tensors], self.optimizer_states, self.also]
        return sum(size_of(part) for part in parts)


def is_due(step: float, last: float, *, total_steps: int | None = None, on_disk: bool = False) -> bool:
    """Whether a snapshot is due: every twentieth of the steps so far, but not more often than every 16 steps.

    A run that is known to be short is copied more often, down to every 4 steps. On disk it is half as often. Steps
    decide, not clocks: a run with the same seed goes the same way on a slow machine.
    """
    smallest = 16 if total_steps is None else min(max(total_steps // 20, 4), 16)
    return step - last >= max(smallest, step // 20) * (2 if on_disk else 1)


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
        readback: Callable[[], Readback] = CudaReadback,
        place: Place | None = None,
    ) -> None:
        self._model, self._optimizers = model, list(optimizers)
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._also = [thing for thing in also if not self._is_scheduler(thing)]
        self._generations = self._room = max(generations, 2)
        self._holding = Holding(model, optimizers)
        self._place = Place() if place is None else place
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

    def is_ready(self) -> bool:
        """Whether the model can be copied: lazy modules have no parameters before their first batch."""
        return not any(is_lazy(tensor) for tensor in (*self._model.parameters(), *self._model.buffers()))

    def copy(self, step: float, *, optimizers: bool = True, value: float | None = None) -> Snapshot:
        """A snapshot of the present state that is not kept; its `finite` is set, or known later on CUDA."""
        snapshot = Snapshot(step, value=value)
        with torch.no_grad():
            self._verify(snapshot, optimizers=optimizers)
            self._fill(snapshot, optimizers=optimizers)
        return snapshot

    def _fill(self, snapshot: Snapshot, *, optimizers: bool) -> None:
        """Copy the present state into a snapshot."""
        tensors = list(self._holding.tensors())
        states = [optimizer.state for optimizer in self._optimizers] if optimizers else []
        also = [thing.state_dict() for thing in self._also]

        def fill(keep: Keep) -> None:
            snapshot.tensors = [(tensor, copied(tensor, keep)) for tensor in tensors]
            snapshot.optimizer_states = [
                {key: copied(state, keep) for key, state in states_of_one.items()} for states_of_one in states
            ]
            snapshot.also = copied(also, keep)

        try:
            with self._place.keeper(leaves([tensors, *map(dict, states), also])) as keep:
                fill(keep)
        except OSError as error:
            self._place.give_up_the_disk(error)
            self._room = self._place.settle(self._size, self._generations)
            if not self._room:
                raise MemoryError("there is no room for a copy of the training's state") from None
            self._generations = self._room
            fill(in_memory)
        if optimizers and self._scaler is not None:
            # The tensors themselves: state_dict() would wait for the device.
            snapshot.scale = (copied(self._scaler._scale), copied(self._scaler._growth_tracker))  # noqa: SLF001

    def _verify(self, snapshot: Snapshot, *, optimizers: bool) -> None:
        """Find out, before it is copied, whether the present state is finite; masks of -inf that never were are not."""
        if self._masks is None:  # the only look at device memory that waits: once, before the first step
            buffers = [buffer for buffer in self._model.buffers() if floating([buffer])]
            self._masks = {id(buffer) for buffer in buffers if not all_finite(floating([local(buffer)]))}
        live = [tensor for tensor in self._holding.tensors() if id(tensor) not in self._masks]
        if optimizers:
            live += [tensor for optimizer in self._optimizers for tensor in leaves(dict(optimizer.state))]
        checked = floating(local(tensor) for tensor in live)
        snapshot.finite = all_finite([tensor for tensor in checked if tensor.device.type == "cpu"])
        elsewhere = [tensor for tensor in checked if tensor.device.type != "cpu"]
        if elsewhere and snapshot.finite:
            snapshot.finite, snapshot.readback = None, self._make_readback()
            snapshot.readback.send(non_finite_flag(elsewhere))

    def take(self, step: float) -> bool:
        """Copy the present state as a candidate; it is kept once it is known to be finite. False if it is not."""
        if not self._fits():
            return False
        snapshot = Snapshot(step)
        with torch.no_grad():
            self._verify(snapshot, optimizers=True)
            if snapshot.finite is False:
                return False
            try:
                self._fill(snapshot, optimizers=True)
            except MemoryError:
                return False
        self._candidates.append(snapshot)
        self._promote()
        return True

    def _fits(self) -> bool:
        """Whether there is room for another snapshot; fewer generations are kept where it is short."""
        if self._room and not self._kept and not self._candidates:
            self._room = self._place.settle(self._size, self._generations)
            self._generations = self._room or self._generations
        return self._room > 0

    @property
    def _size(self) -> int:
        """Bytes of a snapshot, about: weights and an optimizer's two moments."""
        return 3 * sum(local(tensor).nbytes for tensor in self._holding.tensors())

    @property
    def are_on_disk(self) -> bool:
        """Whether the large tensors of the next snapshot go to files."""
        return self._place.is_disk

    def take_best(self, step: float, value: float) -> bool:
        """Copy the weights (not the optimizers' state) as the best so far; False if they are not finite."""
        try:
            snapshot = self.copy(step, optimizers=False, value=value)
        except MemoryError:
            return False
        if snapshot.finite is False:
            return False
        self._best_candidate = snapshot
        self._promote()
        return True

    def adopt_best(self, step: float, value: float) -> bool:
        """Take over what another process found to be the best weights; False if they are not finite."""
        return self.take_best(step, value)

    def stand_by(self, step: float) -> None:
        """The present weights may be adopted later, where another process decides about that."""

    def best_of_all(self) -> Snapshot | None:
        """The weights of the best evaluation, where every process that trains the model has them."""
        return self.best

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
        weights = floating(self._holding.weights())
        return all_finite(weights) if on_host(self._model.parameters()) else None

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
        kept = self._verified()
        sound = [one for one in kept if one.step + 1 < since or (one is kept[0] and one.step < since)]
        return next((snapshot for snapshot in reversed(sound) if snapshot.step not in other_than), None)

    def _verified(self) -> list[Snapshot]:
        """The snapshots that are known to be finite."""
        self._promote()
        return self._kept

    def drop_after(self, step: float) -> None:
        """Drop snapshots younger than `step`: a fault is in them, or a rewind has made them untrue."""
        self._candidates = [snapshot for snapshot in self._candidates if snapshot.step <= step]
        self._kept = [snapshot for snapshot in self._kept if snapshot.step <= step]

    def close(self) -> None:
        """Let go of all snapshots: their memory, or their files, are free again."""
        self._kept, self._candidates, self._best, self._best_candidate = [], [], None, None

    def restore(self, snapshot: Snapshot) -> None:
        """Write a snapshot's values into the live tensors, in place. Gradients become zero: they belong elsewhere."""
        # First, because only here code that is not ours can fail.
        for thing, saved_thing in zip(self._also, snapshot.also, strict=True):
            thing.load_state_dict(fresh(saved_thing))
        self._holding.gather_anew()
        with torch.no_grad():
            for tensor, saved in snapshot.tensors:
                if isinstance(tensor, torch.nn.Parameter) or tensor.requires_grad:
                    local(tensor).copy_(saved.values, non_blocking=True)
                else:
                    local(tensor.data).copy_(saved.values, non_blocking=True)  # as BatchNorm does: not a new version
            self._holding.zero_gradients()
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
