"""Tables that grow by a printed row an epoch (skorch, fastai, Ultralytics), or that are one step (Stable-Baselines)."""

import re
from collections.abc import Sequence

from lossdoctor.runs.collecting import number
from lossdoctor.runs.printed.names import axis_of, is_metric
from lossdoctor.runs.printed.records import numbers_in

__all__ = ["Card", "header_of", "row_of"]

_CELLS = re.compile(r"\s*[|│┃\t]\s*|\s{2,}")  # with tabs it was copied from a notebook
_FRACTION = re.compile(r"\d{1,9}/\d{1,9}\Z")
_BORDERS = " |│┃"
_LONGEST = 640
_TWO = 2  # columns make a table
_NAMED = re.compile(
    r"\s{0,8}[|│]\s{0,40}(?P<name>[A-Za-z_][\w/. ]{0,60}?)\s{0,60}[|│]\s{0,40}(?P<value>\S{1,40})\s{0,40}[|│]\s*$"
)
_COUNTS = ("total_timesteps", "total timesteps", "timesteps", "nupdates", "iterations", "n_updates", "episodes")
_MOST = 500


def header_of(line: str) -> Sequence[str] | None:
    """The columns that a line is the header of: first what counts, then something measured; None if it is none.

    >>> header_of("| Epoch | Train Loss | Val Loss |")
    ['Epoch', 'Train_Loss', 'Val_Loss']
    """
    if len(line) > _LONGEST:
        return None
    cells = [cell for cell in _CELLS.split(line.strip(_BORDERS)) if cell]
    if len(cells) < _TWO:
        cells = line.split()
    if tuple(cells[:_TWO]) == ("E", "#"):  # spaCy
        cells[:_TWO] = ["epoch", "step"]
    if any(axis_of(cell) for cell in cells[:_TWO]) and any(is_metric(cell) for cell in cells):
        return [cell.replace(" ", "_") for cell in cells]
    return None


def row_of(line: str, header: Sequence[str]) -> tuple[dict[str, float], dict[str, float]] | None:
    """The place and the values of a table's row, None if the line is none.

    >>> row_of("  3/10   0.25 ", ["Epoch", "loss"])
    ({'epoch': 3.0}, {'loss': 0.25})
    """
    cells = [cell for cell in _CELLS.split(line.strip(_BORDERS)) if cell]
    if len(cells) != len(header):
        cells = line.split()
    if len(cells) != len(header):
        return None
    place, values = dict[str, float](), dict[str, float]()
    for name, value in numbers_in(dict(zip(header, map(_without_total, cells), strict=True))).items():
        role = axis_of(name)
        if role in {"epoch", "step", "batch"}:
            place[role] = value
        else:
            values[name] = value
    return (place, values) if place and values else None


def _without_total(cell: str) -> str:
    return cell.partition("/")[0] if _FRACTION.match(cell) else cell


class Card:
    """A table that is one step: a name and a number a line, between two rules, as Stable-Baselines prints them."""

    def __init__(self) -> None:
        """Begin with an empty card."""
        self._values: dict[str, float] = {}

    def add(self, line: str) -> bool:
        """Take a line if it is one of a card, and begin another card if it names what is on it already.

        >>> card = Card()
        >>> card.add("| total_timesteps | 2048 |"), card.add("| loss | 0.5 |"), card.add("----")
        (True, True, False)
        >>> card.take()
        ({'step': 2048.0}, {'loss': 0.5})
        """
        match = _NAMED.match(line)
        value = None if match is None else number(match["value"])
        if match is None or value is None or len(self._values) >= _MOST:
            return False
        self._values[match["name"]] = value
        return True

    def begins_anew(self, line: str) -> bool:
        """Whether a line names what is on the card already."""
        match = _NAMED.match(line)
        return match is not None and match["name"] in self._values

    def take(self) -> tuple[dict[str, float], dict[str, float]] | None:
        """The place and the values of the card, which is empty then; None if it measures nothing."""
        values, self._values = self._values, {}
        count = next((name for name in _COUNTS if name in values), "")
        if not count or not any(map(is_metric, values)):
            return None
        return {"step": values[count]}, {name: value for name, value in values.items() if name not in _COUNTS}
