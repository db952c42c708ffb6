"""Messages and advice: text with {name} and {name:spec}, filled with numbers and nothing else."""

import math
import re
import string
from collections.abc import Mapping

from lossdoctor.errors import RuleError, nearest

__all__ = ["fill", "names_in"]

_SPEC = re.compile(r"\+?(d|(\.\d{1,2})?[%gfe]?)")
_WHOLE_BELOW = 1e15
"""Larger numbers are written with an exponent, even when they are whole."""


def fill(template: str, values: Mapping[str, float], where: str) -> str:
    """The template with {name} and {name:spec} replaced by numbers; the only specs are like .2%, .3g, +.1f and d.

    >>> fill("lr {lr:.3g} after {n:d} steps", {"lr": 0.00123, "n": 41.0}, "")
    'lr 0.00123 after 41 steps'
    """
    parts: list[str] = []
    for literal, name, spec in _fields(template, where):
        parts.append(literal)
        if name is not None:
            if name not in values:
                msg = f"{where}: unknown name '{name}' in {template!r}{nearest(name, values)}"
                raise RuleError(msg)
            value = values[name]
            whole = math.isfinite(value) and (
                spec.endswith("d") or (not spec and abs(value) < _WHOLE_BELOW and value == int(value))
            )
            parts.append(format(int(value), spec) if whole else format(value, spec.replace("d", "") or ".4g"))
    return "".join(parts)


def names_in(template: str) -> set[str]:
    """The names a template is to be filled with."""
    return {name for _, name, _ in _fields(template, template) if name is not None}


def _fields(template: str, where: str) -> list[tuple[str, str | None, str]]:
    found: list[tuple[str, str | None, str]] = []
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        msg = f"{where}: {template!r}: {error}"
        raise RuleError(msg) from None
    for literal, name, spec, conversion in pieces:
        if name is not None and (not name.isidentifier() or conversion or not _SPEC.fullmatch(spec or "")):
            msg = f"{where}: only {{name}} and {{name:spec}} with specs like .2%, .3g, +.1f, d: {template!r}"
            raise RuleError(msg)
        found.append((literal, name, spec or ""))
    return found
