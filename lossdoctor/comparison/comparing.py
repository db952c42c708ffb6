"""Runs side by side: what was set otherwise, where they part, how they ended, and whether that is more than chance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lossdoctor.analysis import judge_all, runs_at
from lossdoctor.comparison.groups import contrasts, group_runs, key_of, numbered
from lossdoctor.comparison.remarks import attribution, remarks
from lossdoctor.comparison.series import (
    Floats,
    Series,
    all_equal,
    elapsed,
    outcome,
    part,
    reached,
    series_of,
)
from lossdoctor.comparison.settings import Settings, differences, settings_of
from lossdoctor.comparison.values import Comparison, Outcome, Parting, RunSummary, Target
from lossdoctor.errors import LogError, UsageError, nearest
from lossdoctor.findings import ADVICE, Diagnosis
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.tables import Run

__all__ = ["compare", "compare_curves"]

_PREFERRED = ("val_loss", "val_accuracy")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What is kept of a run once it was read."""

    diagnosis: Diagnosis
    settings: Settings
    series: Mapping[str, Series]
    times: tuple[Floats, Floats] | None
    samples_per_second: float | None


def compare(
    paths: Sequence[str | PathLike[str]],
    *,
    by: Sequence[str] = (),
    metric: str | None = None,
    rulebook: Rulebook | None = None,
    rules: Iterable[str | PathLike[str]] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
) -> Comparison:
    """Compare the runs and logs at `paths` with the first of them.

    A directory of runs stands for all runs in it. Runs with the same settings but for the seed are replicates of each
    other; with `by`, those are that agree in these settings. `metric` ranks groups (default val_loss where all runs
    have it, else what else they all have). `rules` and `columns` are as in `analyze`.

    Raises LogError if fewer than two runs can be read, and UsageError for a setting or metric that does not exist.
    """
    return compare_curves(paths, by=by, metric=metric, rulebook=rulebook, rules=rules, columns=columns)[0]


def compare_curves(
    paths: Sequence[str | PathLike[str]],
    *,
    by: Sequence[str] = (),
    metric: str | None = None,
    rulebook: Rulebook | None = None,
    rules: Iterable[str | PathLike[str]] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Comparison, list[Mapping[str, Series]]]:
    """As `compare`; and the curves of every run by the names of their metrics, to be drawn."""
    book = rulebook or Rulebook.load([Path(directory) for directory in rules])
    runs: list[_Candidate] = []
    warnings: list[str] = []
    for place, searched in _places(paths):
        try:
            found = judge_all(place, book, columns, searched=searched, whole=True)
            runs += [_candidate(run, diagnosis) for run, diagnosis in found]
        except LogError as error:
            if not searched:
                raise
            warnings.append(str(error))
    if len(runs) < 2:  # noqa: PLR2004  nothing to compare with
        raise LogError(f"{', '.join(map(str, paths))}: {len(runs)} run to compare; give two, or a directory of runs")
    by = [name for name in by if not _is_a_seed(name, runs)]
    _check_keys(by, runs)
    metric = _metric(metric, runs)
    keys = _keys(runs, by)
    summaries = _summaries(runs, numbered(keys), metric)
    found_differences = differences([run.settings for run in runs])
    partings = [parting for run in runs[1:] if (parting := _parting(runs[0], run, metric)) is not None]
    identical = all(all_equal(runs[0].series, run.series) for run in runs[1:])
    groups = group_runs(summaries, keys, metric)
    comparison = Comparison(
        runs=summaries,
        metric=metric,
        differences=found_differences,
        identical=identical,
        attributable=attribution(found_differences, summaries, identical=identical),
        remarks=remarks(found_differences, summaries, groups, by, identical=identical),
        partings=partings,
        target=_target(runs, metric),
        by=list(by),
        groups=groups,
        contrasts=contrasts(summaries, groups),
        warnings=[*warnings, *(warning for run in runs for warning in run.diagnosis.warnings)],
    )
    return comparison, [run.series for run in runs]


def _places(paths: Sequence[str | PathLike[str]]) -> list[tuple[Path, bool]]:
    """Every run and log once, and whether it was only found below a directory."""
    places: dict[Path, tuple[Path, bool]] = {}
    for given in paths:
        path = Path(given)
        for place in runs_at(path):
            places.setdefault(place.resolve(), (place, place != path))
    return list(places.values())


def _candidate(run: Run, diagnosis: Diagnosis) -> _Candidate:
    times = elapsed(run)
    column = run.steps.columns.get("samples_per_second")
    speeds = np.empty(0) if column is None else column.values[column.mask()]
    speeds = speeds[np.isfinite(speeds)]
    return _Candidate(
        diagnosis,
        settings_of(run),
        series_of(run),
        None if times is None else (run.steps.step, times),
        float(np.median(speeds)) if len(speeds) else None,
    )


