"""What the signs and words of the rule language do to arrays.

Logic is three-valued (Kleene): a condition is 1, 0 or NaN for "undecided". Operands have a value for each tick, or one
for all of them; so has what is made of them. In most blocks nothing is undecided, and that is cheap to find out.
"""

import ast
from collections.abc import Callable

import numpy as np

from lossdoctor.statistics import Array

__all__ = ["ARITHMETIC", "COMPARISONS", "and_", "not_", "or_", "otherwise"]


def _compare(operation: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def compare(left: Array, right: Array) -> Array:
        truth = operation(left, right)
        unknown = np.isnan(left) | np.isnan(right)
        if unknown.any():
            return np.where(unknown, np.nan, truth)
        return truth.astype(np.float64) if truth.any() else np.zeros((1, *truth.shape[1:]))

    return compare


def not_(condition: Array) -> Array:
    """1 where it is 0, 0 where it is 1, undecided where it is."""
    return 1.0 - condition


def and_(left: Array, right: Array) -> Array:
    """0 if either is 0, else NaN if either is undecided, else 1."""
    both = left * right
    return np.where((left == 0) | (right == 0), 0.0, both) if np.isnan(both).any() else both


def or_(left: Array, right: Array) -> Array:
    """1 if either is 1, else NaN if either is undecided, else 0."""
    either = np.maximum(left, right)
    return np.where((left == 1) | (right == 1), 1.0, either) if np.isnan(either).any() else either


def otherwise(value: Array, stand_in: Array) -> Array:
    """The value, or the stand-in where it was not observed."""
    missing = np.isnan(value)
    if value.shape[1:] == stand_in.shape[1:]:
        if not missing.any():
            return value
        if missing.all():
            return stand_in
    return np.where(missing, stand_in, value)


def divide(left: Array, right: Array) -> Array:
    """A quotient; undecided where the divisor is 0."""
    zero = right == 0
    return np.where(zero, np.nan, left / np.where(zero, 1.0, right)) if np.any(zero) else left / right


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
