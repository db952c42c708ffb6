"""Numbers as logs spell them, and columns in the making."""

import math
import re
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from lossdoctor.errors import LogError
from lossdoctor.runs.readers.log import Series

__all__ = ["MOST_COLUMNS", "Columns", "flat_settings", "number"]

MOST_COLUMNS = 10_000
"""More columns than any training logs: a file that has them is something else."""

_SETTING = re.compile(r"^\s{0,4}([A-Za-z_][\w.-]{0,80})\s*:\s+(\S.{0,200}?)\s*$")
_MISSING = frozenset({"", "na", "n/a", "#n/a", "none", "null", "-", "--", "<na>"})


def number(value: object) -> float | None:
    """A logged value as a number; None where there is none.

    >>> number(" 1.5e-3"), number("NaN"), number("-Infinity"), number("N/A"), number(True)
    (0.0015, nan, -inf, None, 1.0)
    """
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if not isinstance(value, str) or len(value) > 60:  # noqa: PLR2004  no number is so long
        return None
    text = value.strip().lower()
    if text in _MISSING or "_" in text:
        return None
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        return None


class Columns:
    """Columns that grow value by value, in the order of their rows."""

    def __init__(self, place: object) -> None:
        self.rows = 0
        self._place = place
        self._values: dict[str, array[float]] = {}
        self._at: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def add(self, record: Mapping[str, float]) -> None:
        """Add a row. Raises LogError where there are too many columns."""
        for name, value in record.items():
            column = self._values.get(name)
            if column is None:
                if len(self._values) >= MOST_COLUMNS:
                    raise LogError(f"{self._place}: more than {MOST_COLUMNS} columns; this is no log of a training")
                column = self._values[name] = array("d")
                self._at[name] = array("q")
            column.append(value)
            self._at[name].append(self.rows)
        self.rows += 1

    def series(self) -> dict[str, Series]:
        """The columns so far."""
        return {
            name: Series(np.array(values, dtype=np.float64), np.array(self._at[name], dtype=np.int64))
            for name, values in self._values.items()
        }


def flat_settings(text: str) -> dict[str, Any]:
    """The plain `key: value` lines of a YAML file; what is nested deeper is left out.

    >>> flat_settings("epochs: 10")
    {'epochs': 10.0}
    """
    found: dict[str, Any] = {}
    for line in text.splitlines()[:2_000]:
        if match := _SETTING.match(line):
            value = number(match[2])
            found[match[1]] = match[2].strip("'\"") if value is None or not math.isfinite(value) else value
    return found
