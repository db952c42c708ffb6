"""Lines like one that was read before: the same words around other numbers, read by one expression at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lossdoctor.runs.printed.scan import TOKEN, to_float

__all__ = ["Template", "template_of"]

_FLOAT = r"([-+]?(?:\d++(?:\.\d*+)?(?:[eE][-+]?\d++)?|\.\d++(?:[eE][-+]?\d++)?|[nN][aA][nN]|[iI][nN][fF]))"
_WHOLE = r"(\d++)"
_THOUSANDS = r"([-+]?\d[\d,]*+)"
_EDGE = re.compile(r"(^(?:\\?[ \t])+|(?:\\?[ \t])+$)")
_MOST_NUMBERS = 60


@dataclass(frozen=True, slots=True)
class Template:
    """An expression with a group for each number, and which group is what."""

    pattern: re.Pattern[str]
    place: Mapping[str, int]
    columns: Mapping[str, int]

    def read(self, line: str) -> tuple[dict[str, float], dict[str, float]] | None:
        """The place and the values of a line, or None if it is another kind of line."""
        match = self.pattern.match(line)
        if match is None:
            return None
        texts = match.groups()
        place = {name: to_float(texts[at]) for name, at in self.place.items()}
        if "total" in place and place.get("batch", 0.0) > place["total"]:
            return None  # no place of a training, see `parser`
        return place, {name: to_float(texts[at]) for name, at in self.columns.items()}


def template_of(line: str, place: Mapping[str, int], columns: Mapping[str, int]) -> Template | None:
    """The template of a line, given the numbers (counted from 0) that are its place and its values."""
    parts: list[str] = []
    end = count = 0
    whole = {at for name, at in place.items() if name != "epoch"}
    for token in TOKEN.finditer(line):
        parts.append(_literal(line[end : token.start()]))
        end = token.end()
        text = token["number"]
        if text is None:  # a clock or a date
            parts.append(re.sub(r"\d+", r"\\d++", re.escape(token[0])))
            continue
        if count in whole and not text.isdigit():
            return None
        parts.append(_WHOLE if count in whole or text.isdigit() else _THOUSANDS if "," in text else _FLOAT)
        parts.append(re.escape(token["unit"] or ""))
        count += 1
        if count > _MOST_NUMBERS:
            return None
    parts.append(_literal(line[end:]))
    try:
        return Template(re.compile("".join(parts) + r"\Z"), dict(place), dict(columns))
    except re.error:
        return None


def _literal(text: str) -> str:
    """Text between numbers; how many blanks align a number does not matter."""
    return _EDGE.sub(lambda blanks: r"[ \\t]+" if blanks[0] else "", re.escape(text)) if text.strip() else _blank(text)


def _blank(text: str) -> str:
    return r"[ \t]+" if text else ""
