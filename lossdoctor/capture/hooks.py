"""The plumbing: what is hooked into an optimizer and the engine, and what is read there.

Three places. A hook behind one parameter's gradient notices a backward pass and, where norms are due, asks the engine
to be called at its end: there the gradients are complete and nobody has clipped them yet. The optimizer's step
pre-hook sees what the optimizer is given, and its post-hook what it made of it.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import Variable
from torch.optim import Optimizer

from lossdoctor.capture.faults import Faults
from lossdoctor.capture.measures import copies, subtract
from lossdoctor.capture.microbatches import MicroBatches
from lossdoctor.capture.parts import PartState, by_device
from lossdoctor.capture.record import NO_SETTINGS, Part, Reading, Record, arrives_at
from lossdoctor.capture.ring import Drain
from lossdoctor.capture.scaler import ScalerWatch
from lossdoctor.capture.scheduler import note_position
from lossdoctor.capture.settings import SettingsReader
from lossdoctor.capture.shards import Shards

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["OptimizerTap", "TapContext"]


class TapContext:
    """What the taps of a training share: the record being made, and where its numbers go."""

    def __init__(
        self, scaler: ScalerWatch, faults: Faults, *, optimizers: int, shards: Shards | None, scheduler: Any
    ) -> None:
        self.record = Record()
        self.drain = Drain()
        self.scaler = scaler
        self.faults = faults
        self.uses_scaler = scaler.is_enabled
        self.optimizers = optimizers
        self.shards = shards
        self.scheduler = scheduler
        self.epochs = 0
        """Passes over the training loader begun so far."""
        self.parts: list[Part] = []
        self.backwards = 0
        """Backward passes since an optimizer's step."""
        self.norm_seconds = 0.0
        self.waits_for_ddp = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.several_groups = False
        self.roll: Callable[[], None] = lambda: None
        """Finishes the record where the loop reports a loss before its optimizer step."""
        self.drop: Callable[[], None] = lambda: None
        """Takes back what the loop reported of micro-batches whose gradients it threw away."""


