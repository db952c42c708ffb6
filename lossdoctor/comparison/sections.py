"""What a comparison says, section by section. Runs are called A, B, C …; the others are compared with the first."""

from collections.abc import Sequence

from lossdoctor.comparison.grouped import group_sections, has_groups
from lossdoctor.comparison.layout import (
    Cell,
    Note,
    Section,
    as_shown,
    contrasted,
    letters,
    outcome_of,
    throughput,
    which_is_better,
    with_spread,
)
from lossdoctor.comparison.values import Comparison, Difference, Parting, RunSummary
from lossdoctor.reports.live import duration
from lossdoctor.reports.printable import number, step_number

__all__ = ["sections_of"]

_NO_FAULT = frozenset({"healthy", "undecided"})
_FEW_RUNS = 6
"""Runs of which each has lines of its own although they are in groups, unless all is asked for."""
_FEW_SETTINGS = 12
"""Settings listed one by one; more are counted, unless all are asked for."""


def sections_of(comparison: Comparison, *, verbose: bool = False) -> list[Section]:
    """The report, without empty sections; `verbose` has all metrics, all settings, and every run of many."""
    names = letters(len(comparison.runs))
    is_short = has_groups(comparison) and len(names) > _FEW_RUNS and not verbose
    found = [
        _runs(comparison, names),
        _settings(comparison, names, verbose=verbose),
        Section(notes=[Note("=> ", remark, "remark") for remark in comparison.remarks]),
        *group_sections(comparison, names),
        *([] if is_short else _each(comparison, names, verbose=verbose)),
        Section(notes=[Note("warning: ", warning, "warning") for warning in comparison.warnings]),
    ]
    return [section for section in found if section.rows or section.notes]


def _each(comparison: Comparison, names: Sequence[str], *, verbose: bool) -> list[Section]:
    """What there is to say of every run."""
    if comparison.identical:
        return [_speed(comparison, names), _findings(comparison, names)]
    metrics = _metrics(comparison) if verbose else _metrics(comparison)[:1]
    return [
        _partings(comparison, names),
        *(_result(comparison, metric, names) for metric in metrics),
        _target(comparison, names),
        _speed(comparison, names),
        _findings(comparison, names),
    ]


def _runs(comparison: Comparison, names: Sequence[str]) -> Section:
    rows: list[list[Cell]] = []
    for name, run in zip(names, comparison.runs, strict=True):
        has_fault = run.verdict not in _NO_FAULT
        verdict = (f"{run.severity}[{run.verdict}]", run.severity) if has_fault else (run.verdict, run.verdict)
        seconds = duration(run.seconds) if run.seconds is not None else ""
        length = [(part, "faint") for part in (f"{run.steps:,} steps", run.status or "status unknown", seconds)]
        rows.append([(name, "name"), verdict, *length, run.run])
    return Section(f"{len(comparison.runs)} runs, compared with {names[0]}:", rows)


def _settings(comparison: Comparison, names: Sequence[str], *, verbose: bool) -> Section:
    known = [one for one in comparison.differences if one.source != "label"]
    shown = known if verbose else known[:_FEW_SETTINGS]
    rows: list[list[Cell]] = []
    for one in shown:
        origin = f"follows from {one.follows_from}" if one.follows_from else one.source
        rows.append([one.name, (origin, "faint"), _values(one, names)])
    more = [Note("  … ", f"and {len(known) - len(shown)} more with --verbose", "faint")]
    return Section(f"settings that differ ({len(known)}):", rows, notes=more if len(shown) < len(known) else ())


def _values(one: Difference, names: Sequence[str]) -> str:
    """Every value with the runs that have it."""
    groups: dict[str, list[str]] = {}
    for name, value in zip(names, one.values, strict=True):
        groups.setdefault(as_shown(value), []).append(name)
    if len(groups) == len(names):
        return ", ".join(f"{members[0]} {value}" for value, members in groups.items())
    return "; ".join(f"{value} ({' '.join(members)})" for value, members in groups.items())


