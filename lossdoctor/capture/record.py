"""Records: what was measured around one optimizer step, and the rows made of it once all its numbers have arrived."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from lossdoctor.capture.probe import Probe
from lossdoctor.capture.scaler import clipped_while_scaled
from lossdoctor.runs.tables import Column

__all__ = ["NO_SETTINGS", "EvaluationRecord", "LayerRows", "Part", "Reading", "Record", "complete", "mean_of"]


NO_SETTINGS: Mapping[str, float] = MappingProxyType({})

_NOTHING: dict[int, "Reading"] = {}
_NOBODY: set[int] = set()
"""Shared by all records that do not measure; never written to."""

_BAD_GRADIENT_ROWS = 16
"""Layer rows written in a row for gradients that are not finite: the first says where it began."""

_CLIPPED = 0.999
"""Beyond what rounding does to a norm that is read twice."""


@dataclass(frozen=True, slots=True)
class Part:
    """The parameters of one optimizer that are on one device; `layers[i]` is the layer of parameter i, -1 for none.

    `shares` are what the norms are multiplied by where parameters are sharded (capture.shards).
    """

    number: int
    layers: npt.NDArray[np.intp]
    shares: list[float] | None = None
    ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """Norms of tensors of a part. `indexes` are their places in it, None for all; they are still times `scale`."""

    norms: list[float]
    indexes: list[int] | None = None
    scaled: bool = False


class Record:
    """One optimizer step in the making.

    One is made at every step, so it is made to be cheap: what holds for most records is an attribute of the class.
    """

    step = math.nan
    time = math.nan
    step_time: float | None = None
    waiting = 0
    """Readings that have not arrived yet."""
    calls = 0
    """Calls of monitor.step merged into it."""
    attempts = 0
    """Steps of an optimizer that began."""
    fired = 0
    """The optimizers whose step began, a bit each."""
    micro_batches = 0
    means: dict[str, list[float]] | None = None
    """What is averaged over micro-batches, besides the loss."""
    samples: float | None = None
    tokens: float | None = None
    scale = 1.0
    multiplier = 1.0
    """The doctor's factor in the learning rate in force."""
    found_inf = 0.0
    skipped = False
    changed_while_scaled = False
    settings: Mapping[str, float] = NO_SETTINGS
    """What more is to be written: the optimizer's settings, one mapping for all the records they hold for."""
    probe: Probe | None = None
    """What the instruments found in the model, at sample steps and the ones after."""
    began = 0.0
    """When the first gradient was there, in seconds of time.perf_counter; only noted in distributed trainings."""
    sampled: dict[str, float] | None = None
    """What was seen of the batch and the model's output; its `values` once the record is finished."""
    dropped: list[dict[str, list[float]]] | None = None
    """Losses of micro-batches whose gradients were thrown away."""
    samples_due = False
    """Whether parameters, updates and layers are measured at this step."""
    norms_due = False
    """Whether gradient norms are measured at this step."""
    unclipped = _NOTHING
    """Norms of the gradients at the end of the backward pass, by part."""
    clipped = _NOTHING
    """The same as the optimizer got them, where they were changed in between."""
    unchanged = _NOBODY
    """Parts whose gradients were not."""
    parameters = _NOTHING
    """Norms of the parameters before the step, by part."""
    updates = _NOTHING
    """Norms of their change."""

    def __init__(self, *, samples_due: bool = False, norms_due: bool = True) -> None:
        self.losses: list[float] = []
        """The losses of the micro-batches."""
        self.values: dict[str, float] = {}
        """What is written as it is."""
        if norms_due:
            self.measure_norms()
        if samples_due:
            self.samples_due = True
            self.parameters, self.updates = {}, {}

    def measure_norms(self) -> None:
        """Have gradient norms measured at this step."""
        self.norms_due = True
        self.unclipped, self.clipped, self.unchanged = {}, {}, set()

    def drop(self) -> None:
        """Forget what was reported so far: no part of it is in the gradient of this step."""
        losses = {name: means for name, means in (self.means or {}).items() if name.startswith("train_loss")}
        self.dropped = [*(self.dropped or ()), {**losses, "train_loss": self.losses}]
        self.losses, self.means, self.samples, self.tokens, self.calls = [], None, None, None, 0

    def list_of(self, name: str) -> list[float]:
        """Where the values of a number go that is averaged over micro-batches."""
        if name == "train_loss":
            return self.losses
        if self.means is None:
            self.means = {}
        return self.means.setdefault(name, [])


