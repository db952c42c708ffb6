"""A comparison as text for a terminal. Runs are called A, B, C …; the first is what the others are compared with."""

from collections.abc import Sequence

from rich.text import Text

from lossdoctor.comparison.grouped import group_table, has_groups
from lossdoctor.comparison.layout import (
    MARKS,
    as_shown,
    heading,
    letters,
    outcome_of,
    rows_of,
    sentence,
    throughput,
    which_is_better,
    with_spread,
)
from lossdoctor.comparison.values import Comparison, Difference, RunSummary
from lossdoctor.reports.finding import STYLES
from lossdoctor.reports.live import duration
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import number, step_number

__all__ = ["render"]

_LEVELS = {"healthy": "bold green", "undecided": "bold yellow"}
_FEW_RUNS = 6
"""Runs of which each has lines of its own although they are in groups, unless all is asked for."""
_FEW_SETTINGS = 12
"""Settings listed one by one; more are counted, unless all are asked for."""


def render(comparison: Comparison, *, page: Page | None = None) -> Text:
    """The report; a verbose page has all metrics, all settings, and every run of many."""
    page = page or Page()
    names = letters(len(comparison.runs))
    is_short = has_groups(comparison) and len(names) > _FEW_RUNS and not page.verbose
    parts = [
        _runs(comparison, names, page),
        _settings(comparison, names, page),
        _remarks(comparison, page),
        group_table(comparison, names, page),
        *([] if is_short else _each(comparison, names, page)),
        [
            line
            for warning in comparison.warnings
            for line in page.hang(page.text(("warning: ", STYLES["warning"])), warning)
        ],
    ]
    return Text("\n\n").join(Text("\n").join(part) for part in parts if part)


def _each(comparison: Comparison, names: Sequence[str], page: Page) -> list[list[Text]]:
    """What there is to say of every run."""
    return [
        _partings(comparison, names, page),
        _results(comparison, names, page),
        _target(comparison, names, page),
        _speed(comparison, names, page),
        _findings(comparison, names, page),
    ]


