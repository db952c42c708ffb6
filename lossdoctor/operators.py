"""What the signs and words of the rule language do to arrays.

Logic is three-valued (Kleene): a condition is 1, 0 or NaN for "undecided".
"""

import ast
from collections.abc import Callable

import numpy as np

from lossdoctor.statistics import Array

__all__ = ["ARITHMETIC", "COMPARISONS", "and_", "not_", "or_", "otherwise"]


def _compare(operation: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def compare(left: Array, right: Array) -> Array:
        truth = operation(left, right)
        return np.where(np.isnan(left) | np.isnan(right), np.nan, truth)

    return compare


def not_(condition: Array) -> Array:
    """1 where it is 0, 0 where it is 1, undecided where it is."""
    return 1.0 - condition


def and_(left: Array, right: Array) -> Array:
    """0 if either is 0, else NaN if either is undecided, else 1."""
    return np.where((left == 0) | (right == 0), 0.0, left * right)


def or_(left: Array, right: Array) -> Array:
    """1 if either is 1, else NaN if either is undecided, else 0."""
    return np.where((left == 1) | (right == 1), 1.0, left + right)


def otherwise(value: Array, stand_in: Array) -> Array:
    """The value, or the stand-in where it was not observed."""
    return np.where(np.isnan(value), stand_in, value)


def divide(left: Array, right: Array) -> Array:
    """A quotient; undecided where the divisor is 0."""
    return np.where(right == 0, np.nan, left / np.where(right == 0, 1.0, right))


COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Array, Array], Array]]] = {
    ast.Lt: ("<", _compare(np.less)),
    ast.LtE: ("<=", _compare(np.less_equal)),
    ast.Gt: (">", _compare(np.greater)),
    ast.GtE: (">=", _compare(np.greater_equal)),
    ast.Eq: ("==", _compare(np.equal)),
    ast.NotEq: ("!=", _compare(np.not_equal)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[Array, Array], Array]]] = {
    ast.Add: ("+", np.add),
    ast.Sub: ("-", np.subtract),
    ast.Mult: ("*", np.multiply),
    ast.Div: ("/", divide),
}
