"""Tables that grow by a printed row an epoch, as skorch's, fastai's and Ultralytics'."""

import re
from collections.abc import Sequence

from lossdoctor.runs.printed.names import axis_of, is_metric
from lossdoctor.runs.printed.records import numbers_in

__all__ = ["header_of", "row_of"]

_CELLS = re.compile(r"\s*[|│┃]\s*|\s{2,}")
_FRACTION = re.compile(r"\d{1,9}/\d{1,9}\Z")
_BORDERS = " |│┃"
_LONGEST = 640
_TWO = 2  # columns make a table


def header_of(line: str) -> Sequence[str] | None:
    """The columns that a line is the header of: first what counts, then something measured; None if it is none.

    >>> header_of("| Epoch | Train Loss | Val Loss |")
    ['Epoch', 'Train_Loss', 'Val_Loss']
    """
    if len(line) > _LONGEST or "\t" in line:  # with tabs it is a table for programs
        return None
    cells = [cell for cell in _CELLS.split(line.strip(_BORDERS)) if cell]
    if len(cells) < _TWO:
        cells = line.split()
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
