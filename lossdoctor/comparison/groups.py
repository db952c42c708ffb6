"""Groups of runs with the same settings: means over seeds, and whether groups differ by more than chance."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from lossdoctor.comparison.settings import Settings
from lossdoctor.comparison.values import Contrast, Estimate, Group, Outcome, RunSummary

__all__ = ["Key", "contrasts", "group_runs", "key_of"]

_CERTAIN = 0.05
_NORMAL = 1.96
_NOTHING = 1e-9
"""Relative scatter of runs that is rounding, not chance."""

Key = tuple[tuple[str, str], ...]
Of = Literal["final", "best"]


def key_of(settings: Settings, by: Sequence[str]) -> dict[str, Any]:
    """The settings that tell the group of a run: those in `by`, or all but seeds, names and what was only seen.

    Of a run without a configuration, what was seen of it.
    """
    if by:
        return {name: settings.get(name) for name in by}
    return {**settings.recipe, **settings.config}


def numbered(keys: Sequence[dict[str, Any]]) -> list[int]:
    """The number of the group of every run, in the order in which groups appear."""
    known: dict[str, int] = {}
    return [known.setdefault(json.dumps(key, sort_keys=True, default=str), len(known)) for key in keys]


def group_runs(runs: Sequence[RunSummary], keys: Sequence[dict[str, Any]], metric: str | None) -> list[Group]:
    """The groups, in the order of their numbers."""
    groups = []
    for number in range(max((run.group for run in runs), default=-1) + 1):
        members = [run for run in runs if run.group == number]
        counted = [run for run in members if run.same_as is None] or members[:1]
        metrics = dict.fromkeys(outcome.metric for run in counted for outcome in run.outcomes)
        outcomes = [_across(counted, name) for name in metrics]
        groups.append(
            Group(
                settings=next(key for key, run in zip(keys, runs, strict=True) if run.group == number),
                runs=[run.run for run in members],
                replicates=len(counted),
                outcomes=outcomes,
                best_run=_best_run(counted, metric),
                findings=dict(sorted(Counter(rule for run in members for rule in set(run.findings)).items())),
            )
        )
    return groups


def _across(runs: Sequence[RunSummary], metric: str) -> Outcome:
    """A metric over the runs of a group."""
    found = [outcome for run in runs for outcome in run.outcomes if outcome.metric == metric]
    return Outcome(
        metric=metric,
        higher_is_better=found[0].higher_is_better,
        final=_mean([outcome.final for outcome in found if outcome.final is not None]),
        best=_mean([outcome.best for outcome in found if outcome.best is not None]),
    )


def _mean(estimates: Sequence[Estimate]) -> Estimate | None:
    """The mean with Student's interval over seeds; of a single run, its own estimate."""
    if len(estimates) < 2:  # noqa: PLR2004  nothing to take a mean of
        return estimates[0] if estimates else None
    values = np.array([one.value for one in estimates])
    mean = float(values.mean())
    if not math.isfinite(mean):
        return Estimate(value=mean, runs=len(values))
    from scipy import stats  # noqa: PLC0415  imported only where there are replicates

    spread = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Estimate(value=mean, low=mean - spread, high=mean + spread, method="seeds", runs=len(values))


def _best_run(runs: Sequence[RunSummary], metric: str | None) -> str | None:
    found = [
        (outcome.best.value, run.run, bool(outcome.higher_is_better))
        for run in runs
        for outcome in run.outcomes
        if outcome.metric == metric and outcome.best is not None
    ]
    if not found:
        return None
    return (max if found[0][2] else min)(found)[1]


@dataclass(frozen=True, slots=True)
class _Side:
    """What is known of one metric in one group: its value in every run that counts, and the noise of a single run."""

    values: list[float]
    estimates: list[Estimate]


