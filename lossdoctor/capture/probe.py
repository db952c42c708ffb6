"""A probe: what the instruments found at one sample step, and the signals made of it once its numbers have arrived."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from torch import Tensor

from lossdoctor.capture.gradients import cosine_of
from lossdoctor.capture.ring import Sink
from lossdoctor.runs.tables import Column

__all__ = ["Probe"]


class Probe:
    """What is found arrives at the sinks, in parts: one for each optimizer and device."""

    def __init__(self) -> None:
        self.eval: tuple[list[str], int] | None = None
        """Modules in eval mode, and how many modules mind."""
        self.at_rest: set[int] = set()
        """Parameters whose learning rate is 0, by id."""
        self.inspected: set[int] = set()
        """Optimizers whose gradients were seen."""
        self.products: dict[Hashable, list[float]] = {}
        """Inner products of the projected gradients of two steps."""
        self._zeros: dict[Hashable, tuple[float, float]] = {}
        self._lost: dict[Hashable, tuple[float, float]] = {}
        self._layers: dict[str, dict[int, float]] = {}

    # -- what arrives

    def zero_sink(self, part: Hashable, entries: float) -> Sink:
        """Takes the counts of entries that are not zero, of gradients with so many `entries` in all."""

        def arrived(numbers: list[float]) -> None:
            self._zeros[part] = (math.fsum(numbers), entries)

        return arrived

    def lost_sink(self, part: Hashable, strides: Sequence[int]) -> Sink:
        """Takes pairs of counts: lost updates and wanted ones, each of which stands for `strides` entries."""

        def arrived(numbers: list[float]) -> None:
            lost, wanted = (math.fsum(map(float.__mul__, numbers[at::2], map(float, strides))) for at in (0, 1))
            self._lost[part] = (lost, wanted)

        return arrived

    def layer_sink(self, measured: Sequence[tuple[str, int, Tensor]]) -> Sink:
        """Takes one number for each (signal, layer, _). Several of one layer: the worst of them counts."""
        places = [(name, layer) for name, layer, _ in measured]

        def arrived(numbers: list[float]) -> None:
            for (name, layer), number in zip(places, numbers, strict=True):
                known = self._layers.setdefault(name, {})
                worst = _distance if name == "batch_norm_variance_ratio" else _nan_last
                known[layer] = max(known.get(layer, number), number, key=worst)

        return arrived

    # -- what is made of it

    def values(self, *, took_place: bool) -> dict[str, float]:
        """The step signals; those of updates only if the step `took_place`, with a learning rate."""
        values: dict[str, float] = {}
        cosine = cosine_of(self.products.values())
        if cosine is not None:
            values["gradient_cosine"] = cosine
        entries = math.fsum(all_of for _, all_of in self._zeros.values())
        if entries:
            values["grad_zero_share"] = 1 - math.fsum(some for some, _ in self._zeros.values()) / entries
        wanted = math.fsum(want for _, want in self._lost.values())
        if took_place and wanted:
            values["lost_update_share"] = math.fsum(lost for lost, _ in self._lost.values()) / wanted
        shifts = self._layers.get("batch_norm_shift")
        if shifts:
            values["batch_norm_shift"] = max(shifts.values(), key=_nan_last)
        ratios = self._layers.get("batch_norm_variance_ratio")
        if ratios:
            values["batch_norm_variance_ratio"] = max(ratios.values(), key=_distance)
        return values

    def columns(self, layers: int) -> dict[str, Column]:
        """The layer signals, shape (layers,) each."""
        columns = {}
        for name, found in self._layers.items():
            at = [layer for layer in found if layer >= 0]
            if not at or name == "batch_norm_variance_ratio":
                continue
            values, observed = np.full(layers, np.nan), np.zeros(layers, dtype=np.bool_)
            values[at], observed[at] = [found[layer] for layer in at], True
            columns[name if name.startswith("layer_") else f"layer_{name}"] = Column(values, observed)
        return columns


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _distance(ratio: float) -> float:
    """How far a ratio is from 1, the same for twice and half."""
    return abs(math.log(ratio)) if ratio > 0 and math.isfinite(ratio) else math.inf
