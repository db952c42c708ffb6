"""Watches the data go by: the batches of both splits and the model's outputs, measured at sample steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lossdoctor.capture.batch import (
    INPUT_MEASURES,
    Layout,
    input_measures,
    label_measures,
    label_signals,
    layout_of,
    padding_measures,
)
from lossdoctor.capture.hooks import TapContext
from lossdoctor.capture.leakage import RowSketch, row_keys, share_seen
from lossdoctor.capture.loss_graph import is_broadcast, loss_measures, ran_eagerly
from lossdoctor.capture.order import EpochOrder, OrderRepeats, length_of
from lossdoctor.capture.output import (
    OutputTap,
    broadcast_trap,
    by_class,
    output_measures,
    output_of,
    output_signals,
)
from lossdoctor.capture.record import EvaluationRecord, Record
from lossdoctor.capture.ring import Sink
from lossdoctor.runs.info import RunInfo

__all__ = ["DataWatch", "Pass", "Split"]

Split: TypeAlias = Literal["train", "val"]

_SKETCHED = 1000
_SKETCHED_ROWS = 32_768
"""Batches and rows of a split that are hashed; of larger splits the share of leaked rows is a lower bound."""


class DataWatch:
    """What is measured of a training's data. `model` is None where outputs are not watched."""

    def __init__(self, model: nn.Module | None, context: TapContext) -> None:
        self.classes: int | None = None
        """Classes of the task: the width of the output, where labels are class ids."""
        self._context = context
        self._most = 1
        self._tap = None if model is None else OutputTap(model, context.faults, self._saw_output)
        self._has_begun = False
        self._record: Record | None = None
        """The record being sampled."""
        self.is_sampling = False
        """Whether there is one; asked at every step."""
        self._labels: tuple[torch.Size, bool] | None = None
        """Shape of its labels, and whether they are integers."""
        self._batches = self._outputs = 0
        self._output: tuple[torch.Size, Any] | None = None
        """Shape of its first output, and the node of the graph that made it, until its loss is known."""
        self._is_binary = False
        self._orders = OrderRepeats()
        self._sketches = {"train": RowSketch(), "val": RowSketch()}
        self._sketched = {"train": 0, "val": 0}
        self._repeated: float | None = None
        self._seen: tuple[int, int, float | None] = (0, 0, None)
        self._validation: list[tuple[Tensor, Callable[[dict[str, float], Sequence[float]], None]]] = []
        self._attach = context.faults.protect(
            "model outputs", (lambda: None) if self._tap is None else self._tap.attach
        )
        self._check = context.faults.protect("shapes of the loss", self._check_loss)
        self._measure = context.faults.protect("batch measures", self._measure_batch)
        self._order = context.faults.protect("epoch order", self._hash_order)
        self._sketch = context.faults.protect("row hashes", self._sketch_rows)
        self._report = context.faults.protect("validation batches", self._report_validation)

    # -- records

    def open(self, record: Record) -> None:
        """A record at a sample step begins."""
        self._record, self._labels, self._output = record, None, None
        self.is_sampling = True
        self._batches = self._outputs = 0
        if self._has_begun:  # before the first step the loop may still compile what it made a Monitor for
            self._attach()

    def reported(self, loss: Any) -> None:
        """The loop reported a loss for it."""
        if self._record is not None and isinstance(loss, Tensor) and loss.grad_fn is not None:
            self._check(self._record, loss)

    def finished(self, record: Record) -> None:
        """A record is finished: what was seen is one of its values, and what still comes will be."""
        if record.sampled:
            record.values.update(record.sampled)
        record.sampled = record.values
        self._has_begun = True
        if record is self._record:
            self.close()

    def close(self) -> None:
        """Let go of the model."""
        self._record, self._output, self.is_sampling = None, None, False
        if self._tap is not None:
            self._tap.detach()

    def evaluated(self, record: EvaluationRecord) -> None:
        """An evaluation was reported: it gets what was seen of the validation batches before it."""
        self._report(record)

    def describe(self, info: RunInfo) -> None:
        """Add what was found out to what is known of the run."""
        if self.classes is not None:
            info.classes = self.classes
        if self._repeated is not None:
            info.train_rows_repeated = self._repeated
        share = self._share()
        if share is not None:
            info.validation_rows_seen = share

    # -- batches

    def begin(self, split: Split, loader: Any) -> "Pass":
        """A pass over a loader begins."""
        self._context.epochs += split == "train"
        return Pass(self, split, length_of(loader) if split == "train" else 1)

    def between(self) -> None:
        """The loop asks for another batch: if it reported the last step before the optimizer made it, that is over."""
        self._context.roll()

    def batch(self, batch: Any, step: "Pass") -> None:
        """A batch is about to be given to the loop."""
        is_training = step.split == "train"
        is_sampled = self._record is not None and not self._batches if is_training else not step.batches
        is_sketched = step.is_sketched and self._sketched[step.split] < _SKETCHED
        step.batches += 1
        if not (is_sampled or is_sketched or not step.order.is_done):
            step.is_busy = False
            return
        if is_sampled and is_training:
            self._attach()
        layout = layout_of(batch)
        if is_sampled:
            self._measure(layout, is_training)
        if not step.order.is_done:
            self._order(layout, step)
        if is_sketched:
            self._sketch(layout, step)
        step.is_busy = not step.order.is_done or (step.is_sketched and self._sketched[step.split] < _SKETCHED)

    def ended(self, step: "Pass") -> None:
        """A pass came to its end."""
        if step.split == "train":
            self._note_order(step.order.end())
            if step.is_sketched:
                self._repeated = self._sketches["train"].repeated
                self._sketched["train"] = _SKETCHED

    def _measure_batch(self, layout: Layout, is_training: bool) -> None:  # noqa: FBT001 - passed on by position
        if is_training:
            self._batches += 1
        labels = layout.labels
        is_integer = labels is not None and not labels.is_floating_point()
        if is_training and labels is not None:
            self._labels = (labels.shape, is_integer)
        if layout.inputs is not None:
            self._send(input_measures(layout.inputs), _under(*INPUT_MEASURES), is_training)
        if labels is not None:

            def arrived(values: dict[str, float], found: Sequence[float]) -> None:
                self._took_labels(values, found, is_integer=is_integer)

            self._send(label_measures(labels), arrived, is_training)
        for name, share in padding_measures(layout).items():
            self._send(share, _under(name), is_training)
        if is_training and self._record is not None and self._orders.count:
            _values(self._record)["epochs_in_same_order"] = float(self._orders.count)

    def _took_labels(self, values: dict[str, float], found: Sequence[float], *, is_integer: bool) -> None:
        if math.isfinite(found[1]):
            self._most = max(self._most, int(found[1]))
        self._is_binary = bool(found[5])
        values.update(label_signals(found, is_integer=is_integer, classes=self.classes or self._most + 1))

    def _send(
        self,
        numbers: Tensor,
        arrived: Callable[[dict[str, float], Sequence[float]], None],
        is_training: bool,  # noqa: FBT001
    ) -> None:
        """Have numbers put into the sampled record; those of validation wait for their evaluation."""
        if is_training:
            self._drain(numbers, arrived)
        else:
            self._validation.append((numbers, arrived))

    def _drain(self, numbers: Tensor, arrived: Callable[[dict[str, float], Sequence[float]], None]) -> None:
        if (record := self._record) is not None:
            self._context.drain.vector(numbers, record, lambda found: arrived(_values(record), found))

    def _report_validation(self, record: EvaluationRecord) -> None:
        waiting, self._validation = self._validation, []
        for numbers, arrived in waiting:
            self._context.drain.vector(numbers, record, _renamed(record, arrived))
        share = self._share()
        if share is not None:
            record.values["val_rows_in_train"] = [share]

    # -- order and leakage

    def _hash_order(self, layout: Layout, step: "Pass") -> None:
        self._note_order(step.order.add(layout))

    def _note_order(self, order: int | None) -> None:
        if order is not None:
            self._orders.note(order)
            _values(self._context.record)["epoch_order"] = float(order)

    def _sketch_rows(self, layout: Layout, step: "Pass") -> None:
        keys = row_keys(layout)
        if keys is None:
            step.is_sketched = False
            return
        self._sketches[step.split].add(keys)
        is_enough = self._sketches[step.split].rows >= _SKETCHED_ROWS
        self._sketched[step.split] = _SKETCHED if is_enough else self._sketched[step.split] + 1

    def _share(self) -> float | None:
        train, validation = self._sketches["train"], self._sketches["val"]
        if not validation.rows:
            return None
        if self._seen[:2] != (train.rows, validation.rows):
            self._seen = (train.rows, validation.rows, share_seen(train, validation))
        return self._seen[2]

    # -- outputs

    def _saw_output(self, output: Any, is_training: bool) -> None:  # noqa: FBT001 - passed on by position
        # In eval mode it may be a validation without no_grad: only behind a training batch is it a training step.
        if self._record is None or self._outputs or not (is_training or self._batches):
            return
        found = output_of(output)
        if found is None:
            return
        self._outputs += 1
        self._output = found.shape, found.grad_fn
        rows, is_classes = by_class(found, self._labels)
        if rows is None:
            return
        classes = rows.shape[1]
        if is_classes and classes > 1:
            self.classes = classes

        def arrived(values: dict[str, float], numbers: Sequence[float]) -> None:
            values.update(output_signals(numbers, rows.shape, is_classes=is_classes, is_binary=self._is_binary))

        self._drain(output_measures(rows), arrived)

    def _check_loss(self, record: Record, loss: Tensor) -> None:
        if self._tap is not None and not self._tap.is_proven:
            self._tap.is_proven = ran_eagerly(loss)
        values = _values(record)
        if "softmax_twice" not in values:
            values.update(loss_measures(loss))
        if self._output is None or self._labels is None:
            return
        (shape, node), self._output = self._output, None
        trap = broadcast_trap(shape, self._labels[0])
        is_trapped = trap is not None and node is not None and is_broadcast(loss, node, trap)
        values["shape_mismatch"] = float(is_trapped or False)


