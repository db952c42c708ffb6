"""Settings that lie beside a log, or in it."""

import math
import re
from typing import Any

from lossdoctor.runs.collecting import number

__all__ = ["flat_settings"]

_SETTING = re.compile(r"^\s{0,4}([A-Za-z_][\w.-]{0,80})\s*:\s+(\S.{0,200}?)\s*$")


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
