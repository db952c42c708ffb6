"""The recordings of several ranks as one run: whole norms of sharded parameters, and what sets a rank apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from lossdoctor.runs.tables import Block, Column, Run, Table

__all__ = ["RANK_COLUMNS", "SHARE_COLUMNS", "combine", "whole_of", "without_shares"]

SHARE_COLUMNS = frozenset({"grad_norm", "grad_norm_clipped", "param_norm", "update_ratio"})
"""The columns, of steps and with `layer_` before them of layers, in which each rank has its share of a whole."""

RANK_COLUMNS = frozenset(
    {
        *("train_loss", "learning_rate", "time_to_backward"),
        *("grad_norm", "grad_norm_clipped", "param_norm", "update_ratio"),
        *("layer_grad_norm", "layer_param_norm", "layer_update_ratio"),
    }
)
"""The columns of each rank that `combine` works with."""

Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


def combine(run: Run, others: Sequence[Run]) -> Run:
    """The run of rank 0 with what the other ranks recorded of the same steps.

    Where parameters are sharded, norms become those of all shards; they are unobserved where a rank's share is missing.
    The signals that compare ranks are observed where at least two ranks recorded the step. Everything else stays what
    rank 0 recorded. Two rows belong together if they are of the same step.
    """
    if not others:
        return _without_shares(run) if run.info.sharded and run.info.world_size > 1 else run
    infos = [run.info, *(other.info for other in others)]
    tables = [run.steps, *(other.steps for other in others)]
    steps = dict(run.steps.columns)
    layers = run.layers
    with np.errstate(all="ignore"):  # what is infinite or NaN stays that
        models = {(info.model.parameters, info.model.trainable) for info in infos}
        # Stages of a pipeline are no replicas of each other.
        steps |= _compared(_Aligned(tables), replicated=not run.info.sharded and len(models) == 1)
        if run.info.sharded:
            is_whole = len(infos) >= run.info.world_size
            steps |= _summed(_Aligned(tables), "", is_whole=is_whole)
            aligned = _Aligned([run.layers, *(other.layers for other in others)])
            layers = Table({**layers.columns, **_summed(aligned, "layer_", is_whole=is_whole)})
    info = msgspec.structs.replace(run.info, grad_norm_every=max(info.grad_norm_every for info in infos))
    return replace(run, info=info, steps=Table(steps), layers=layers)


def whole_of(blocks: Sequence[Block]) -> Block:
    """The block of rank 0 of a run with shards, with the norms of the shares of all ranks together."""
    first, tables = blocks[0], {}
    with np.errstate(all="ignore"):
        for name, prefix in (("steps", ""), ("layers", "layer_")):
            own: Table = getattr(first, name)
            summed = (
                _summed(_Aligned([getattr(one, name) for one in blocks]), prefix, is_whole=True) if len(own) else {}
            )
            tables[name] = Table({**own.columns, **summed})
    return Block(tables["steps"], first.evaluations, tables["layers"])


def without_shares(block: Block) -> Block:
    """A block of one of several ranks with shards, without what would be wrong as a norm."""
    return Block(_without(block.steps, ""), block.evaluations, _without(block.layers, "layer_"))


class _Aligned:
    """Columns of several ranks, on the rows of the first."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        wanted = tables[0].step
        self._rows = []
        for table in tables:
            step = table.step
            row = np.minimum(np.searchsorted(step, wanted), max(len(step) - 1, 0))
            self._rows.append((row, step[row] == wanted if len(step) else np.zeros(len(wanted), dtype=np.bool_)))

    def column(self, name: str) -> tuple[Floats, Mask]:
        """Values and mask of shape (ranks, rows) or (ranks, rows, layers); what a rank lacks is unobserved."""
        known = [column.values.shape[1:] for table in self._tables for column in table.columns.values()]
        widest = max(known, key=len, default=())  # what no rank has yet is unobserved for every layer
        shape = next((t.columns[name].values.shape[1:] for t in self._tables if name in t.columns), widest)
        found = [self._one(table, *rows, name, shape) for table, rows in zip(self._tables, self._rows, strict=True)]
        return np.stack([values for values, _ in found]), np.stack([mask for _, mask in found])

    def _one(
        self, table: Table, row: npt.NDArray[np.intp], there: Mask, name: str, shape: tuple[int, ...]
    ) -> tuple[Floats, Mask]:
        column = table.columns.get(name)
        if column is None or column.values.shape[1:] != shape or not len(column):
            return np.full((len(row), *shape), np.nan), np.zeros((len(row), *shape), dtype=np.bool_)
        mask = column.mask()[row] & there.reshape(-1, *(1 for _ in shape))
        return np.where(mask, column.values[row], np.nan), mask


