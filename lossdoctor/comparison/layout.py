"""What the parts of a comparison are made of, whatever it is shown on: sections, short names, numbers, sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from statistics import median
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeAlias

from lossdoctor.comparison.values import Contrast, Estimate, Outcome, RunSummary
from lossdoctor.reports.printable import number

__all__ = [
    "Cell",
    "Note",
    "Section",
    "as_shown",
    "contrasted",
    "letters",
    "outcome_of",
    "throughput",
    "which_is_better",
    "with_spread",
]

Cell: TypeAlias = str | tuple[str, str]
"""A text, or a text and its tone: "name" or "run" (a run's letter), "group", "faint", a severity, or a verdict."""


class Note(NamedTuple):
    """A sentence below a table, behind a few words of lead; `tone` is that of the sentence."""

    lead: str
    sentence: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report: a table under its title, the columns `right` set to the right, and notes below it."""

    title: str = ""
    rows: Sequence[Sequence[Cell]] = ()
    head: Sequence[str] = ()
    notes: Sequence[Note] = ()
    right: frozenset[int] = frozenset()


def letters(total: int) -> list[str]:
    """Short names for so many runs.

    >>> letters(3), letters(28)[-2:]
    (['A', 'B', 'C'], ['AA', 'AB'])
    """
    endless = ("".join(name) for size in count(1) for name in product(ascii_uppercase, repeat=size))
    return list(islice(endless, total))


def as_shown(value: Any) -> str:
    """The value of a setting, short."""
    if value is None:
        return "not set"
    if isinstance(value, float):
        return number(value, digits=6)
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004  enough to tell values apart


def which_is_better(outcome: Outcome) -> str:
    """The direction of a metric, to be put behind its name."""
    return {True: ", higher is better", False: ", lower is better", None: ""}[outcome.higher_is_better]


def with_spread(estimate: Estimate | None) -> str:
    """A value and its interval.

    >>> with_spread(Estimate(value=0.4123, low=0.40, high=0.4246, method="noise"))
    '0.4123 ± 0.0123'
    """
    if estimate is None:
        return "-"
    spread = "" if estimate.high is None else f" ± {number(estimate.high - estimate.value, digits=3)}"
    return f"{number(estimate.value)}{spread}"


def outcome_of(outcomes: Sequence[Outcome], metric: str) -> Outcome | None:
    """What became of one metric; None where it was not recorded."""
    return next((outcome for outcome in outcomes if outcome.metric == metric), None)


def contrasted(lead: str, contrast: Contrast) -> Note:
    """A contrast in words; its tone is what it shows."""
    interval = ""
    if contrast.low is not None and contrast.high is not None:
        interval = f" ({number(contrast.low, digits=3)} to {number(contrast.high, digits=3)})"
    result = {"no difference": "no more than chance", "not known": "whether by chance is not known"}.get(
        contrast.result, contrast.result
    )
    sign = "+" if contrast.difference > 0 else ""
    by = {"seeds": "Welch's t-test over seeds", "noise": "noise within the runs only", "none": ""}[contrast.method]
    p_value = "" if contrast.p_value is None else f"; p {_p(contrast.p_value)}, {by}"
    said = f"{sign}{number(contrast.difference, digits=3)}{interval}: {result}{p_value}"
    return Note(lead, said, contrast.result)


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"  # noqa: PLR2004  no test is surer than its assumptions


def throughput(runs: Sequence[RunSummary]) -> str:
    """Steps and samples a second, medians of these runs; "-" where no time was recorded."""
    steps = [run.steps_per_second for run in runs if run.steps_per_second is not None]
    samples = [run.samples_per_second for run in runs if run.samples_per_second is not None]
    parts = [f"{_pace(median(steps))} steps/s"] if steps else []
    return ", ".join([*parts, *([f"{_pace(median(samples))} samples/s"] if samples else [])]) or "-"


def _pace(value: float) -> str:
    """Things a second.

    >>> _pace(1660.2), _pace(0.5123)
    ('1,660', '0.512')
    """
    return f"{value:,.0f}" if value >= 100 else number(value, digits=3)  # noqa: PLR2004  three digits are enough
