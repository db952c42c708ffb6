"""Objects within printed lines: JSON after a logger's prefix (fairseq, DLLogger), Python's own dicts (HF Trainer)."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lossdoctor.runs.collecting import number
from lossdoctor.runs.printed.forms import BAR
from lossdoctor.runs.printed.names import axis_of, cue_in, is_metric, split_of
from lossdoctor.runs.printed.reading import SCHEDULE, Place, reading_of
from lossdoctor.runs.printed.scan import fields

__all__ = ["measured_in", "numbers_in", "record_of"]

_ITEM = re.compile(
    r"""'(?P<name>[^'\n]{1,120})'\s{0,4}:\s{0,4}
        (?: '(?P<quoted>[^'\n]{0,60})'
          | [\w.]{1,40}\((?P<inside>[^()\n]{1,60})\)
          | (?P<plain>[^,{}\[\]'\s]{1,40}))
        (?=\s{0,4}[,}])""",
    re.VERBOSE,
)
_MOST_ITEMS = 2_000
_HEADING = 160  # characters before an object that may say where the training is


def record_of(line: str) -> tuple[str, Mapping[str, Any]] | None:
    """What stands before the object in a line, and the object; None if there is none, or none that can be read.

    >>> record_of("  3%|x| 1/30 [00:01]{'loss': '2.5', 'lr': 1e-05, 'epoch': nan}")
    ('  3%|x| 1/30 [00:01]', {'loss': '2.5', 'lr': '1e-05', 'epoch': 'nan'})
    """
    begin, end = line.find("{"), line.rfind("}")
    if begin < 0 or end - begin < len('{"a":1'):
        return None
    text = line[begin : end + 1]
    if '"' in text[1:4]:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return (line[:begin], record) if isinstance(record, dict) else None
    if "'" not in text[1:4]:
        return None
    items: dict[str, str] = {}
    for match in _ITEM.finditer(text):
        items[match["name"]] = match["quoted"] or (match["inside"] or match["plain"] or "").split(",")[0]
        if len(items) >= _MOST_ITEMS:
            break
    return (line[:begin], items) if items else None


def numbers_in(record: Mapping[str, Any], *, depth: int = 3) -> dict[str, float]:
    """The numbers of an object by name; names of inner objects are joined by a slash, lists are not numbers.

    >>> numbers_in({"a": "1e-3", "b": {"c": 2}, "d": [1, 2], "e": "text"})
    {'a': 0.001, 'b/c': 2.0}
    """
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            if depth > 1:
                found |= {f"{name}/{inner}": item for inner, item in numbers_in(value, depth=depth - 1).items()}
        elif (item := number(value)) is not None:
            found[str(name)] = item
        if len(found) >= _MOST_ITEMS:
            break
    return found


def measured_in(record: Mapping[str, Any], prefix: str = "") -> tuple[Place, dict[str, float]] | None:
    """Where an object belongs and what it measures; None if it measures nothing, or is the Trainer's last summary.

    >>> measured_in({"epoch": 0.5, "loss": "2.5"})
    (Place(epoch=0.5, step=nan, batch=nan, total=nan), {'loss': 2.5})
    """
    if isinstance(data := record.get("data"), Mapping):  # DLLogger: "step" is (epoch, iteration, ...), [] at the end
        steps = record.get("step")
        places = dict(zip(("epoch", "iteration"), steps, strict=False)) if isinstance(steps, list) else {"step": steps}
        record = {**data, **places}
    numbers = numbers_in(record)
    if "train_runtime" in numbers:
        return None  # means over the whole training are no point of its curves
    place, values, metrics = Place(), dict[str, float](), 0
    heading = cue_in(prefix[-60:])
    for name, value in numbers.items():
        role = axis_of(name)
        if role in {"epoch", "step", "batch"}:
            if role == "epoch" or value.is_integer():  # fairseq's "update" is a fraction of the epoch
                place = replace(place, **{role: value})
        elif not name.startswith("best"):
            metrics += is_metric(name)
            split = heading if heading and not split_of(name) and name.lower() not in SCHEDULE else ""
            values[f"{split}/{name}" if split else name] = value
    if not place and (bar := BAR.match(prefix)) is not None:
        place = Place(step=float(bar["done"]))  # where no epoch is said: a bar lags behind
    elif not place and len(prefix) <= _HEADING:
        place = reading_of(fields(prefix)).place  # Step 100: {'loss': 2.3}
    return (place, values) if values and (metrics or (place and SCHEDULE & values.keys())) else None
