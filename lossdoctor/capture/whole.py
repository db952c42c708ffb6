"""Norms of whole parameters while a run with shards goes on: each rank hands its shares to the first, which judges."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from lossdoctor.capture.rows import merged
from lossdoctor.runs.ranks import SHARE_COLUMNS, whole_of
from lossdoctor.runs.tables import Block, Column, Table

__all__ = ["WholeNorms"]


class WholeNorms:
    """Makes blocks of shares whole. `to_first` hands bytes of each rank to rank 0, and gives none to the others."""

    def __init__(self, to_first: Callable[[bytes], Sequence[bytes]]) -> None:
        self._to_first = to_first
        self._held: list[Block] = []

    def __call__(self, block: Block) -> Block:
        """The block with whole norms, on rank 0, as far as all ranks have recorded its steps; on others, the block.

        The rest follows with the next block: on a device, ranks may read a step earlier or later. All ranks call it at
        the same step.
        """
        told = self._to_first(_packed(block))
        if not told:
            return block
        blocks = [block, *map(_unpacked, told[1:])]
        self._held = [merged(pair) for pair in zip(self._held or [Block()] * len(blocks), blocks, strict=True)]
        known = min(float(one.steps.step[-1]) if len(one.steps) else -np.inf for one in self._held)
        now = [_cut(one, known, before=True) for one in self._held]
        self._held = [_cut(one, known, before=False) for one in self._held]
        return whole_of(now)

    def rest(self) -> list[Block]:
        """What was held back of this rank's own blocks."""
        held, self._held = self._held[:1], []
        return held


def _cut(block: Block, step: float, *, before: bool) -> Block:
    """The rows up to a step, or those behind it."""
    cuts = [int(np.searchsorted(table.step, step, "right")) for table in (block.steps, block.evaluations, block.layers)]
    rows = [slice(None, cut) if before else slice(cut, None) for cut in cuts]
    return Block(block.steps[rows[0]], block.evaluations[rows[1]], block.layers[rows[2]])


def _packed(block: Block) -> bytes:
    columns = [_columns(block.steps, ""), _columns(block.layers, "layer_")]
    return msgspec.msgpack.encode(columns)


def _columns(table: Table, prefix: str) -> list[tuple[str, str, tuple[int, ...], bytes, bytes | None]]:
    names = {"step", *(prefix + name for name in SHARE_COLUMNS)}
    return [
        (
            name,
            column.values.dtype.str,
            column.values.shape,
            column.values.tobytes(),
            None if column.observed is None else column.observed.tobytes(),
        )
        for name, column in table.columns.items()
        if name in names
    ]


def _unpacked(told: bytes) -> Block:
    steps, layers = msgspec.msgpack.decode(told)
    return Block(Table(dict(map(_column, steps))), Table(), Table(dict(map(_column, layers))))


def _column(told: Any) -> tuple[str, Column]:
    name, dtype, shape, values, observed = told
    mask = None if observed is None else np.frombuffer(observed, dtype=np.bool_).reshape(shape)
    return name, Column(np.frombuffer(values, dtype=dtype).reshape(shape), mask)
