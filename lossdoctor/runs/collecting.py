"""Values of many columns gathered one by one, in arrays that grow: what every reader of a foreign log fills."""

import math
from array import array
from collections.abc import Mapping

import numpy as np

from lossdoctor.runs.readers.log import Series

__all__ = ["MAX_COLUMNS", "MAX_NAME", "MAX_VALUES", "Columns", "number"]

# A training that logs more is not known; a file that claims more is broken or hostile. 16 bytes a value.
MAX_VALUES = 40_000_000
MAX_COLUMNS = 5_000
MAX_NAME = 300

_SPELLED = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}


def number(value: object) -> float | None:
    """A logged value as a number, or None if it is none: text counts only where it spells a number.

    >>> number("1e-3"), number("NaN"), number("93.5%"), number(True), number("12 ms")
    (0.001, nan, 93.5, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and 0 < len(value) <= 40:  # noqa: PLR2004 -- no float is longer, some texts are
        text = value.strip().lower()
        if text in _SPELLED:
            return _SPELLED[text]
        if text[:1] in "+-.0123456789" and "_" not in text:
            try:
                return float(text.removesuffix("%"))
            except ValueError:
                return None
    return None


class Columns:
    """Columns in the making. `lost` says, once it is not empty, what did not fit."""

    def __init__(self, *, values: int = MAX_VALUES, columns: int = MAX_COLUMNS) -> None:
        """Hold at most so many values in so many columns."""
        self.rows = 0
        self.lost = ""
        self._room = values
        self._columns = columns
        self._values: dict[str, array[float]] = {}
        self._at: dict[str, array[int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def row(self) -> int:
        """The number of a new row."""
        self.rows += 1
        return self.rows - 1

    def add(self, name: str, row: int, value: float) -> None:
        """Write a value into a row; rows of one column must ascend, and a second value in a row replaces the first."""
        values = self._values.get(name)
        if values is None:
            if len(self._values) >= self._columns or len(name) > MAX_NAME:
                self.lost = f"only the first {self._columns} columns were read"
                return
            values = self._values[name] = array("d")
            self._at[name] = array("q")
        at = self._at[name]
        if at and at[-1] == row:
            values[-1] = value
            return
        if self._room <= 0:
            self.lost = "the log has more values than are read; its end was left out"
            return
        self._room -= 1
        values.append(value)
        at.append(row)

    def add_row(self, record: Mapping[str, float]) -> None:
        """Write a new row."""
        row = self.row()
        for name, value in record.items():
            self.add(name, row, value)

    @property
    def full(self) -> bool:
        """Whether no further value will be taken."""
        return self._room <= 0

    def series(self) -> dict[str, Series]:
        """What was gathered, by name, in the order of first appearance."""
        return {
            name: Series(np.array(values, dtype=np.float64), np.array(self._at[name], dtype=np.int64))
            for name, values in self._values.items()
        }
