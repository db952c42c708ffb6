"""Records: what was measured around one optimizer step, and the rows made of it once all its numbers have arrived."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossdoctor.capture.scaler import clipped_while_scaled
from lossdoctor.runs.tables import Column

__all__ = ["EvaluationRecord", "Part", "Reading", "Record", "layer_row", "step_row"]


_NOTHING: dict[int, "Reading"] = {}
_NOBODY: set[int] = set()
"""Shared by all records that do not measure; never written to."""


@dataclass(frozen=True, slots=True)
class Part:
    """The parameters of one optimizer that are on one device; `layers[i]` is the layer of parameter i, -1 for none."""

    number: int
    layers: npt.NDArray[np.intp]


@dataclass(slots=True)
class Reading:
    """Norms of tensors of a part. `indexes` are their places in it, None for all; they are still times `scale`."""

    norms: list[float]
    indexes: list[int] | None = None
    scaled: bool = False


class Record:
    """One optimizer step in the making.

    Written at every step, so it is made to be cheap: what is seldom needed shares one empty mapping.

    Attributes:
        samples_due: Whether parameters, updates and layers are measured at this step.
        norms_due: Whether gradient norms are measured at this step.
        waiting: Readings that have not arrived yet.
        calls: Calls of monitor.step merged into it.
        attempts: Steps of an optimizer that began.
        fired: The optimizers whose step began, a bit each.
        losses, means: What is averaged over micro-batches: the loss, and whatever else the loop reports.
        values: What is written as it is.
        multiplier: The doctor's factor in the learning rate in force.
        unclipped, clipped: Norms of the gradients behind the backward pass, and as the optimizer got them, by part.
        unchanged: Parts whose gradients were not changed between the two.
        parameters, updates: Norms of the parameters before the step, and of their change, by part.
    """

    __slots__ = (
        *("samples_due", "norms_due", "step", "time", "step_time", "waiting", "calls", "attempts", "fired"),
        *("micro_batches", "losses", "means", "samples", "tokens", "values", "scale", "multiplier", "found_inf"),
        *("skipped", "unclipped", "clipped", "unchanged", "changed_while_scaled", "parameters", "updates"),
    )

    def __init__(self, *, samples_due: bool = False, norms_due: bool = True) -> None:
        self.samples_due, self.norms_due = samples_due, norms_due
        self.step = self.time = math.nan
        self.step_time: float | None = None
        self.waiting = self.calls = self.attempts = self.fired = self.micro_batches = 0
        self.losses: list[float] = []
        self.means: dict[str, list[float]] | None = None
        self.samples: float | None = None
        self.tokens: float | None = None
        self.values: dict[str, float] = {}
        self.scale = self.multiplier = 1.0
        self.found_inf = 0.0
        self.skipped = self.changed_while_scaled = False
        self.unclipped: dict[int, Reading] = {} if norms_due else _NOTHING
        self.clipped: dict[int, Reading] = {} if norms_due else _NOTHING
        self.unchanged: set[int] = set() if norms_due else _NOBODY
        self.parameters: dict[int, Reading] = {} if samples_due else _NOTHING
        self.updates: dict[int, Reading] = {} if samples_due else _NOTHING

    def note(self, name: str, value: float) -> None:
        """Take in a number that is averaged over micro-batches."""
        self.list_of(name).append(value)

    def list_of(self, name: str) -> list[float]:
        """Where the values of a number go that is averaged over micro-batches."""
        if name == "train_loss":
            return self.losses
        if self.means is None:
            self.means = {}
        return self.means.setdefault(name, [])


@dataclass(slots=True)
class EvaluationRecord:
    """One validation."""

    step: float
    time: float
    values: dict[str, float] = field(default_factory=dict)
    waiting: int = 0


def step_row(record: Record, *, uses_scaler: bool, several_losses: bool = False) -> dict[str, float]:
    """The row of the step table: signal names and values, what was not observed left out."""
    row = {"step": record.step, "time": record.time}
    if record.losses:
        row["train_loss"] = _mean(record.losses)
    if record.means:
        for name, values in record.means.items():
            if values:
                row[name] = _mean(values)
        named = [value for name, value in row.items() if name.startswith("train_loss_")]
        if named and not several_losses:
            row["train_loss"] = math.fsum(named)
    row.update(record.values)
    rate = row.get("learning_rate")
    if rate is not None:
        row["nominal_learning_rate"] = rate / record.multiplier if record.multiplier != 1.0 else rate
    row["micro_batches"] = record.micro_batches or 1
    if uses_scaler:
        row["loss_scale"] = record.scale
        row["skipped"] = float(record.skipped or record.found_inf > 0)
    if record.samples is not None:
        row["samples"] = record.samples
    if record.tokens is not None:
        row["tokens"] = record.tokens
    if record.step_time is not None:
        row["step_time"] = record.step_time
        if record.samples is not None and record.step_time:
            row["samples_per_second"] = record.samples / record.step_time
    if record.norms_due:
        _norms(record, row, uses_scaler=uses_scaler)
    return row


def _mean(values: list[float]) -> float:
    return values[0] if len(values) == 1 else math.fsum(values) / len(values)


def _norms(record: Record, row: dict[str, float], *, uses_scaler: bool) -> None:
    unclipped = _total(record.unclipped.values(), record.scale)
    clipped = _total(record.clipped.values(), record.scale)
    if record.unchanged:
        same = _total([record.unclipped[part] for part in record.unchanged if part in record.unclipped], record.scale)
        clipped = same if clipped is None else math.hypot(clipped, same or 0.0)
    if unclipped is not None:
        row["grad_norm"] = unclipped
    if clipped is not None:
        row["grad_norm_clipped"] = clipped
        if uses_scaler and unclipped is not None:
            proven = _clip_scaled(record, unclipped, clipped)
            if proven is not None:
                row["clip_scaled"] = proven
    parameters = _total(record.parameters.values(), 1.0)
    if parameters is None:
        return
    row["param_norm"] = parameters
    updates = _total(record.updates.values(), 1.0)
    if parameters > 0:
        if updates is not None and not row.get("skipped"):
            row["update_ratio"] = updates / parameters
        if unclipped is not None:
            row["grad_to_param"] = unclipped / parameters


def _clip_scaled(record: Record, unclipped: float, clipped: float) -> float | None:
    if record.changed_while_scaled and clipped < 0.999 * unclipped:
        return 1.0
    if not record.clipped:
        return 0.0
    return clipped_while_scaled(unclipped, clipped, record.scale)


def _total(readings: Iterable[Reading], scale: float) -> float | None:
    """The norm of all tensors of the readings; None if there are none."""
    totals = []
    for reading in readings:
        if reading.norms:
            total = math.hypot(*reading.norms)
            totals.append(total / scale if reading.scaled and scale else total)
    if not totals:
        return None
    return totals[0] if len(totals) == 1 else math.hypot(*totals)


def layer_row(record: Record, parts: Sequence[Part], layers: int) -> dict[str, Column]:
    """The row of the layer table: for each signal a column over the layers, shape (layers,), float64."""
    row: dict[str, Column] = {}
    gradients = _by_layer(record.unclipped, parts, layers, record.scale)
    if gradients is not None:
        row["layer_grad_norm"] = gradients
    parameters = _by_layer(record.parameters, parts, layers, 1.0)
    if parameters is None:
        return row
    row["layer_param_norm"] = parameters
    if gradients is not None:
        row["layer_grad_to_param"] = _ratio(gradients, parameters)
    updates = _by_layer(record.updates, parts, layers, 1.0)
    if updates is not None and not (record.skipped or record.found_inf > 0):
        row["layer_update_ratio"] = _ratio(updates, parameters)
    return row


def _by_layer(readings: dict[int, Reading], parts: Sequence[Part], layers: int, scale: float) -> Column | None:
    """Norms of tensors combined to norms of layers as the root of the sum of squares; None if there are none."""
    squares, counts = np.zeros(layers), np.zeros(layers)
    for number, reading in readings.items():
        at = parts[number].layers
        if reading.indexes is not None:
            at = at[reading.indexes]
        norms = np.asarray(reading.norms, dtype=np.float64) / (scale if reading.scaled and scale else 1.0)
        inside = at >= 0
        squares += np.bincount(at[inside], norms[inside] ** 2, layers)
        counts += np.bincount(at[inside], minlength=layers)
    observed = counts > 0
    return Column(np.where(observed, np.sqrt(squares), np.nan), observed) if observed.any() else None


def _ratio(above: Column, below: Column) -> Column:
    observed = above.mask() & below.mask() & (below.values > 0)
    ratio = np.full(len(above), np.nan)
    np.divide(above.values, below.values, out=ratio, where=observed)
    return Column(ratio, observed)
