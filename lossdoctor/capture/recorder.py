"""The recorder: joins what the hooks read and what the loop reports to rows, one for each optimizer step."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lossdoctor.capture.data_watch import DataWatch
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.hooks import OptimizerTap, TapContext
from lossdoctor.capture.instruments import Instruments
from lossdoctor.capture.losses import LossWatch
from lossdoctor.capture.names import Layer
from lossdoctor.capture.record import EvaluationRecord, LayerRows, Record, complete
from lossdoctor.capture.reported import IdleCalls, one_number
from lossdoctor.capture.resources import ResourceSampler, accelerators
from lossdoctor.capture.ring import host_number
from lossdoctor.capture.rows import Rows
from lossdoctor.capture.scaler import ScalerWatch
from lossdoctor.capture.schedule import Cadence, SampleSteps, Sparse
from lossdoctor.capture.shards import Shards
from lossdoctor.capture.timing import StopWatch

__all__ = ["Recorder"]


class Recorder:
    """Makes rows. `rows` holds the finished ones until they are taken; nothing here touches a disk.

    `reads_at_once` has every loss in host memory read when it is reported, for a doctor who must know at each step.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        *,
        layers: Sequence[Layer] = (),
        scaler: Any = None,
        faults: Faults,
        grad_norm_every: int | None = None,
        reads_at_once: bool = False,
        shards: Shards | None = None,
        model: nn.Module | None = None,
        scheduler: Any = None,
    ) -> None:
        self.rows = Rows()
        self.watch = StopWatch()
        self.cadence = Cadence(grad_norm_every)
        self.step = 0
        """The step of the last record."""
        self.saw_non_finite_loss = False
        """Whether a loss became NaN or infinite since this was last set to False."""
        self.resources: ResourceSampler | None = None
        self._optimizers, self._faults = optimizers, faults
        self._losses, self._reads_at_once = LossWatch(), reads_at_once
        self.last_loss_is_finite: bool | None = None
        """Whether the last loss that was read was finite; None if none was."""
        self._scaler = ScalerWatch(scaler)
        self._context = TapContext(self._scaler, faults, optimizers=len(optimizers), shards=shards, scheduler=scheduler)
        self._context.roll, self._context.drop = self._roll, self._drop
        self._context.several_groups = sum(len(optimizer.param_groups) for optimizer in optimizers) > 1
        self.data = DataWatch(model, self._context)
        drain = self._context.drain
        self.instruments = None if model is None else Instruments(model, layers, optimizers, drain, faults)
        self._layer_rows = LayerRows(self._context.parts, len(layers))
        layer_numbers = {id(parameter): at for at, layer in enumerate(layers) for parameter in layer.parameters}
        self._taps: list[OptimizerTap] = []
        groups = 0
        for number, optimizer in enumerate(optimizers):
            tap = OptimizerTap(number, optimizer, self._context, layers=layer_numbers, first_group=groups)
            self._taps.append(tap)
            groups += len(optimizer.param_groups)
        self._sample_steps, self._looks_inside = SampleSteps(), Sparse()
        self._row = self._sample_row = 0
        self._sample_pending, self._is_finite = False, True
        self._queue: deque[Record | EvaluationRecord] = deque()
        self._idle = IdleCalls(faults, optimizers)
        self._multipliers: Sequence[float] = ()
        self._open()

    def watch_resources(self) -> None:
        """Begin to record memory and utilization, once a second, from a thread of its own."""
        groups = [group["params"] for optimizer in self._optimizers for group in optimizer.param_groups]
        self.resources = ResourceSampler(accelerators([one for group in groups for one in group]), self._faults)

    def close(self) -> None:
        """Finish the last record if the loop reported it, wait for its numbers, take out every hook."""
        record = self._context.record
        self._idle.evaluated()
        if record.calls and (record.fired or self._idle.is_stepless):
            self._finish(record, self._multipliers)
        self.collect(lag=0)
        for tap in self._taps:
            tap.remove()
        self.data.close()
        if self.instruments is not None:
            self.instruments.close()
        if self.resources is not None:
            self.resources.close()

    # -- what the loop reports

    def report(
        self,
        loss: Any,
        samples: float | None = None,
        tokens: float | None = None,
        metrics: Mapping[str, Any] | None = None,
        multipliers: Sequence[float] = (),
    ) -> bool:
        """Take in a call of monitor.step; whether it finishes a record: an optimizer stepped, or was skipped, since."""
        context = self._context
        record = context.record
        skipped = not record.fired and context.uses_scaler and self._scaler.attempted()
        record.calls += 1
        if type(loss) is Tensor and self._losses.is_patient and loss.is_cpu and not loss.ndim:
            kept = loss.detach()
            self._losses.kept.append((kept, kept._version, record))  # noqa: SLF001 - as its keep(), without the call
        elif isinstance(loss, Mapping):
            for name, value in loss.items():
                self._note(record, f"train_loss_{name}", value)
        elif loss is not None:
            self._note(record, "train_loss", loss)
        if samples is None and self.watch.batch_size is not None:
            samples, self.watch.batch_size = self.watch.batch_size, None
        if samples is not None:
            record.samples = samples + (record.samples or 0.0)
        if tokens is not None:
            record.tokens = tokens + (record.tokens or 0.0)
        if metrics:
            for name, value in metrics.items():
                self._note(record, name if name.startswith("train_") else f"train_{name}", value)
        if record.fired or skipped:
            record.skipped = skipped
            self._finish(record, multipliers)
            return True
        if self._optimizers:
            self._idle.called(had_backward=context.backwards > 0)
            context.backwards = 0
        if self._idle.is_stepless:
            self._finish(record, multipliers)
        return self._idle.is_stepless

    def evaluated(self, loss: Any, metrics: Mapping[str, Any]) -> None:
        """Take in one validation, after the last finished step."""
        self._idle.evaluated()
        if self._context.record.calls:
            self._roll()
        record = EvaluationRecord(float(self.step), time.time())
        named = {name if name.startswith("val_") else f"val_{name}": value for name, value in metrics.items()}
        if loss is not None:
            named["val_loss"] = loss
        for name, value in named.items():
            number = one_number(name, value, self._faults)
            if isinstance(number, Tensor):
                self._context.drain.scalar(number, record, record.values.setdefault(name, []).extend)
            elif number is not None:
                record.values[name] = [number]
        self.data.evaluated(record)
        self._queue.append(record)
        self.watch.restart()

    def collect(self, *, lag: int | None = None) -> None:
        """Move what has arrived from the devices into `rows`; with `lag`, wait for all but the newest shipments."""
        drain = self._context.drain
        self._losses.read()
        drain.ship()
        if lag is None:
            drain.deliver()
        else:
            drain.wait(newest=lag)
        self._pump()

    @property
    def unread(self) -> int:
        """Records that were finished but not collected."""
        return len(self._queue)

    @property
    def buffer_bytes(self) -> int:
        """Memory of the buffers for numbers on their way, and of the copies that a sample step takes."""
        return self._context.drain.buffer_bytes + sum(tap.copied_bytes for tap in self._taps)

    @property
    def is_on_host(self) -> bool:
        """Whether everything read so far was in host memory."""
        return self._context.drain.is_on_host

    def resume(self, step: int) -> None:
        """Go on counting after `step`."""
        self.step = self._row = self._sample_row = step
        self._open()
        self._context.record.values["resumed"] = 1.0

    # -- records

    def _open(self) -> None:
        row = self._row
        if row >= self._sample_row:
            self._sample_pending = True
            self._sample_row = self._sample_steps.after(row)
        due = self._sample_pending
        self._context.record = Record(
            samples_due=due, norms_due=due or self.step % self.cadence.every == 0 or not self._is_finite
        )
        if due:
            self.data.open(self._context.record)
        if self.instruments is not None and (self.instruments.compares or (due and self._looks_inside.turn())):
            self.instruments.opened(self._context.record)

    def _roll(self) -> None:
        """Finish the record where the loop reports its loss before the optimizer steps."""
        record = self._context.record
        if not record.fired and self._context.uses_scaler and self._scaler.attempted():
            record.skipped = True
        if record.fired or record.skipped:
            self._finish(record, self._multipliers)

    def _drop(self) -> None:
        self._idle.dropped()
        self._losses.read()  # losses read later would not be known from those of the coming micro-batches
        self._context.record.drop()

    def _finish(self, record: Record, multipliers: Sequence[float] = ()) -> None:
        context = self._context
        if self._idle.is_counting:
            self._idle.finished(record.values, stepped=bool(record.fired) or record.skipped)
        self.step += record.attempts if record.attempts > 1 and len(self._taps) == 1 else 1
        record.step, record.time, watch = self.step, time.time(), self.watch
        if record.began and record.began > watch.since > -math.inf:
            record.values["time_to_backward"] = record.began - watch.since
        if watch.is_plain:  # most often; without the call
            now = time.perf_counter()
            record.step_time = watch.step_time = now - watch.since
            watch.since = now
        else:
            record.step_time = watch.lap(record.values)
        if record.fired:
            self._sample_pending = False
            if multipliers:
                record.multiplier = next((by for at, by in enumerate(multipliers) if record.fired >> at & 1), 1.0)
        elif record.skipped:
            record.micro_batches = max(tap.backwards for tap in self._taps)
            for tap in self._taps:
                tap.skipped()
        if self.resources is not None and self.resources.fresh:
            self.resources.attach(record.values)
        if context.uses_scaler or not self.cadence.settled or record.samples_due or record.sampled or record.probe:
            self._settle(record)
        self._is_finite = self.last_loss_is_finite is not False
        self._row += 1
        self._queue.append(record)
        self._multipliers = multipliers
        if self._row >= self._sample_row or self._sample_pending or (self.instruments and self.instruments.compares):
            self._open()
            return
        context.record = following = Record.__new__(Record)  # most often; as _open() does, without the calls
        following.losses, following.values = [], {}
        if self.step % self.cadence.every == 0 or not self._is_finite:
            following.measure_norms()

    def _settle(self, record: Record) -> None:
        """What the end of a record means to all who do something at few of them."""
        if self._context.uses_scaler:
            self._scaler.settle()
        if not self.cadence.settled:
            self.cadence.add(record.step_time, self._context.norm_seconds)
            self._context.norm_seconds = 0.0
        if record.samples_due or record.sampled:
            self.data.finished(record)
        if record.probe is not None and self.instruments is not None:
            self.instruments.finished(record)

    def _pump(self) -> None:
        """Make rows of the records whose numbers have all arrived, in order."""
        queue = self._queue
        while queue and not queue[0].waiting:
            record = queue.popleft()
            if isinstance(record, Record):
                self._complete(record)
            else:
                self.rows.evaluated(record)

    def _complete(self, record: Record) -> None:
        complete(record, uses_scaler=self._context.uses_scaler, several_losses=len(self._taps) > 1)
        self.rows.steps.append(record)
        if self._losses.is_patient and record.losses:
            self._judge_loss(record.losses[-1])
        seen = {} if record.probe is None else self.instruments.completed(record, self._context.parts)  # type: ignore[union-attr]
        if layers := self._layer_rows.row(record, seen):
            self.rows.layers.append((record.step, record.time, layers))

    # -- numbers

    def _note(self, record: Record, name: str, value: Any) -> None:
        number = one_number(name, value, self._faults)
        if number is None:
            return
        if not isinstance(number, Tensor):
            self._take(record, name, number)
        elif not number.is_cpu:
            self._context.drain.scalar(number, record, record.list_of(name).extend)
        else:
            if name == "train_loss" and not number.ndim and not self._reads_at_once:
                self._losses.watch(number, record)
            self._take(record, name, host_number(number))

    def _take(self, record: Record, name: str, number: float) -> None:
        record.list_of(name).append(number)
        if name == "train_loss":
            self._judge_loss(number)

    def _judge_loss(self, loss: float) -> None:
        was_finite, self.last_loss_is_finite = self.last_loss_is_finite, math.isfinite(loss)
        if was_finite is not False and not self.last_loss_is_finite:
            self.saw_non_finite_loss = True
