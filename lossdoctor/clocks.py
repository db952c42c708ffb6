"""Records to ticks: the four clocks, the companions of signals on the slower ones, and their alignment.

* `step`: a tick per record.
* `interval`: a geometric partition of the step ticks; an interval that begins at row s holds max(m, s // 20) rows, so a
  window of 14 intervals means "since about half of the training so far" at any length, and cost grows with log(steps).
* `evaluation`: a tick per validation, with companions of the step signals since the one before.
* `run`: one tick at the end (provisional while the run goes on) over everything.

On every clock NaN is "null": not observed, or observed but not finite. Non-finite values are counted in the companion
`<signal>_non_finite` and are null for every statistic. Clocks see a run block by block; the same run in other blocks
gives the same ticks, bit for bit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from lossdoctor.companions import COMPANIONS
from lossdoctor.origins import ORIGINS, origin
from lossdoctor.runs.stacking import stack
from lossdoctor.runs.tables import Block, Table
from lossdoctor.signals import SIGNALS, Clock
from lossdoctor.spans import Companions, Rows
from lossdoctor.statistics import Array

__all__ = [
    "COMPANIONS",
    "EvaluationClock",
    "IntervalClock",
    "Shared",
    "StepClock",
    "Ticks",
    "finite",
    "interval_rows",
    "names_on",
    "of_evaluations",
    "recorded",
    "source_of",
]

_SHARE = 20


def interval_rows(start: int, smallest: int = 2) -> int:
    """How many rows the interval holds that begins at row `start`.

    >>> [interval_rows(start) for start in (0, 40, 60, 1000)]
    [2, 2, 3, 50]
    """
    return max(smallest, start // _SHARE)


_SUFFIX = "_non_finite"


def source_of(name: str) -> tuple[str, str | None]:
    """The recorded signal behind a name and its companion: "mean_train_loss" -> ("train_loss", "mean")."""
    if name in SIGNALS:
        return name, None
    prefix, _, rest = name.partition("_")
    if prefix in COMPANIONS:
        return rest, prefix
    return name, None


def recorded(name: str) -> str:
    """The column behind a name: "mean_train_loss" and "train_loss_non_finite" are both made of train_loss."""
    source, _ = source_of(ORIGINS.get(name, name))
    return source if source in SIGNALS else source.removesuffix(_SUFFIX)


def _with_counts(names: Iterable[str]) -> list[str]:
    return [*names, *(f"{name}{_SUFFIX}" for name in names if name not in {"step", "time"})]


@cache
def names_on(clock: Clock) -> frozenset[str]:
    """Every name a rule on this clock may use for a signal."""
    by_source = {
        source: [name for name, signal in SIGNALS.items() if signal.source == source]
        for source in ("step", "evaluation", "layer")
    }
    step = _with_counts(by_source["step"])
    companions = [f"{companion}_{name}" for companion in COMPANIONS for name in step if name != "step"]
    evaluation = _with_counts(by_source["evaluation"])
    match clock:
        case "step":
            return frozenset([*step, *ORIGINS])
        case "interval":
            return frozenset(["step", *companions, *by_source["layer"], "layer_depth"])
        case "evaluation":
            return frozenset(["step", *companions, *evaluation])
        case "run":
            of_evaluations = [f"{companion}_{name}" for companion in COMPANIONS for name in evaluation]
            return frozenset(["step", *companions, *of_evaluations])


@dataclass(frozen=True, slots=True)
class Ticks:
    """Ticks of one clock: `step` (ticks,), and signals (ticks,) or (ticks, layers) with NaN for null."""

    step: Array
    signals: Mapping[str, Array]

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self.step)

    def __getitem__(self, rows: slice) -> "Ticks":
        """Some of the ticks, without a copy."""
        return Ticks(self.step[rows], {name: values[rows] for name, values in self.signals.items()})


def _non_finite(table: Table, name: str) -> Array:
    """1 where a value was observed that is not finite, 0 where only finite ones were, NaN where none was.

    A loop that reports several losses by name has train_loss_<name> in place of train_loss: any of them counts.
    """
    several = [column for column in table.columns if column.startswith("train_loss_")] if name == "train_loss" else []
    found = np.full(len(table), np.nan)
    for column in (table.columns[each] for each in (name, *several) if each in table.columns):
        found = np.fmax(found, np.where(column.mask(), ~np.isfinite(column.values), np.nan))
    return found


@dataclass(frozen=True, slots=True)
class Shared(Table):
    """A table that several clocks read: what one made of a column is there for the others."""

    made: dict[str, Array] = field(default_factory=dict)


def finite(table: Table, name: str) -> Array:
    """A column as float64 with NaN for null: (rows,) or (rows, layers); all NaN where it was never recorded.

    The array is not to be written to: it may be in use elsewhere.
    """
    if name.endswith(_SUFFIX) and name not in table.columns:
        return _non_finite(table, name.removesuffix(_SUFFIX))
    if isinstance(table, Shared):
        if name not in table.made:
            table.made[name] = _finite(table, name)
        return table.made[name]
    return _finite(table, name)


def _finite(table: Table, name: str) -> Array:
    column = table.columns.get(name)
    if column is None:
        return np.broadcast_to(np.nan, len(table))
    values = column.values.astype(np.float64)
    if column.observed is not None:
        values[~column.observed] = np.nan
    if not (known := np.isfinite(values)).all():
        values[~known] = np.nan
    return values


def _rows_of(table: Table, name: str) -> Array:
    return table.step if name == "step" else finite(table, name)


class StepClock:
    """One tick per step row."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted({*names} - {"step"})

    def observe(self, block: Block) -> Ticks:
        """The ticks of the next block."""
        step = block.steps.step
        signals = {
            name: origin(name, block.layers, step) if name in ORIGINS else finite(block.steps, name)
            for name in self._names
        }
        return Ticks(step, {"step": step, **signals})


