"""What a graph of expressions comes to over one block: each value is computed when it is first asked for, once.

Nearly every condition of nearly every rule is false throughout a block. So what a false condition is joined to is not
computed, and what is the same at all ticks stays an array of one tick, which numpy spreads over the others. Only what
remembers must see every block.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lossdoctor.filters import Array

__all__ = ["Compute", "Node", "Values"]

Compute: TypeAlias = Callable[..., Array]
"""What makes the values of a node from those of its children."""


@dataclass(slots=True)
class Node:
    """One operation on other nodes, or a leaf."""

    children: tuple[int, ...]
    make: Callable[[], Compute] | None
    signals: frozenset[str]
    """What must be observed for this node to have a value."""
    uses: frozenset[str]
    """The same and what it makes use of where it is observed."""
    facts: frozenset[str]
    boolean: bool
    layered: bool
    remembers: bool = False
    """Whether it has a state, and so must see a value for every tick."""
    word: str = ""
    """The operation; "and" and "or" may be decided by their first operand alone."""


class Values:
    """The values of a graph's nodes over one block of `ticks` ticks.

    `leaf` gives the values of a signal, a number or a fact, and `compute` what makes those of another node. What
    remembers is to be asked for in every block, with `settle`. Arrays are shared: they are not to be written to.
    """

    def __init__(
        self, nodes: Sequence[Node], ticks: int, leaf: Callable[[int], Array], compute: Callable[[int], Compute]
    ) -> None:
        self._nodes, self._leaf, self._compute = nodes, leaf, compute
        self._arrays: list[Array | None] = [None] * len(nodes)
        self._rows: dict[int, Values] = {}
        self.ticks = ticks

    def __getitem__(self, node: int) -> Array:
        """A node's values at all ticks: (ticks,) or (ticks, layers)."""
        array = self.short(node)
        return array if len(array) == self.ticks else np.broadcast_to(array, (self.ticks, *array.shape[1:]))

    def short(self, node: int) -> Array:
        """The same, but of one tick where it is the same at all of them."""
        array = self._arrays[node]
        if array is None:
            self.settle([node])
            array = self._arrays[node]
            assert array is not None  # noqa: S101 - for the type checker
        return array

    def at(self, node: int, tick: int) -> Array:
        """A node's values at one tick, (1,) or (1, layers): computed there alone, unless they are known everywhere."""
        if self.ticks == 1 or self._arrays[node] is not None:
            return _at(self.short(node), tick)
        if tick not in self._rows:
            leaf = self._leaf  # not self: in a cycle, the arrays would wait for the garbage collector
            row = Values(self._nodes, 1, lambda number: _at(leaf(number), tick), self._compute)
            row._arrays = [None if array is None else _at(array, tick) for array in self._arrays]
            self._rows[tick] = row
        return self._rows[tick].short(node)

    def settle(self, wanted: Iterable[int]) -> None:
        """Compute these nodes and what they are made of, without recursion: a rule may nest deeper than Python does."""
        arrays, nodes = self._arrays, self._nodes
        with np.errstate(all="ignore"):
            for first in wanted:
                waiting = [first] if arrays[first] is None else []
                while waiting:
                    number = waiting[-1]
                    node = nodes[number]
                    operands: list[Array] = []
                    for child in node.children:
                        if (array := arrays[child]) is None:
                            break
                        operands.append(array)
                    if len(operands) == len(node.children):
                        arrays[number] = self._value(number, node, operands)
                    elif operands and node.word == "and" and self._decides(node, operands[0]):
                        arrays[number] = operands[0]
                    else:
                        waiting.append(child)
                        continue
                    waiting.pop()

    def _decides(self, node: Node, first: Array) -> bool:
        """Whether "x and y" has the values of x: it is false everywhere, and on as many layers."""
        return self._nodes[node.children[0]].layered == node.layered and not first.any()

    def _value(self, number: int, node: Node, operands: list[Array]) -> Array:
        if not operands:
            return self._leaf(number)
        ticks = self.ticks
        if not node.remembers or ticks == 1:
            return self._compute(number)(*operands)
        spread = (np.broadcast_to(one, (ticks, *one.shape[1:])) if len(one) == 1 else one for one in operands)
        array = self._compute(number)(*spread)
        return array[:1] if ticks and not array.strides[0] else array


def _at(array: Array, tick: int) -> Array:
    return array if len(array) == 1 else array[tick : tick + 1 or None]
