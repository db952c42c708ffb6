"""The rule language: parse, check names, compile, evaluate over blocks.

An expression is Python's syntax cut down by a whitelist: and/or/not, comparisons, + - * /, numbers, names and calls to
the vocabulary. There are no attributes, subscripts, strings, powers or lambdas, nothing is ever handed to Python's
`eval`, and windows, lengths and counts are bounded: a rule from a stranger can neither run code nor hang.

Expressions are interned into a `Graph`, so an equal sub-expression of any rule is computed once per block. Logic is
three-valued (Kleene): a condition is 1, 0 or NaN for "undecided".
"""

import math
from collections.abc import Callable, Iterable, Mapping
from copy import copy, deepcopy

import numpy as np

from lossdoctor.compiler import MAX_LENGTH, OTHERWISE, Compiler
from lossdoctor.errors import nearest
from lossdoctor.filters import Array, is_constant
from lossdoctor.scope import Scope
from lossdoctor.values import Compute, Node, Values

__all__ = ["MAX_LENGTH", "Graph", "Scope", "nearest"]


class Graph:
    """Interned expressions that are evaluated together, block after block.

    `add` parses an expression and returns the number of its node; `evaluate` gives the values of nodes over one block.
    A graph has the state of its statistics, so it serves one run; `for_run` makes another from the same expressions, to
    which belongs what is added later, too. `facts` is read at every block, not copied: what is found out about a run
    while it goes on is put into the same mapping.
    """

    def __init__(self, facts: Mapping[str, float] | None = None) -> None:
        self._facts = {} if facts is None else facts
        self._nodes: list[Node] = []
        self._filters: dict[int, Compute] = {}
        self._names: dict[int, str] = {}
        self._constants: dict[int, float] = {}
        self._fact_names: dict[int, str] = {}
        self._interned: dict[tuple[object, ...], int] = {}
        self._compilers: dict[int, Compiler] = {}
        self.cost = 0
        """About what one tick costs: the operations, each with the ticks it looks back at."""

    def for_run(self, facts: Mapping[str, float]) -> "Graph":
        """The same expressions with statistics that have seen nothing."""
        other = copy(self)
        other._facts, other._filters = facts, {}  # noqa: SLF001 - a Graph, too
        return other

    def fork(self, nodes: Iterable[int]) -> "Graph":
        """The same expressions, in which the statistics of these nodes have seen the same: from now on each its own."""
        other = copy(self)
        other._filters = deepcopy({node: self._filters[node] for node in nodes if node in self._filters})  # noqa: SLF001
        return other

    def add(self, text: str, scope: Scope, part: str) -> int:
        """Add the expression `text`; `part` says where it stands in its file, e.g. "when".

        Raises RuleError if it is not well formed or uses an unknown name.
        """
        # Each measure of a scope is compiled once. The compiler keeps the scope alive: its id is not given to another.
        if id(scope) not in self._compilers:
            self._compilers[id(scope)] = Compiler(self, scope)
        return self._compilers[id(scope)].compile(text, part)

    def signals(self, *nodes: int) -> frozenset[str]:
        """The signals without which these nodes have no value."""
        return frozenset[str]().union(*(self._nodes[node].signals for node in nodes))

    def uses(self, *nodes: int) -> frozenset[str]:
        """All signals that these nodes make use of, also those that may be missing."""
        return frozenset[str]().union(*(self._nodes[node].uses for node in nodes))

    def facts(self, node: int) -> frozenset[str]:
        """The facts that a node depends on."""
        return self._nodes[node].facts

    def is_layered(self, node: int) -> bool:
        """Whether a node has a value for each layer."""
        return self._nodes[node].layered

    def is_condition(self, node: int) -> bool:
        """Whether a node is a condition rather than a number."""
        return self._nodes[node].boolean

    def constant(self, node: int) -> float | None:
        """The value of a node that is a number known when the rule is loaded, None for others."""
        return self._constants.get(node)

    def intern(
        self,
        key: tuple[object, ...],
        children: tuple[int, ...],
        compute: Callable[[], Callable[..., Array]],
        *,
        boolean: bool = False,
        remembers: bool = False,
    ) -> int:
        """The node of an operation on other nodes, made if it is new."""
        key = (*key, children)
        if key not in self._interned:
            below = [self._nodes[child] for child in children]
            node = Node(
                children,
                compute,
                self.signals(*(children[1:] if key[0] == OTHERWISE else children)),
                self.uses(*children),
                frozenset[str]().union(*(child.facts for child in (below[1:] if key[0] == OTHERWISE else below))),
                boolean,
                any(child.layered for child in below) and not str(key[0]).startswith("across_"),
                remembers,
                str(key[0]),
            )
            self._interned[key] = self._append(node)
            self.cost += 1 + sum(window for window in key[1:-1] if isinstance(window, int))
        return self._interned[key]

    def _append(self, node: Node) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def name(self, name: str) -> int:
        """The node of a signal."""
        key = ("name", name)
        if key not in self._interned:
            only = frozenset({name})
            node = Node((), None, only, only, frozenset(), boolean=False, layered=name.startswith("layer_"))
            self._interned[key] = self._append(node)
            self._names[self._interned[key]] = name
        return self._interned[key]

    def fact(self, name: str) -> int:
        """The node of a fact: the same at every tick of a block, undecided where the run does not know it."""
        self._fact_names[node := self._leaf(("fact", name), frozenset({name}))] = name
        return node

    def number(self, value: float) -> int:
        """The node of a constant."""
        self._constants[node := self._leaf(("number", repr(value)))] = value
        return node

    def _leaf(self, key: tuple[object, ...], facts: frozenset[str] = frozenset()) -> int:
        if key not in self._interned:
            node = Node((), None, frozenset(), frozenset(), facts, boolean=False, layered=False)
            self._interned[key] = self._append(node)
        return self._interned[key]

    def remembering(self, *nodes: int) -> list[int]:
        """Those nodes with a state that these nodes are made of, in an order in which they can be computed."""
        found: set[int] = set()
        waiting = [*nodes]
        while waiting:
            if (node := waiting.pop()) not in found:
                found.add(node)
                waiting += self._nodes[node].children
        return sorted(node for node in found if self._nodes[node].remembers)

    def evaluate(
        self,
        signals: Mapping[str, Array],
        ticks: int,
        *,
        remembering: Iterable[int] | None = None,
        wide: bool | None = None,
    ) -> Values:
        """The nodes' values over the next block of `ticks` ticks; signals are (ticks,) or (ticks, layers).

        With `remembering`, only these of the nodes that have a state go on, and only what is made of them has a value.
        `wide` says whether there are signals with layers; by default it is looked up.
        """
        wide = any(array.ndim > 1 for array in signals.values()) if wide is None else wide

        def leaf(number: int) -> Array:
            if (name := self._names.get(number)) is not None:
                # What is the same at all ticks is computed once: a setting, what was never recorded.
                array = signals[name]
                array = array[:1] if ticks > 1 and array.ndim == 1 and is_constant(array) else array
                return array.reshape(len(array), -1) if wide else array
            value = self._constants.get(number)
            value = self._facts.get(self._fact_names[number], math.nan) if value is None else value
            return np.array([[value]] if wide else [value], dtype=np.float64)

        values = Values(self._nodes, ticks, leaf, self._compute)
        if remembering is None:
            remembering = [number for number, node in enumerate(self._nodes) if node.remembers]
        values.settle(remembering)
        return values

    def _compute(self, number: int) -> Compute:
        """What computes a node in this run."""
        if (known := self._filters.get(number)) is not None:
            return known
        make = self._nodes[number].make
        assert make is not None  # noqa: S101 - for the type checker
        return self._filters.setdefault(number, make())
