"""Groups of runs: their settings, means and findings, how they differ, how fast they were."""

from collections.abc import Sequence
from statistics import median

from lossdoctor.comparison.layout import (
    Cell,
    Section,
    as_shown,
    contrasted,
    outcome_of,
    throughput,
    which_is_better,
    with_spread,
)
from lossdoctor.comparison.values import Comparison, Estimate, Group
from lossdoctor.reports.live import duration
from lossdoctor.reports.printable import number, step_number

__all__ = ["group_sections", "has_groups"]


def has_groups(comparison: Comparison) -> bool:
    """Whether there are groups to speak of: that were asked for, or that have several runs."""
    several = any(len(group.runs) > 1 for group in comparison.groups)
    return not comparison.identical and comparison.metric is not None and (bool(comparison.by) or several)


def group_sections(comparison: Comparison, names: Sequence[str]) -> list[Section]:
    """The groups and their pace, where there are any to speak of."""
    groups, metric = comparison.groups, comparison.metric
    if metric is None or not has_groups(comparison):
        return []
    kind = "best" if all(_of(group, metric, "best") for group in groups) else "final"
    title = f"groups by {', '.join(comparison.by)}" if comparison.by else "groups of equal settings"
    outcome = outcome_of(groups[0].outcomes, metric)
    direction = which_is_better(outcome) if outcome else ""
    letter = dict(zip((run.run for run in comparison.runs), names, strict=True))
    rows: list[list[Cell]] = []
    for place, group in enumerate(groups, start=1):
        findings = ", ".join(f"{rule} {seen}/{len(group.runs)}" for rule, seen in group.findings.items()) or "-"
        runs = f"{len(group.runs)}" + ("" if group.replicates == len(group.runs) else f" ({group.replicates} distinct)")
        best = letter[group.best_run] if group.best_run else "-"
        settings = _settings_of(group, groups, comparison)
        rows.append([(f"{place}", "group"), settings, runs, with_spread(_of(group, metric, kind)), best, findings])
    found = Section(
        f"{title} ({metric}{direction}; mean ± 95 % over seeds where there are several):",
        rows,
        head=("", "settings", "runs", f"{kind} {metric}", "best run", "findings"),
        notes=[
            contrasted(f"  {contrast.group + 1} - 1: ", contrast)
            for contrast in comparison.contrasts
            if contrast.metric == metric and contrast.of == kind
        ],
        right=frozenset({2}),
    )
    return [found, _pace_of_groups(comparison)]


def _pace_of_groups(comparison: Comparison) -> Section:
    """When the groups reached the target, and how fast they went: medians."""
    target = comparison.target
    rows: list[list[Cell]] = []
    for place in range(len(comparison.groups)):
        runs = [run for run in comparison.runs if run.group == place]
        steps = [run.reached.step for run in runs if run.reached is not None and run.reached.step is not None]
        seconds = [run.reached.seconds for run in runs if run.reached is not None and run.reached.seconds is not None]
        when = f"step {step_number(median(steps))}" if steps else "-"
        when += f", {duration(median(seconds))}" if seconds else ""
        rows.append([(f"{place + 1}", "group"), when, throughput(runs)])
    return Section(
        "pace (medians of the runs; a level that every run reached):",
        rows,
        head=("", f"to {target.metric} {number(target.value)}" if target else "", "throughput"),
    )


def _of(group: Group, metric: str, kind: str) -> Estimate | None:
    outcome = outcome_of(group.outcomes, metric)
    found: Estimate | None = getattr(outcome, kind) if outcome else None
    return found


def _settings_of(group: Group, groups: Sequence[Group], comparison: Comparison) -> str:
    """The settings that tell this group from the others."""
    names = comparison.by or [
        one.name for one in comparison.differences if one.source in {"config", "recipe"} and one.follows_from is None
    ]
    shown = [f"{name} {as_shown(group.settings.get(name))}" for name in names if name in group.settings]
    if len(shown) > 3:  # noqa: PLR2004  a line has room for so many
        shown = [*shown[:3], f"and {len(shown) - 3} more"]
    return ", ".join(shown) or ("all runs" if len(groups) == 1 else "-")
