"""What the parts of a comparison in text are made of: short names, tables, numbers, sentences."""

from collections.abc import Sequence
from itertools import count, islice, product
from statistics import median
from string import ascii_uppercase
from typing import Any

from rich.text import Text

from lossdoctor.comparison.values import Contrast, Estimate, Outcome, RunSummary
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import number

__all__ = [
    "MARKS",
    "as_shown",
    "heading",
    "letters",
    "outcome_of",
    "rows_of",
    "sentence",
    "throughput",
    "which_is_better",
    "with_spread",
]

_WIDEST_CELL = 24
"""Cells of a table are at least this wide, if they need it, and else a third of the page."""

_NARROWEST = 20

MARKS = {"better": "bold green", "worse": "bold yellow", "different": "bold"}
"""The styles of what is more than chance."""


def letters(total: int) -> list[str]:
    """Short names for so many runs.

    >>> letters(3), letters(28)[-2:]
    (['A', 'B', 'C'], ['AA', 'AB'])
    """
    endless = ("".join(name) for size in count(1) for name in product(ascii_uppercase, repeat=size))
    return list(islice(endless, total))


def heading(page: Page, title: str) -> list[Text]:
    """What is written above a section."""
    return page.hang(Text(), title, "bold", indent=4)


def rows_of(page: Page, rows: Sequence[Sequence[str | Text]], *, right: frozenset[int] = frozenset()) -> list[Text]:
    """A table without lines: columns as wide as they need, two blanks between them, the last one wrapped."""
    widest = max(_WIDEST_CELL, page.columns // 3)
    cells = [[cell if isinstance(cell, Text) else page.text(cell) for cell in row] for row in rows]
    cells = [[*(_cut(cell, widest) for cell in row[:-1]), row[-1]] for row in cells]
    widths = [max(row[column].cell_len for row in cells) for column in range(len(cells[0]) - 1)]
    lines = []
    for row in cells:
        lead = Text("  ")
        for column, (cell, width) in enumerate(zip(row, widths, strict=False)):
            pad = " " * (width - cell.cell_len)
            lead = lead.append(pad).append(cell) if column in right else lead.append(cell).append(pad)
            lead.append("  ")
        last = row[-1]
        if lead.cell_len + min(last.cell_len, _NARROWEST) > page.columns:  # no room beside it: below
            lines.append(lead)
            lead = Text(" " * 6)
        lines += page.hang(lead, last.plain, str(last.style) or _only_style(last))
    return [_stripped(line) for line in lines]


def _cut(cell: Text, width: int) -> Text:
    if cell.cell_len <= width:
        return cell
    short = cell.copy()
    short.truncate(width - 3)
    return short.append("...")


def _only_style(text: Text) -> str:
    return str(text.spans[0].style) if len(text.spans) == 1 else ""


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line


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


def sentence(contrast: Contrast) -> str:
    """A contrast in words."""
    interval = ""
    if contrast.low is not None and contrast.high is not None:
        interval = f" ({number(contrast.low, digits=3)} to {number(contrast.high, digits=3)})"
    result = {"no difference": "no more than chance", "not known": "whether by chance is not known"}.get(
        contrast.result, contrast.result
    )
    sign = "+" if contrast.difference > 0 else ""
    by = {"seeds": "Welch's t-test over seeds", "noise": "noise within the runs only", "none": ""}[contrast.method]
    p_value = "" if contrast.p_value is None else f"; p {_p(contrast.p_value)}, {by}"
    return f"{sign}{number(contrast.difference, digits=3)}{interval}: {result}{p_value}"


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
