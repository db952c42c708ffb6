"""From the text of an expression to nodes of a graph, by a whitelist of Python's syntax."""

import ast
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lossdoctor.errors import RuleError, nearest
from lossdoctor.operators import ARITHMETIC, COMPARISONS, and_, not_, or_, otherwise
from lossdoctor.scope import Scope
from lossdoctor.statistics import ELEMENTWISE, MAX_WINDOW, VOCABULARY, Array

if TYPE_CHECKING:
    from lossdoctor.expressions import Graph

__all__ = ["MAX_LENGTH", "OTHERWISE", "Compiler"]

MAX_LENGTH = 500
"""The longest expression, in characters."""

OTHERWISE = "otherwise"


class Compiler:
    """Turns one expression into nodes of a graph."""

    def __init__(self, graph: "Graph", scope: Scope) -> None:
        self._graph, self._scope = graph, scope
        self._part = ""
        self._open: list[str] = []
        # Each measure is visited once: m2 = "m1 + m1", m3 = "m2 + m2", ... must not take exponential time.
        self._measures: dict[str, int] = {}

    def compile(self, text: str, part: str) -> int:
        """The number of the node of an expression. Raises RuleError if it is not well formed."""
        self._part = part
        self._open.clear()
        try:
            return self._parse(text)
        except RecursionError:
            raise self._fail("nested too deeply") from None

    def _fail(self, message: str) -> RuleError:
        inside = f" (in measure '{self._open[-1]}')" if self._open else ""
        return RuleError(f"{self._scope.where}: {self._part}{inside}: {message}")

    def _parse(self, text: str) -> int:
        if len(text) > MAX_LENGTH:
            raise self._fail(f"the expression has {len(text)} characters; at most {MAX_LENGTH} are allowed")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except SyntaxError as error:
            raise self._fail(f"not an expression: {text.strip()!r} ({error.msg})") from None
        except (RecursionError, MemoryError, ValueError):
            raise self._fail("not an expression: nested too deeply or not text") from None
        return self._visit(tree.body)

    def _visit(self, node: ast.expr) -> int:  # noqa: PLR0911 - one return for each kind of syntax
        match node:
            case ast.Constant(value=bool()):
                raise self._fail("True and False are not numbers; write 1 or 0")
            case ast.Constant(value=int() | float() as number) if abs(number) <= sys.float_info.max:
                return self._graph.number(float(number))
            case ast.Name(id=name):
                return self._name(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._arithmetic(ast.Mult, self._graph.number(-1.0), self._visit(operand))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._visit(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._graph.intern(("not",), (self._condition(operand),), lambda: not_, boolean=True)
            case ast.BoolOp(op=op, values=values):
                key, combine = ("and", and_) if isinstance(op, ast.And) else ("or", or_)
                return self._fold((key,), combine, [self._condition(value) for value in values], boolean=True)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in ARITHMETIC:
                return self._arithmetic(type(op), self._visit(left), self._visit(right))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compare(left, ops, comparators)
            case ast.Call(func=ast.Name(id=word), args=arguments, keywords=[]):
                return self._call(word, arguments)
        raise self._fail(f"not allowed in a rule: {ast.unparse(node)!r} ({type(node).__name__})")

    def _arithmetic(self, op: type[ast.operator], left: int, right: int) -> int:
        key, compute = ARITHMETIC[op]
        one, other = self._graph.constant(left), self._graph.constant(right)
        if one is not None and other is not None:
            with np.errstate(all="ignore"):
                return self._graph.number(float(compute(np.float64(one), np.float64(other))))  # type: ignore[arg-type]
        return self._graph.intern((key,), (left, right), lambda: compute)

    def _compare(self, left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> int:
        operands = [self._visit(operand) for operand in (left, *comparators)]
        parts: list[int] = []
        for op, (one, other) in zip(ops, pairwise(operands), strict=True):
            if type(op) not in COMPARISONS:
                raise self._fail(f"not a comparison of numbers: {type(op).__name__}")
            key, compare = COMPARISONS[type(op)]
            parts.append(self._graph.intern((key,), (one, other), lambda compare=compare: compare, boolean=True))  # type: ignore[misc]
        return self._fold(("and",), and_, parts, boolean=True)

    def _condition(self, node: ast.expr) -> int:
        number = self._visit(node)
        if not self._graph.is_condition(number):
            raise self._fail(f"{ast.unparse(node)!r} is a number, not a condition; compare it with something")
        return number

    def _fold(
        self,
        key: tuple[object, ...],
        combine: Callable[[Array, Array], Array],
        parts: list[int],
        *,
        boolean: bool = False,
    ) -> int:
        result = parts[0]
        for part in parts[1:]:
            result = self._graph.intern(key, (result, part), lambda: combine, boolean=boolean)
        return result

    def _name(self, name: str) -> int:
        scope = self._scope
        if name in scope.measures:
            if name in self._open:
                raise self._fail(f"measure '{name}' is defined by itself")
            if name not in self._measures:
                self._open.append(name)
                self._measures[name] = self._parse(scope.measures[name])
                self._open.pop()
            return self._measures[name]
        if name in scope.constants:
            return self._graph.number(scope.constants[name])
        if name in scope.signals:
            return self._graph.name(name)
        if name in scope.facts:
            return self._graph.fact(name)
        if name in VOCABULARY or name in ELEMENTWISE:
            raise self._fail(f"'{name}' is a function; write {name}(...)")
        known = {*scope.measures, *scope.constants, *scope.signals, *scope.facts}
        raise self._fail(f"unknown name '{name}'{nearest(name, known)}")

    def _call(self, word: str, arguments: list[ast.expr]) -> int:
        if word == OTHERWISE:
            if len(arguments) != 2:  # noqa: PLR2004 - a value and its stand-in
                raise self._fail("otherwise() is used as otherwise(x, y): x, or y where x was not observed")
            children = (self._visit(arguments[0]), self._visit(arguments[1]))
            both = all(self._graph.is_condition(child) for child in children)
            return self._graph.intern((OTHERWISE,), children, lambda: otherwise, boolean=both)
        if word in ELEMENTWISE:
            function, wanted = ELEMENTWISE[word]
            nodes = [self._visit(argument) for argument in arguments]
            if len(nodes) < wanted or (wanted == 1 and len(nodes) > 1):
                raise self._fail(f"{word}() takes {'one number' if wanted == 1 else 'two numbers or more'}")
            if wanted == 1:
                return self._graph.intern((word,), (nodes[0],), lambda: function)
            return self._fold((word,), function, nodes)
        if word not in VOCABULARY:
            raise self._fail(f"unknown function '{word}'{nearest(word, [*VOCABULARY, *ELEMENTWISE, OTHERWISE])}")
        entry = VOCABULARY[word]
        series = [self._visit(argument) for argument in arguments[: entry.series]]
        windows = [self._window(word, argument) for argument in arguments[entry.series :]]
        if entry.window and not windows and entry.default_window is not None:
            windows = [entry.default_window]
        if len(series) != entry.series or len(windows) != int(entry.window):
            raise self._fail(f"{word}() is used as {entry.meaning}")
        return self._statistic(word, windows, series)

    def _statistic(self, word: str, windows: list[int], series: list[int]) -> int:
        entry = VOCABULARY[word]
        further = [self._statistic(entry.beside, windows, series)] if entry.beside else []
        make = partial(entry.make, *windows)
        return self._graph.intern((word, *windows), (*series, *further), make, remembers=True)

    def _window(self, word: str, argument: ast.expr) -> int:
        value = self._graph.constant(self._visit(argument))
        if value is None or not 1 <= value <= MAX_WINDOW or value != int(value):
            raise self._fail(f"the window of {word}() must be a whole number from 1 to {MAX_WINDOW}")
        return int(value)
