"""The values of a comparison: plain data, and the JSON schema of `compare`."""

from typing import Any, Literal, TypeAlias

import msgspec

from lossdoctor.findings import Category, Severity

__all__ = [
    "Comparison",
    "Contrast",
    "Difference",
    "Estimate",
    "Group",
    "Outcome",
    "Parting",
    "Reached",
    "RunSummary",
    "Target",
]

Method: TypeAlias = Literal["seeds", "noise", "none"]
"""Where an interval comes from: from runs with other seeds, from the noise within the run; or there is none."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its 95 % interval. `step` says where it was seen, if it was at one step."""

    value: float
    low: float | None = None
    high: float | None = None
    method: Method = "none"
    step: float | None = None
    runs: int = 1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a metric. `best` is None where it is not known which direction is better."""

    metric: str
    higher_is_better: bool | None
    final: Estimate | None = None
    best: Estimate | None = None


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """When a run first reached the target; both None if it never did, `seconds` None where no time was recorded."""

    step: float | None = None
    seconds: float | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A level of a metric that every run reached: the best value of the run that is worst by it."""

    metric: str
    value: float


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `group` is the number of its group; `gained` and `lost` are findings against the first run."""

    run: str
    group: int
    verdict: str
    category: Category
    severity: Severity
    status: str
    steps: int
    evaluations: int
    seconds: float | None
    """Time of training, pauses before a resume left out."""
    steps_per_second: float | None
    samples_per_second: float | None
    seed: Any
    same_as: str | None
    """An earlier run with exactly the same numbers; it is no replicate then."""
    outcomes: list[Outcome]
    reached: Reached | None
    findings: list[str]
    gained: list[str]
    lost: list[str]
    settings: dict[str, Any]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that is not the same in all runs, with its value in each (None: not recorded).

    `source` is "config" for what the owner of the run gave, "recipe" for what was seen of optimizer, schedule and
    batch, "seed", "environment" for versions, hardware and commit, or "label" for names and places.
    """

    name: str
    source: Literal["config", "recipe", "seed", "environment", "label"]
    values: list[Any]
    follows_from: str | None = None
    """A setting that this one is bound to: a larger model has more parameters."""


class Parting(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run leaves the first one.

    `same_until` is the last common step up to which all values are exactly equal (None: not even the first).
    `parted_at` is the first step from which on the difference exceeds the noise of both; None: it never does.
    """

    run: str
    signal: str
    identical: bool
    same_until: float | None
    parted_at: float | None
    compared_from: float | None
    compared_to: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Runs with the same settings, seeds aside; or with the same values of the keys that were asked for."""

    settings: dict[str, Any]
    runs: list[str]
    replicates: int
    """Runs that count: of equal ones, one."""
    outcomes: list[Outcome]
    best_run: str | None
    findings: dict[str, int]
    """In how many of the runs each rule had a finding."""


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """A group against the first one: the difference of a metric, and whether it is more than chance.

    `p_value` is that of Welch's t-test over seeds, or of a z-test on the noise within the runs; adjusted by Holm's
    method for the number of groups. A z-test on noise knows nothing of what another seed would have done.
    """

    group: int
    metric: str
    of: Literal["final", "best"]
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    method: Method
    result: Literal["better", "worse", "different", "no difference", "not known"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Runs against the first of them, and groups against the first group."""

    schema: Literal["lossdoctor.comparison/1"] = "lossdoctor.comparison/1"
    runs: list[RunSummary]
    metric: str | None
    """The metric that groups are ranked by."""
    differences: list[Difference]
    identical: bool
    attributable: str | None
    """The one setting that an effect can be attributed to; None where there is none, or more than one."""
    remarks: list[str]
    partings: list[Parting]
    target: Target | None
    by: list[str]
    groups: list[Group]
    contrasts: list[Contrast]
    warnings: list[str]