def arrives_at(record: Record, name: str) -> Callable[[list[float]], None]:
    """What puts the first of the numbers that arrive into an attribute of the record."""

    def arrived(numbers: list[float]) -> None:
        setattr(record, name, numbers[0])

    return arrived


@dataclass(slots=True)
class EvaluationRecord:
    """One validation."""

    step: float
    time: float
    values: dict[str, list[float]] = field(default_factory=dict)
    """One number each, or none while it has not arrived."""
    waiting: int = 0


def complete(record: Record, *, uses_scaler: bool, several_losses: bool = False) -> None:
    """Work out what follows from the numbers of a record, once they have all arrived, into its `values`."""
    values = record.values
    if record.settings and (record.probe is not None or (values and not values.keys().isdisjoint(record.settings))):
        for name, value in record.settings.items():
            values.setdefault(name, value)
        record.settings = NO_SETTINGS
    if not (record.norms_due or record.means or record.dropped or uses_scaler):
        return  # most steps
    for losses in record.dropped or ():
        for name, numbers in losses.items():  # a loss that is not finite is a fault whatever became of its gradient
            record.list_of(name).extend(number for number in numbers if not math.isfinite(number))
    if record.means:
        for name, numbers in record.means.items():
            mean = mean_of(numbers)
            if mean is not None:
                values[name] = mean
        named = [value for name, value in values.items() if name.startswith("train_loss_")]
        if named and not several_losses:
            record.losses = [math.fsum(named)]
    if uses_scaler:
        values["loss_scale"] = record.scale
        values["skipped"] = float(record.skipped or record.found_inf > 0)
    if record.unclipped or record.clipped or record.parameters:
        _norms(record, values, uses_scaler=uses_scaler)


def mean_of(numbers: list[float]) -> float | None:
    """The mean; None of nothing."""
    if len(numbers) == 1:
        return numbers[0]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _norms(record: Record, values: dict[str, float], *, uses_scaler: bool) -> None:
    unclipped = _total(record.unclipped.values(), record.scale)
    clipped = _total(record.clipped.values(), record.scale)
    if record.unchanged:
        same = _total([record.unclipped[part] for part in record.unchanged if part in record.unclipped], record.scale)
        clipped = same if clipped is None else math.hypot(clipped, same or 0.0)
    if unclipped is not None:
        values["grad_norm"] = unclipped
    if clipped is not None:
        values["grad_norm_clipped"] = clipped
        if unclipped is not None and math.isfinite(unclipped):
            values["clipped"] = float(clipped < _CLIPPED * unclipped)
        if uses_scaler and unclipped is not None:
            proven = _clip_scaled(record, unclipped, clipped)
            if proven is not None:
                values["clip_scaled"] = proven
    parameters = _total(record.parameters.values(), 1.0)
    if parameters is None:
        return
    values["param_norm"] = parameters
    updates = _total(record.updates.values(), 1.0)
    if parameters > 0:
        if updates is not None and not values.get("skipped"):
            values["update_ratio"] = updates / parameters
        if unclipped is not None:
            values["grad_to_param"] = unclipped / parameters


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


class LayerRows:
    """Which records get a row in the layer table: those of sample steps, and some whose gradients are not finite."""

    def __init__(self, parts: Sequence[Part], layers: int) -> None:
        self._parts, self._layers = parts, layers
        self._bad = 0
        """Records in a row with gradients that are not finite."""

    def row(self, record: Record, seen: Mapping[str, Column]) -> dict[str, Column]:
        """Each signal's column over the layers, shape (layers,), float64, and what else was `seen`; may be empty."""
        if not (record.norms_due or self._bad):
            return {}
        self._bad = 0 if math.isfinite(record.values.get("grad_norm", 0.0)) else self._bad + 1
        if not (record.parameters or 0 < self._bad <= _BAD_GRADIENT_ROWS):
            return {}
        with np.errstate(all="ignore"):  # what is infinite or NaN is recorded as that
            row = _layer_row(record, self._parts, self._layers) if self._layers else {}
        return row | dict(seen)


def _layer_row(record: Record, parts: Sequence[Part], layers: int) -> dict[str, Column]:
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
