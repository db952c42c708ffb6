"""The numbers of a printed line and what each is called: "lr 0.1 | val loss: 2.5 (2.7)", in any of a hundred styles.

A number's name is what stands between the number before it and itself. What a piece of text names is worked out once
and remembered, because a training prints the same words around other numbers thousands of times.
"""

import math
import re
from dataclasses import dataclass

from lossdoctor.runs.printed.names import Gap, gap_of

__all__ = ["TOKEN", "Field", "fields", "to_float"]

# Possessive quantifiers (++) never give back what they took: no line can make this slow.
TOKEN = re.compile(
    r"""
    (?<![\w.])(?:\d{1,4}:\d\d(?::\d\d)?(?:[.,]\d++)?(?!\w)          # 3:03:21,460: a clock
      | \d{4}[-/]\d\d[-/]\d\d(?:[T_ ]\d\d[:\d.,]*+)?Z?              # 2021-08-12T19:06: a date
      | \d\d/\d\d\s\d\d:\d\d(?::\d\d)?                              # 01/18 06:25:12
      | \d{1,3}(?:\.\d{1,3}){3}(?::\d+)?                            # 10.0.0.1:29500: an address
      | 0x[0-9a-fA-F]++)
    | (?<![\w.@])(?P<number>[-+]?+(?:
          \d{1,3}(?:,\d{3})++(?![\d.,]*+\d)                         # 1,000
        | \d++(?:\.\d*+)?(?:[eE][-+]?+\d++)?
        | \.\d++(?:[eE][-+]?+\d++)?
        | (?i:nan(?!\s+iter)|inf(?:inity)?)))
      (?P<unit>(?i:ms|s|us|µs|m|h|%|[kmgt]i?b?|it|x)(?![\w]))?
      (?!\.?[\w@])
    """,
    re.VERBOSE,
)


@dataclass(slots=True)
class Field:
    """One number of a line: 12 in "batch 12/100", 6.9 in "Loss 6.9 (7.0)"."""

    gap: Gap
    value: float
    whole: bool
    start: int = 0
    """The character it begins at."""
    at: int = -1
    """Which number of the line it is, from 0; -1 if none."""
    total: float = math.nan
    total_at: int = -1
    average: float = math.nan
    average_at: int = -1


def to_float(text: str) -> float:
    """The number a token spells; a comma in it separates thousands."""
    return float(text.replace(",", "") if "," in text else text)


def fields(line: str, *, limit: int = 200) -> list[Field]:
    """The named numbers of a line, and those without a name that may be positions ("[10/100]"); at most `limit`."""
    found: list[Field] = []
    end, at = 0, -1
    last: Field | None = None
    for match in TOKEN.finditer(line):
        text = match["number"]
        if text is None:
            end, last = match.end(), None
            continue
        at += 1
        gap = gap_of(line[end : match.start()])
        end = match.end()
        value = to_float(text)
        if gap.role == "total" and last is not None:
            last.total, last.total_at = value, at
            continue
        if gap.role == "average" and last is not None:
            if not match["unit"]:
                last.average, last.average_at = value, at
            continue
        if not gap.name and not gap.bare and not gap.position:
            last = None
            if gap.split:
                found.append(Field(gap, math.nan, whole=False))
            continue
        whole = text.lstrip("+-").replace(",", "").isdigit() and not match["unit"]
        last = Field(gap, value, whole=whole, start=match.start(), at=at)
        found.append(last)
        if len(found) >= limit:
            break
    return found
