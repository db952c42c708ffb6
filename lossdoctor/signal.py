"""What a signal and a fact are."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Clock", "Fact", "Signal", "Source"]

Clock: TypeAlias = Literal["step", "interval", "evaluation", "run"]
Source: TypeAlias = Literal["step", "evaluation", "layer"]


@dataclass(frozen=True, slots=True)
class Signal:
    """A named quantity that is recorded.

    `source` is the table it is recorded in; `unit` is "1" for pure numbers, "loss" for whatever the loss is in; `how`
    tells a user how to have it recorded.
    """

    name: str
    source: Source
    unit: str
    meaning: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that holds for the whole run."""

    name: str
    unit: str
    meaning: str
