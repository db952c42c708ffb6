"""What one line says of a training: where it is, and its quantities with the split they are of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lossdoctor.runs.printed.names import Gap
from lossdoctor.runs.printed.scan import Field

__all__ = ["SCHEDULE", "Place", "Reading", "reading_of"]

SCHEDULE = frozenset({"lr", "learning_rate", "grad_norm", "gnorm"})
"""Quantities that make a measurement without any loss, if the line says where the training is."""

_EVALUATIONS = frozenset({"val", "test"})
_NAN = math.nan


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row belongs, as far as its line says; what it does not say is NaN."""

    epoch: float = _NAN
    step: float = _NAN
    batch: float = _NAN
    total: float = _NAN

    def __bool__(self) -> bool:
        return not (math.isnan(self.epoch) and math.isnan(self.step) and math.isnan(self.batch))


@dataclass(slots=True)
class Reading:
    """What a line says: its place and values (with their roles) by column, and which number of the line each one is."""

    place: Place
    values: dict[str, float]
    roles: dict[str, str]
    split: str
    place_at: dict[str, int]
    values_at: dict[str, int]

    @property
    def metrics(self) -> list[str]:
        """The columns that are losses or measures of quality."""
        return [name for name, role in self.roles.items() if role == "metric"]


def reading_of(found: Sequence[Field], *, split: str = "", exact: bool = False) -> Reading:
    """Make out a line's numbers; `split` is known of the line, `exact` keeps numbers beside which no loss stands."""
    line_split = sticky = split
    places: list[Field] = []
    named: dict[str, Field] = {}
    values, roles, values_at = dict[str, float](), dict[str, str](), dict[str, int]()
    for one in found:
        gap = one.gap
        if gap.split:
            sticky = gap.split
            line_split = gap.split if gap.heading else line_split
        if gap.role in {"epoch", "step", "batch"}:
            if gap.role == "epoch" or one.whole:
                named.setdefault(gap.role, one)
        elif not gap.name:
            counted = gap.enclosed and "metric" in roles.values()  # accuracy: 20.78%, (5125/24661)
            places += [one] if gap.position and one.whole and one.value <= one.total and not counted else []
        elif (name := _column(gap, sticky, line_split)) not in values:
            roles[name] = gap.role
            values[name], values_at[name] = _value(one, evaluated=line_split in _EVALUATIONS)
    if "epoch" not in named and len(places) > 1:
        named["epoch"] = places.pop(0)
    if places and "batch" not in named and "step" not in named:
        named["batch"] = places[0]
    place_at = {name: one.at for name, one in named.items()}
    counter = named.get("batch") or named.get("step")
    if counter is not None and counter.total_at >= 0:
        place_at["total"] = counter.total_at
    if not exact and not SCHEDULE & values.keys() and "metric" not in roles.values():
        values = {name: value for name, value in values.items() if roles[name] != "other"}
    epoch, step, batch = (named[name].value if name in named else _NAN for name in ("epoch", "step", "batch"))
    place = Place(epoch, step, batch, _NAN if counter is None else counter.total)
    return Reading(place, values, {name: roles[name] for name in values}, line_split, place_at, values_at)


def _column(gap: Gap, sticky: str, line_split: str) -> str:
    """The column of a quantity: the split of a metric is the last one said, that of a time or rate only the line's."""
    of = sticky if gap.role != "side" else line_split if line_split in _EVALUATIONS else ""
    return gap.name if gap.own or not of else f"{of}/{gap.name}"


def _value(one: Field, *, evaluated: bool) -> tuple[float, int]:
    """A quantity's value and which number of the line it is, -1 if it is made of two."""
    if evaluated and not math.isnan(one.average):
        return one.average, one.average_at
    if one.gap.role == "metric" and one.whole and one.total >= max(one.value, 2):
        return one.value / one.total, -1  # Accuracy: 9822/10000
    return one.value, one.at
