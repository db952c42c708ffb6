"""Recorded values in memory: columns that know what was observed, tables, blocks and whole runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.events import Intervention, Mark
from lossdoctor.runs.info import RunInfo

__all__ = ["BLOCK_ROWS", "Block", "Column", "Run", "Table"]

BLOCK_ROWS = 65_536
"""Rows of a block in offline diagnosis: large enough to be fast, small enough to stay in cache."""

Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one signal: shape (rows,), or (rows, layers) for a layer signal.

    `values` keeps the stored dtype (float32; float64 for step and time). `observed` is a mask of the same shape, or
    None where every value was observed. Unobserved values are NaN; an observed value may be NaN or Inf too.
    """

    values: Floats
    observed: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)

    def __getitem__(self, rows: slice) -> "Column":
        """The same column over some rows, without a copy."""
        return Column(self.values[rows], None if self.observed is None else self.observed[rows])

    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask of observed values, always as an array."""
        return np.ones(self.values.shape, dtype=np.bool_) if self.observed is None else self.observed


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length. Every table has a `step` column that never falls."""

    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, rows: slice) -> "Table":
        """The same table over some rows, without a copy."""
        return Table({name: column[rows] for name, column in self.columns.items()})

    @property
    def step(self) -> npt.NDArray[np.float64]:
        """The step of every row."""
        return np.asarray(self.columns["step"].values, dtype=np.float64) if self.columns else np.empty(0)


@dataclass(frozen=True, slots=True)
class Block:
    """What was recorded over one span of steps: the unit that is diagnosed.

    Blocks of a run follow each other without overlap. Every evaluation and layer row of a block comes after the last
    step row of the block before and not after its own last step row (an evaluation before training, at step 0, and
    evaluations after the last step are in the first and last block).
    """

    steps: Table = field(default_factory=Table)
    evaluations: Table = field(default_factory=Table)
    layers: Table = field(default_factory=Table)


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded training, read completely.

    `warnings` says in plain sentences what could not be read. `rows_are_means` is true where a row of `steps` is
    itself a mean over many steps (an epoch, a logging interval), as foreign logs often have it. `read_as` says, a line
    each, what in a foreign log was taken for what; empty for our own recordings.
    """

    name: str
    path: Path
    info: RunInfo
    steps: Table = field(default_factory=Table)
    evaluations: Table = field(default_factory=Table)
    layers: Table = field(default_factory=Table)
    interventions: tuple[Intervention, ...] = ()
    marks: tuple[Mark, ...] = ()
    warnings: tuple[str, ...] = ()
    rows_are_means: bool = False
    read_as: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sizes = f"{len(self.steps):,} steps, {len(self.evaluations):,} evaluations, {len(self.layers):,} layer samples"
        return f"<Run {self.name!r}: {sizes}, {self.info.status}>"

    def _repr_html_(self) -> str:
        from lossdoctor.reports.notebook import run_html  # noqa: PLC0415  only a notebook asks

        return run_html(self)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """The run cut into blocks of `rows` step rows (the last may be shorter)."""
        starts = range(0, max(len(self.steps), 1), rows)
        yield from self.cut([start for start in starts if start])

    def cut(self, at: Sequence[int]) -> Iterator[Block]:
        """The run cut before the step rows `at` (ascending row numbers)."""
        bounds = [0, *at, len(self.steps)]
        step = self.steps.step
        evaluation_row = layer_row = 0
        for begin, end in pairwise(bounds):
            evaluation_end, layer_end = len(self.evaluations), len(self.layers)
            if end < len(self.steps):
                evaluation_end = int(np.searchsorted(self.evaluations.step, step[end], "left"))
                layer_end = int(np.searchsorted(self.layers.step, step[end], "left"))
            yield Block(
                self.steps[begin:end],
                self.evaluations[evaluation_row:evaluation_end],
                self.layers[layer_row:layer_end],
            )
            evaluation_row, layer_row = evaluation_end, layer_end