class OptimizerTap:
    """Watches one optimizer.

    `layers` maps a parameter's id to the number of its layer; `first_group` is the number of the optimizer's first
    group among the groups of all optimizers.
    """

    def __init__(
        self, number: int, optimizer: Optimizer, context: TapContext, *, layers: dict[int, int], first_group: int = 0
    ) -> None:
        self.number = number
        self.optimizer = optimizer
        self._settings = SettingsReader(optimizer, first_group=first_group)
        self._context = context
        self._layers = layers
        self._bit = 1 << number
        self._groups: list[int] = []
        self._parts: list[PartState] = []
        self._find_parameters()
        self._gradient_hook: RemovableHandle | None = None
        self._hooked: Tensor | None = None
        self._is_reentrant = False
        self._in_step = False
        self._closure = False
        self._evaluations = 0
        guard, protect = context.faults.guard, context.faults.protect
        # With several optimizers the backward pass of one leaves gradients of another's behind.
        is_alone = context.optimizers == 1 and context.shards is None and not context.waits_for_ddp
        self._micro = MicroBatches(sharded=context.shards is not None, guard=guard if is_alone else None)
        self._note_settings = protect("optimizer settings", self._read_settings)
        self._note_clipped = protect("clipped gradient norms", self._read_clipped)
        self._begin_sample = protect("parameter samples", self._sample)
        self._end_sample = protect("parameter samples", self._sample_change)
        self._on_backward = guard("backward hook", self._saw_backward)
        self._on_backward_end = guard("gradient norms", self._backward_ended)
        self._on_reduced = guard("reduced gradients", self._reduced)
        self._handles = [
            optimizer.register_step_pre_hook(guard("step pre-hook", self._before_step)),
            optimizer.register_step_post_hook(guard("step post-hook", self._after_step)),
        ]
        self._hook([parameter for part in self._parts for parameter in part.parameters])

    def remove(self) -> None:
        """Take every hook out again."""
        for handle in self._handles:
            handle.remove()
        if self._gradient_hook is not None:
            self._gradient_hook.remove()
        self._micro.close()
        for part in self._parts:
            part.before = None

    @property
    def backwards(self) -> int:
        """Backward passes since the last step of this optimizer."""
        return self._micro.count

    def skipped(self) -> None:
        """The scaler skipped the step: the next backward pass begins a new one."""
        if self._micro.count:
            self._micro.stepped()

    # -- the backward pass

    def _hook(self, candidates: list[Tensor]) -> None:
        """Notice backward passes by the gradient of the smallest of the candidates that can have one.

        With reentrant checkpoints by that of the first: they run backward passes within the backward pass, in which
        the end of the inner one is told; the gradients nearest to the input come last.
        """
        trainable = [parameter for parameter in candidates if parameter.requires_grad and parameter.is_leaf]
        if trainable:
            if self._gradient_hook is not None:
                self._gradient_hook.remove()
            if self._context.shards is not None:
                trainable = list(self._context.shards.trigger(trainable))
            parameter = self._hooked = trainable[0] if self._is_reentrant else min(trainable, key=Tensor.numel)
            self._gradient_hook = parameter.register_post_accumulate_grad_hook(self._on_backward)

    def _saw_backward(self, parameter: Tensor) -> None:
        context = self._context
        if context.record.calls:
            context.roll()
        context.backwards += 1
        record = context.record
        micro = self._micro
        if not micro.count:  # most often
            micro.first(parameter)
        elif micro.saw(parameter.grad) and record.calls and not record.fired and context.optimizers == 1:
            context.drop()
        if context.waits_for_ddp:
            if not record.began:
                record.began = time.perf_counter()
            _after_backward(self._on_reduced)
        if not record.norms_due or (context.optimizers > 1 and record.fired & self._bit):
            return
        if self._in_step:
            self._closure = True
            self._evaluations += 1
            if self._evaluations > 1:
                return  # the closure's first evaluation is the gradient at the parameters before the step
        if context.waits_for_ddp:
            _after_backward(self._on_backward_end)
        else:
            Variable._execution_engine.queue_callback(self._on_backward_end)  # noqa: SLF001

    def _reduced(self) -> None:
        self._micro.changed(None if self._hooked is None else self._hooked.grad)

    def _backward_ended(self) -> None:
        started = time.perf_counter()
        context, record = self._context, self._context.record
        if not record.norms_due:
            return
        if not self._is_reentrant and torch._C._current_autograd_node() is not None:  # noqa: SLF001 - an outer pass goes on
            self._is_reentrant, self._micro.count = True, 0
            self._hook([parameter for part in self._parts for parameter in part.parameters])
            return
        if context.uses_scaler and (scale := context.scaler.scale) is not None:
            context.drain.scalar(scale, record, arrives_at(record, "scale"))
        is_last = self._in_step or self._micro.count >= self._micro.expected
        for part in self._parts:
            gradients, indexes = part.gradients()
            part.versions = [gradient._version for gradient in gradients]  # noqa: SLF001
            part.is_read = is_last or part.sharded
            if part.is_read:
                self._read(part.number, gradients, indexes, record.unclipped, scaled=context.uses_scaler)
        context.norm_seconds += time.perf_counter() - started

    def _read(
        self, part: int, gradients: list[Tensor], indexes: list[int] | None, into: dict[int, Reading], *, scaled: bool
    ) -> None:
        record = self._context.record
        shares = self._context.parts[part].shares

        def arrived(norms: list[float]) -> None:
            if shares is not None:
                mine = shares if indexes is None else [shares[index] for index in indexes]
                norms = [norm * share for norm, share in zip(norms, mine, strict=True)]
            into[part] = Reading(norms, indexes, scaled)

        self._context.drain.norms(gradients, record, arrived)

    # -- the optimizer's step

    def _before_step(self, *_: object) -> None:
        context, record = self._context, self._context.record
        self._in_step = True
        self._evaluations = 0
        record.attempts += 1
        if record.fired & self._bit and context.optimizers == 1:  # several steps between two calls: the last counts
            record.values.clear()
            record.settings = NO_SETTINGS
            if record.norms_due:
                record.clipped.clear()
                record.unchanged.clear()
        record.fired |= self._bit
        count = self._micro.count
        if count > record.micro_batches:  # noqa: PLR1730 - a call less at every step
            record.micro_batches = count
        context.backwards = 0
        groups, settings = self.optimizer.param_groups, self._settings
        if len(groups) != len(self._groups) or (
            record.norms_due and self._groups != [len(group["params"]) for group in groups]
        ):
            self._find_parameters()
        if not (record.settings or record.values) and settings.hold(groups):
            record.settings = settings.values
        else:
            self._note_settings(record)
        if context.uses_scaler:
            context.scaler.account()
            found = getattr(self.optimizer, "found_inf", None)
            if found is not None:
                context.drain.scalar(found, record, arrives_at(record, "found_inf"))
        if record.norms_due and not self._closure:
            self._note_clipped(record)
        if record.samples_due:
            self._begin_sample(record)

    def _read_settings(self, record: Record) -> None:
        self._settings.read(record, self._context.drain, several=self._context.several_groups)

    def _read_clipped(self, record: Record) -> None:
        """What the optimizer is given. It is what the backward pass left if no gradient's version changed since."""
        started = time.perf_counter()
        context = self._context
        scaled = context.uses_scaler and getattr(self.optimizer, "grad_scale", None) is not None
        for part in self._parts:
            gradients, indexes = part.gradients()
            if not gradients:
                continue
            same = part.are_unchanged(gradients)
            if same and part.is_read:
                record.unchanged.add(part.number)
                continue
            self._read(part.number, gradients, indexes, record.clipped, scaled=scaled)
            if same:
                # The last backward pass of a shorter accumulation than the one before: not read at its end.
                self._read(part.number, gradients, indexes, record.unclipped, scaled=scaled)
            elif scaled:
                record.changed_while_scaled = True
        context.norm_seconds += time.perf_counter() - started

    def _sample(self, record: Record) -> None:
        note_position(record.values, self._context.scheduler, self._context.epochs)
        self._micro.note(record.values)
        for part in self._parts:
            part.sampled, part.indexes = part.trainable()
            if part.sampled:
                part.before = copies(part.sampled)
                self._read(part.number, part.before, part.indexes, record.parameters, scaled=False)

    def _sample_change(self, record: Record) -> None:
        for part in self._parts:
            if part.before is not None:
                before, part.before = part.before, None
                changes = subtract(before, part.sampled)
                self._read(part.number, changes, part.indexes, record.updates, scaled=False)

    def _after_step(self, *_: object) -> None:
        context, record = self._context, self._context.record
        self._in_step = False
        if record.samples_due:
            self._end_sample(record)
        for part in self._parts:
            if part.versions:
                if self._closure and part.is_read and record.norms_due:
                    record.unchanged.add(part.number)
                part.versions, part.is_read = [], False
        micro = self._micro
        if not micro.count:  # the hooked parameter gets no gradient: notice backward passes by one that does
            self._hook([p for part in self._parts for p in part.parameters if p.grad is not None])
        micro.stepped(self._hooked)
        context.backwards = 0

    def _find_parameters(self) -> None:
        """Sort the parameters by device. Parts keep their numbers; a changed set of parameters gets new ones."""
        self._groups = [len(group["params"]) for group in self.optimizer.param_groups]
        self._parts = []
        for parameters in by_device(self.optimizer):
            layers: npt.NDArray[np.intp] = np.array([self._layers.get(id(p), -1) for p in parameters], dtype=np.intp)
            shards = self._context.shards
            part = Part(len(self._context.parts), layers, None if shards is None else shards.shares(parameters))
            part.ids.extend(map(id, parameters))
            self._context.parts.append(part)
            self._parts.append(PartState(part.number, parameters))
        self.copied_bytes = sum(part.copied_bytes for part in self._parts)


def _after_backward(callback: Callable[[], None]) -> None:
    """Have it called behind the callbacks of DDP and FSDP, which put the gradients of all ranks in place."""
    queue = Variable._execution_engine.queue_callback  # noqa: SLF001
    queue(lambda: queue(callback))