def _partings(comparison: Comparison, names: Sequence[str]) -> Section:
    by_run = {parting.run: parting for parting in comparison.partings}
    rows: list[list[Cell]] = [
        [(name, "run"), _parted(by_run[run.run], run, comparison.runs[0])]
        for name, run in zip(names, comparison.runs, strict=True)
        if run.run in by_run
    ]
    signals = sorted({parting.signal for parting in comparison.partings})
    return Section(f"where {' and '.join(signals)} parts from {names[0]}:", rows)


def _parted(parting: Parting, run: RunSummary, first: RunSummary) -> str:
    if parting.identical:
        return "the same at every step"
    if parting.compared_from is None:
        return "no common steps"
    until = parting.same_until
    same = f"exactly the same until step {step_number(until)}; " if until is not None else ""
    if parting.parted_at is None:
        return f"{same}never apart by more than the noise of both"
    seeds = "; their seeds differ, too" if run.seed != first.seed else ""
    return f"{same}apart from step {step_number(parting.parted_at)} on, beyond the noise of both{seeds}"


def _metrics(comparison: Comparison) -> list[str]:
    """The metrics of the runs, the one they are ranked by first."""
    names = dict.fromkeys(outcome.metric for run in comparison.runs for outcome in run.outcomes)
    first = [comparison.metric] if comparison.metric else []
    return [*first, *(name for name in names if name not in first)]


def _result(comparison: Comparison, metric: str, names: Sequence[str]) -> Section:
    rows: list[list[Cell]] = []
    direction = ""
    for name, run in zip(names, comparison.runs, strict=True):
        outcome = outcome_of(run.outcomes, metric)
        if outcome is not None:
            best = outcome.best
            at = step_number(best.step) if best is not None and best.step is not None else "-"
            rows.append([(name, "run"), with_spread(outcome.final), with_spread(best), at])
            direction = direction or which_is_better(outcome)
    first = {run.group: name for name, run in reversed(list(zip(names, comparison.runs, strict=True)))}
    notes = [
        contrasted(f"  {first[contrast.group]} - {names[0]}: ", contrast)
        for contrast in comparison.contrasts
        if contrast.metric == metric and contrast.of == "final"
    ]
    return Section(
        f"{metric}{direction} (± 95 %, from the noise within the run):",
        rows,
        head=("", "final", "best", "at step"),
        notes=notes if all(group.replicates == 1 for group in comparison.groups) else (),
    )


def _target(comparison: Comparison, names: Sequence[str]) -> Section:
    target = comparison.target
    if target is None:
        return Section()
    rows: list[list[Cell]] = []
    for name, run in zip(names, comparison.runs, strict=True):
        reached = run.reached
        step = f"step {step_number(reached.step)}" if reached is not None and reached.step is not None else "never"
        seconds = duration(reached.seconds) if reached is not None and reached.seconds is not None else ""
        rows.append([(name, "run"), step, seconds])
    return Section(f"time to {target.metric} {number(target.value)} (which every run reached):", rows)


def _speed(comparison: Comparison, names: Sequence[str]) -> Section:
    paces = [(name, throughput([run])) for name, run in zip(names, comparison.runs, strict=True)]
    return Section("throughput:", [[(name, "run"), pace] for name, pace in paces if pace != "-"])


def _findings(comparison: Comparison, names: Sequence[str]) -> Section:
    changes = [(name, _changed(run)) for name, run in zip(names[1:], comparison.runs[1:], strict=True)]
    return Section(f"findings against {names[0]}:", [[(name, "run"), change] for name, change in changes if change])


def _changed(run: RunSummary) -> str:
    gained = f"gained {', '.join(run.gained)}" if run.gained else ""
    lost = f"lost {', '.join(run.lost)}" if run.lost else ""
    return "; ".join(part for part in (gained, lost) if part)