class Pass:
    """One pass over a loader. `length` is the number of its batches where it is known."""

    def __init__(self, watch: DataWatch, split: Split, length: int | None) -> None:
        self.split = split
        self.batches = 0
        self.order = EpochOrder(length)
        self.is_sketched = True
        """Whether rows of this pass are hashed."""
        self.is_busy = True
        """Whether it looks at its next batch in any case."""
        self._watch = watch
        faults = watch._context.faults  # noqa: SLF001 - a part of it
        self.saw: Callable[[Any], None] = faults.protect("batches", lambda batch: watch.batch(batch, self))
        self.between: Callable[[], None] = faults.protect("batches", watch.between)
        self.end: Callable[[], None] = faults.protect("batches", lambda: watch.ended(self))

    @property
    def is_reported(self) -> bool:
        """Whether the loop reported a loss for the record being made."""
        return self._watch._context.record.calls > 0  # noqa: SLF001

    @property
    def is_due(self) -> bool:
        """Whether the next batch is looked at; asked for every batch, and mostly not so."""
        return self.is_busy or self._watch.is_sampling


def _values(record: Record) -> dict[str, float]:
    if record.sampled is None:
        record.sampled = {}
    return record.sampled


def _renamed(record: EvaluationRecord, arrived: Callable[[dict[str, float], Sequence[float]], None]) -> Sink:
    def take(found: list[float]) -> None:
        values: dict[str, float] = {}
        arrived(values, found)
        record.values.update({f"val_{name}": [value] for name, value in values.items()})

    return take


def _under(*names: str) -> Callable[[dict[str, float], Sequence[float]], None]:
    return lambda values, found: values.update(zip(names, found, strict=True))