def _runs(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    rows: list[list[str | Text]] = []
    for name, run in zip(names, comparison.runs, strict=True):
        style = _LEVELS.get(run.verdict, STYLES[run.severity])
        verdict = run.verdict if run.verdict in _LEVELS else f"{run.severity}[{run.verdict}]"
        seconds = duration(run.seconds) if run.seconds is not None else ""
        length = [
            page.text((part, "dim")) for part in (f"{run.steps:,} steps", run.status or "status unknown", seconds)
        ]
        rows.append([page.text((name, "bold")), page.text((verdict, style)), *length, run.run])
    return [*heading(page, f"{len(comparison.runs)} runs, compared with {names[0]}:"), *rows_of(page, rows)]


def _settings(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    shown = [one for one in comparison.differences if one.source != "label"]
    settings = shown if page.verbose else shown[:_FEW_SETTINGS]
    if not settings:
        return []
    rows: list[list[str | Text]] = []
    for one in settings:
        origin = f"follows from {one.follows_from}" if one.follows_from else one.source
        rows.append([one.name, page.text((origin, "dim")), _values(one, names)])
    title = f"settings that differ ({len(shown)}):"
    lines = [*heading(page, title), *rows_of(page, rows)]
    if len(settings) < len(shown):
        lines.append(page.text((f"  … and {len(shown) - len(settings)} more with --verbose", "dim")))
    return lines


def _values(one: Difference, names: Sequence[str]) -> str:
    """Every value with the runs that have it."""
    groups: dict[str, list[str]] = {}
    for name, value in zip(names, one.values, strict=True):
        groups.setdefault(as_shown(value), []).append(name)
    if len(groups) == len(names):
        return ", ".join(f"{members[0]} {value}" for value, members in groups.items())
    return "; ".join(f"{value} ({' '.join(members)})" for value, members in groups.items())


def _remarks(comparison: Comparison, page: Page) -> list[Text]:
    return [line for remark in comparison.remarks for line in page.hang(Text("=> ", "bold blue"), remark)]


def _partings(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    if comparison.identical or not comparison.partings:
        return []
    rows: list[list[str | Text]] = []
    by_run = {parting.run: parting for parting in comparison.partings}
    signals = {parting.signal for parting in comparison.partings}
    for name, run in zip(names, comparison.runs, strict=True):
        parting = by_run.get(run.run)
        if parting is None:
            continue
        if parting.identical:
            text = "the same at every step"
        elif parting.compared_from is None:
            text = "no common steps"
        else:
            until = parting.same_until
            same = f"exactly the same until step {step_number(until)}; " if until is not None else ""
            if parting.parted_at is not None:
                seeds = "; their seeds differ, too" if run.seed != comparison.runs[0].seed else ""
                text = f"{same}apart from step {step_number(parting.parted_at)} on, beyond the noise of both{seeds}"
            else:
                text = f"{same}never apart by more than the noise of both"
        rows.append([name, text])
    return [*heading(page, f"where {' and '.join(sorted(signals))} parts from {names[0]}:"), *rows_of(page, rows)]


def _metrics(comparison: Comparison, page: Page) -> list[str]:
    names = list(dict.fromkeys(outcome.metric for run in comparison.runs for outcome in run.outcomes))
    first = [comparison.metric] if comparison.metric else []
    return [*first, *(name for name in names if name not in first)] if page.verbose else first or names[:1]


def _results(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    if comparison.identical:
        return []
    lines: list[Text] = []
    for metric in _metrics(comparison, page):
        found = [(name, outcome_of(run.outcomes, metric)) for name, run in zip(names, comparison.runs, strict=True)]
        known = [(name, outcome) for name, outcome in found if outcome is not None]
        if not known:
            continue
        head: list[str | Text] = [page.text((title, "dim")) for title in ("", "final", "best", "at step")]
        rows: list[list[str | Text]] = [head]
        for name, outcome in known:
            best = outcome.best
            at = step_number(best.step) if best is not None and best.step is not None else "-"
            rows.append([name, with_spread(outcome.final), with_spread(best), at])
        lines += [Text()] if lines else []
        lines += [*heading(page, f"{metric}{which_is_better(known[0][1])} (± 95 %, from the noise within the run):")]
        lines += rows_of(page, rows)
        if all(group.replicates == 1 for group in comparison.groups):
            lines += _contrasts(comparison, metric, names, page)
    return lines


def _contrasts(comparison: Comparison, metric: str, names: Sequence[str], page: Page) -> list[Text]:
    """What differs between single runs."""
    lines: list[Text] = []
    first = {run.group: name for name, run in reversed(list(zip(names, comparison.runs, strict=True)))}
    for contrast in comparison.contrasts:
        if contrast.metric == metric and contrast.of == "final":
            lead = page.text(f"  {first[contrast.group]} - {names[0]}: ")
            lines += page.hang(lead, sentence(contrast), MARKS.get(contrast.result, ""))
    return lines


def _target(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    target = comparison.target
    if target is None or comparison.identical:
        return []
    rows: list[list[str | Text]] = []
    for name, run in zip(names, comparison.runs, strict=True):
        reached = run.reached
        step = f"step {step_number(reached.step)}" if reached is not None and reached.step is not None else "never"
        seconds = duration(reached.seconds) if reached is not None and reached.seconds is not None else ""
        rows.append([name, step, seconds])
    title = f"time to {target.metric} {number(target.value)} (which every run reached):"
    return [*heading(page, title), *rows_of(page, rows)]


def _speed(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    rows: list[list[str | Text]] = []
    for name, run in zip(names, comparison.runs, strict=True):
        if (pace := throughput([run])) != "-":
            rows.append([name, pace])
    return [*heading(page, "throughput:"), *rows_of(page, rows)] if rows else []


def _findings(comparison: Comparison, names: Sequence[str], page: Page) -> list[Text]:
    rows: list[list[str | Text]] = []
    for name, run in zip(names[1:], comparison.runs[1:], strict=True):
        if text := _changed(run):
            rows.append([name, text])
    return [*heading(page, f"findings against {names[0]}:"), *rows_of(page, rows)] if rows else []


def _changed(run: RunSummary) -> str:
    gained = f"gained {', '.join(run.gained)}" if run.gained else ""
    lost = f"lost {', '.join(run.lost)}" if run.lost else ""
    return "; ".join(part for part in (gained, lost) if part)