def _compared(ranks: _Aligned, *, replicated: bool) -> dict[str, Column]:
    found: dict[str, Column | None] = {
        "rank_loss_spread": _reduced(ranks.column("train_loss"), _spread),
        "rank_learning_rate_spread": _reduced(ranks.column("learning_rate"), _relative_spread),
        "slowest_rank_step_time_ratio": _reduced(ranks.column("time_to_backward"), _slowest),
    }
    if replicated:
        found["rank_grad_norm_spread"] = _reduced(ranks.column("grad_norm"), _relative_spread)
        found["rank_param_norm_spread"] = _reduced(ranks.column("param_norm"), _relative_spread)
    return {name: column for name, column in found.items() if column is not None}


def _reduced(column: tuple[Floats, Mask], by: Callable[[Floats, Mask], Floats]) -> Column | None:
    values, mask = column
    observed = mask.sum(axis=0) > 1
    return _stored(by(values, mask), observed) if observed.any() else None


def _spread(values: Floats, mask: Mask) -> Floats:
    high = np.where(mask, values, -np.inf).max(axis=0)
    low = np.where(mask, values, np.inf).min(axis=0)
    return np.asarray(high - low)


def _relative_spread(values: Floats, mask: Mask) -> Floats:
    largest = np.where(mask, np.abs(values), 0.0).max(axis=0)
    spread = _spread(values, mask)
    return np.where(largest == 0, 0.0, spread / largest)


def _slowest(values: Floats, mask: Mask) -> Floats:
    """The largest over the lower median: of two ranks, the slow one over the fast one."""
    ascending = np.sort(np.where(mask, values, np.inf), axis=0)
    last = np.maximum(mask.sum(axis=0) - 1, 0)
    middle, largest = (np.take_along_axis(ascending, at[None], axis=0)[0] for at in (last // 2, last))
    return np.asarray(largest / middle)


def _summed(ranks: _Aligned, prefix: str, *, is_whole: bool) -> dict[str, Column]:
    """The norms of all shards together. `update_ratio` and `grad_to_param` follow from them."""
    norms: dict[str, tuple[Floats, Any]] = {}
    for name in ("grad_norm", "grad_norm_clipped", "param_norm"):
        values, mask = ranks.column(prefix + name)
        norms[name] = np.sqrt(np.square(values).sum(axis=0)), mask.all(axis=0) & is_whole
    shares, mask = ranks.column(f"{prefix}update_ratio")
    parameters, seen = ranks.column(f"{prefix}param_norm")
    # Nothing is divided by the norm of an empty shard, or of one that is zero: its update does not count.
    moved = np.where(seen & (parameters == 0), 0.0, shares * parameters)
    known = (mask | (seen & (parameters == 0))).all(axis=0) & mask.any(axis=0) & is_whole
    whole, is_known = norms["param_norm"]
    gradient, has_gradient = norms["grad_norm"]
    ratios = {
        "update_ratio": (np.sqrt(np.square(moved).sum(axis=0)) / whole, known & is_known & (whole > 0)),
        "grad_to_param": (gradient / whole, has_gradient & is_known & (whole > 0)),
    }
    return {prefix + name: _stored(*column) for name, column in (norms | ratios).items() if column[1].size}


def _without_shares(run: Run) -> Run:
    """A run of which only one rank's shares are known: as norms they would be wrong."""
    return replace(run, steps=_without(run.steps, ""), layers=_without(run.layers, "layer_"))


def _without(table: Table, prefix: str) -> Table:
    names = {prefix + name for name in (*SHARE_COLUMNS, "grad_to_param")}
    return Table({name: column for name, column in table.columns.items() if name not in names})


def _stored(values: Any, observed: Mask) -> Column:
    kept = np.where(observed, values, np.nan).astype(np.float32)
    return Column(kept, None if observed.all() else observed)