class IntervalClock:
    """One tick per closed interval; rows of the open one are carried and never judged.

    Layer signals take their latest sample within the interval.
    """

    def __init__(self, names: Iterable[str], *, layers: int = 0, smallest: int = 2) -> None:
        names = {*names} - {"step"}
        self._layer_names = sorted(name for name in names if name.startswith("layer_"))
        self._companions = Companions({name: source_of(name) for name in names - {*self._layer_names}})
        self._rows = Rows(["step", *self._companions.sources])
        self._layers, self._smallest = layers, smallest
        self._depth = np.linspace(0.0, 1.0, layers) if layers > 1 else np.zeros(layers)
        self._start = 0
        self._samples = Table()

    def observe(self, block: Block) -> Ticks:
        """The intervals that close within the next block."""
        self._rows.extend(len(block.steps), partial(_rows_of, block.steps))
        samples = stack([table for table in (self._samples, block.layers) if len(table)])
        layered = {name: finite(samples, name) for name in self._layer_names if name in samples.columns}
        ends: list[float] = []
        rows: list[dict[str, float]] = []
        layer_rows: list[dict[str, Array]] = []
        begin = 0
        while len(self._rows) >= (size := interval_rows(self._start, self._smallest)):
            span = self._rows.take(size)
            ends.append(float(span["step"][-1]))
            rows.append(self._companions(span))
            end = int(np.searchsorted(samples.step, ends[-1], "right"))
            layer_rows.append({name: self._latest(name, layered, slice(begin, end)) for name in self._layer_names})
            begin = end
            self._start += size
        self._samples = samples[begin:]
        signals = {name: np.array([row[name] for row in rows]) for name in self._companions.names}
        for name in self._layer_names:
            signals[name] = np.array([row[name] for row in layer_rows]).reshape(len(ends), self._layers)
        return Ticks(np.array(ends), {"step": np.array(ends), **signals})

    def _latest(self, name: str, layered: Mapping[str, Array], rows: slice) -> Array:
        """The latest sample of every layer in some rows."""
        if name == "layer_depth":
            return self._depth
        latest = np.full(self._layers, np.nan)
        if name in layered:
            for row in layered[name][rows][::-1]:
                latest = np.where(np.isnan(latest), row, latest)
                if not np.isnan(latest).any():
                    break
        return latest


def of_evaluations(names: Iterable[str]) -> set[str]:
    """Those of the names that are made of what evaluations report."""
    sources = {name: recorded(name) for name in names}
    return {name for name, source in sources.items() if source in SIGNALS and SIGNALS[source].source == "evaluation"}


class EvaluationClock:
    """One tick per evaluation, with companions of the step signals since the one before."""

    def __init__(self, names: Iterable[str]) -> None:
        names = {*names} - {"step"}
        self._own = sorted(of_evaluations(names))
        self._companions = Companions({name: source_of(name) for name in names - {*self._own}})
        self._rows = Rows(self._companions.sources)

    def observe(self, block: Block) -> Ticks:
        """The evaluations of the next block."""
        waiting = len(self._rows)
        self._rows.extend(len(block.steps), partial(_rows_of, block.steps))
        step = block.evaluations.step
        rows: list[dict[str, float]] = []
        taken = 0
        for end in np.searchsorted(block.steps.step, step, "right") + waiting:
            rows.append(self._companions(self._rows.take(int(end) - taken)))
            taken = int(end)
        own = {name: finite(block.evaluations, name) for name in self._own}
        companions = {name: np.array([row[name] for row in rows]) for name in self._companions.names}
        return Ticks(step, {"step": step, **own, **companions})