def _is_a_seed(name: str, runs: Sequence[_Candidate]) -> bool:
    return any(name in run.settings.seeds for run in runs) or name == "seed"


def _check_keys(by: Sequence[str], runs: Sequence[_Candidate]) -> None:
    known = sorted({name for run in runs for name in run.settings.names})
    for name in by:
        if name not in known:
            raise UsageError(f"--by {name}: no run has this setting{nearest(name, known) or _some(known)}")


def _keys(runs: Sequence[_Candidate], by: Sequence[str]) -> list[dict[str, Any]]:
    """What tells the group of every run. Only runs that are known to have other seeds are taken for replicates."""
    keys = [key_of(run.settings, by) for run in runs]
    if by:
        return keys
    numbers = numbered(keys)
    for place, run in enumerate(runs):
        before = [other for other, number in zip(runs[:place], numbers, strict=False) if number == numbers[place]]
        twins = any(all_equal(other.series, run.series) for other in before)
        seeds = [other.settings.seed for other in before]
        if before and not twins and (run.settings.seed is None or run.settings.seed in seeds or None in seeds):
            keys[place] = {**keys[place], "run": run.diagnosis.run}
    return keys


def _some(known: Sequence[str]) -> str:
    return f"; there are {', '.join(known[:8])}{' and others' if len(known) > 8 else ''}" if known else ""  # noqa: PLR2004


def _metric(asked: str | None, runs: Sequence[_Candidate]) -> str | None:
    """The metric to rank by: one that all runs have."""
    common = [name for name in runs[0].series if all(name in run.series for run in runs)]
    if asked is not None:
        if asked not in common:
            raise UsageError(f"--metric {asked}: not every run has it{nearest(asked, common) or _some(common)}")
        return asked
    validated = [name for name in common if name.startswith("val_")]
    return next((name for name in (*_PREFERRED, *validated, *common) if name in common), None)


def _summaries(runs: Sequence[_Candidate], groups: Sequence[int], metric: str | None) -> list[RunSummary]:
    target = _target(runs, metric)
    reference = _rules(runs[0].diagnosis)
    found = []
    for number, (run, group) in enumerate(zip(runs, groups, strict=True)):
        rules = _rules(run.diagnosis)
        twin = next((other for other in runs[:number] if all_equal(other.series, run.series)), None)
        seconds = float(run.times[1][-1]) if run.times is not None else None
        diagnosis = run.diagnosis
        found.append(
            RunSummary(
                run=diagnosis.run,
                group=group,
                verdict=diagnosis.verdict,
                category=diagnosis.category,
                severity=diagnosis.severity,
                status=diagnosis.status,
                steps=diagnosis.steps,
                evaluations=diagnosis.evaluations,
                seconds=seconds,
                steps_per_second=(len(run.times[1]) - 1) / seconds if run.times is not None and seconds else None,
                samples_per_second=run.samples_per_second,
                seed=run.settings.seed,
                same_as=None if twin is None else twin.diagnosis.run,
                outcomes=_outcomes(run),
                reached=None if target is None else reached(run.series[target.metric], target.value, run.times),
                findings=rules,
                gained=[rule for rule in rules if rule not in reference],
                lost=[rule for rule in reference if rule not in rules],
                settings={**run.settings.recipe, **run.settings.config},
            )
        )
    return found


def _outcomes(run: _Candidate) -> list[Outcome]:
    return [outcome(series) for series in run.series.values()]


def _rules(diagnosis: Diagnosis) -> list[str]:
    """The rules with a finding that is worth a word, each once, causes first."""
    shown = [one.rule for one in diagnosis.findings if one.family != ADVICE and one.severity != "benign"]
    return list(dict.fromkeys(shown))


def _target(runs: Sequence[_Candidate], metric: str | None) -> Target | None:
    """The best value of the run that is worst by the metric."""
    if metric is None:
        return None
    found = [outcome(run.series[metric]) for run in runs]
    best = [one.best.value for one in found if one.best is not None]
    if len(best) < len(runs):
        return None
    return Target(metric=metric, value=min(best) if found[0].higher_is_better else max(best))


def _parting(first: _Candidate, other: _Candidate, metric: str | None) -> Parting | None:
    """By the training loss, which has the most values; else by the metric."""
    for name in ("train_loss", metric):
        if name is not None and name in first.series and name in other.series:
            return part(first.series[name], other.series[name], other.diagnosis.run)
    return None
