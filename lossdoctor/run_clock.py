"""The run clock: one tick over everything that was seen, provisional while the run goes on."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np

from lossdoctor.clocks import Ticks, finite, of_evaluations, source_of
from lossdoctor.companions import COMPANIONS
from lossdoctor.runs.tables import Block, Table
from lossdoctor.statistics import Array

__all__ = ["RunClock"]

_STREAMED: Mapping[str, Callable[[float, Array], float]] = MappingProxyType(
    {
        "first": lambda before, values: float(values[0]) if np.isnan(before) else before,
        "last": lambda _, values: float(values[-1]),
        "min": lambda before, values: float(np.fmin(before, np.min(values))),
        "max": lambda before, values: float(np.fmax(before, np.max(values))),
    }
)
"""Companions that need no value but the one so far and the new ones, and do not depend on the cut."""


class _Whole:
    """Companions over a whole run: what must see every value keeps them as recorded, the rest only a number each."""

    def __init__(self, names: Iterable[str]) -> None:
        self._wanted = {name: source_of(name) for name in names}
        self._numbers = {name: np.nan for name, (_, companion) in self._wanted.items() if companion in _STREAMED}
        kept = {source for name, (source, _) in self._wanted.items() if name not in self._numbers}
        self._values: dict[str, list[Array]] = {source: [] for source in sorted(kept)}

    def extend(self, table: Table) -> None:
        for source in {source for source, _ in self._wanted.values()}:
            values = table.step if source == "step" else finite(table, source)
            missing = np.isnan(values)
            values = values[~missing] if missing.any() else values
            if not len(values):
                continue
            if source in self._values:
                exact = source in table.columns and table.columns[source].values.dtype == np.float32
                self._values[source].append(values.astype(np.float32) if exact else values)
            for name in self._numbers:
                if self._wanted[name][0] == source:
                    self._numbers[name] = float(_STREAMED[self._wanted[name][1] or ""](self._numbers[name], values))

    def __call__(self) -> dict[str, float]:
        found = dict(self._numbers)
        for source, chunks in self._values.items():
            values = np.concatenate(chunks).astype(np.float64) if chunks else np.empty(0)
            for name, (of, companion) in self._wanted.items():
                if of == source and name not in self._numbers:
                    found[name] = COMPANIONS[companion or "last"](values) if len(values) else np.nan
        return found


class RunClock:
    """One tick over everything seen so far."""

    def __init__(self, names: Iterable[str]) -> None:
        names = {*names} - {"step"}
        on_evaluations = of_evaluations(names)
        self._steps, self._evaluations = _Whole(names - on_evaluations), _Whole(on_evaluations)
        self.step = 0.0
        """The last step seen."""

    def observe(self, block: Block) -> None:
        """Take in the next block."""
        self._steps.extend(block.steps)
        self._evaluations.extend(block.evaluations)
        for table in (block.steps, block.evaluations):
            if len(table):
                self.step = max(self.step, float(table.step[-1]))

    def tick(self) -> Ticks:
        """The tick, provisional while the run goes on."""
        step = np.array([self.step])
        found = self._steps() | self._evaluations()
        return Ticks(step, {"step": step, **{name: np.array([value]) for name, value in found.items()}})