def contrasts(runs: Sequence[RunSummary], groups: Sequence[Group]) -> list[Contrast]:
    """Every group against the first, in every metric both have."""
    if len(groups) < 2:  # noqa: PLR2004  nothing to compare
        return []
    found: list[Contrast] = []
    kinds: tuple[Of, ...] = ("final", "best")
    for reference in groups[0].outcomes:
        for of in kinds:
            sides = [_side(runs, group, reference.metric, of) for group in groups]
            if not sides[0].values:
                continue
            made = [
                _contrast(sides[0], side, number, reference, of)
                for number, side in enumerate(sides[1:], start=1)
                if side.values
            ]
            found += _adjusted(made, higher=reference.higher_is_better)
    return found


def _side(runs: Sequence[RunSummary], group: Group, metric: str, of: Of) -> _Side:
    members = [run for run in runs if run.run in group.runs and run.same_as is None]
    estimates = [
        estimate
        for run in members
        for outcome in run.outcomes
        if outcome.metric == metric and (estimate := getattr(outcome, of)) is not None
    ]
    return _Side([estimate.value for estimate in estimates], estimates)


def _contrast(first: _Side, second: _Side, group: int, reference: Outcome, of: Of) -> Contrast:
    """One group against the first: by Welch's t-test over seeds if both have two, else by the noise within runs."""
    difference = float(np.mean(second.values) - np.mean(first.values))
    base = Contrast(
        group=group,
        metric=reference.metric,
        of=of,
        difference=difference,
        low=None,
        high=None,
        p_value=None,
        method="none",
        result="not known",
    )
    if not math.isfinite(difference):
        return base
    if min(len(first.values), len(second.values)) >= 2:  # noqa: PLR2004  replicates on both sides
        return _welch(base, first.values, second.values)
    errors = [
        (one.high - one.value) / _NORMAL
        for one in (first.estimates[0], second.estimates[0])
        if one.high is not None and one.method == "noise"
    ]
    if len(errors) < 2:  # noqa: PLR2004  of one side the noise is not known
        return base
    error = math.hypot(*errors)
    p_value = math.erfc(abs(difference) / error / math.sqrt(2)) if error else float(not difference)
    low, high = difference - _NORMAL * error, difference + _NORMAL * error
    return msgspec.structs.replace(base, low=low, high=high, p_value=p_value, method="noise")


def _welch(base: Contrast, first: Sequence[float], second: Sequence[float]) -> Contrast:
    """Welch's unequal variances t-test, with the degrees of freedom of Welch and Satterthwaite."""
    shares = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    error = math.sqrt(sum(shares))
    if error <= _NOTHING * max(map(abs, [*first, *second])):  # nothing varies: there is no test to make
        return base
    from scipy import stats  # noqa: PLC0415  imported only where there are replicates

    squares = [share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True)]
    freedom = sum(shares) ** 2 / sum(squares)
    spread = float(stats.t.ppf(0.975, freedom)) * error
    return msgspec.structs.replace(
        base,
        low=base.difference - spread,
        high=base.difference + spread,
        p_value=2 * float(stats.t.sf(abs(base.difference) / error, freedom)),
        method="seeds",
    )


def _adjusted(made: Sequence[Contrast], *, higher: bool | None) -> list[Contrast]:
    """The same with p values adjusted by Holm's method, and the result."""
    tested = sorted((one for one in made if one.p_value is not None), key=lambda one: one.p_value or 0.0)
    adjusted: dict[int, float] = {}
    largest = 0.0
    for rank, one in enumerate(tested):
        largest = min(max(largest, (one.p_value or 0.0) * (len(tested) - rank)), 1.0)
        adjusted[one.group] = largest
    return [
        msgspec.structs.replace(one, p_value=adjusted.get(one.group), result=_result(one, adjusted, higher=higher))
        for one in made
    ]


def _result(
    one: Contrast, adjusted: dict[int, float], *, higher: bool | None
) -> Literal["better", "worse", "different", "no difference", "not known"]:
    if one.group not in adjusted:
        return "not known"
    if adjusted[one.group] >= _CERTAIN:
        return "no difference"
    if higher is None:
        return "different"
    return "better" if (one.difference > 0) == higher else "worse"
