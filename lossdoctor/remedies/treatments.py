"""From a finding's prescriptions to treatments in order, and one treatment under way: plain data, no torch."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lossdoctor.findings import SEVERITIES, Finding, Prescription
from lossdoctor.judging import Standing
from lossdoctor.runs.events import Intervention

__all__ = [
    "LAST_RESORT",
    "Course",
    "Judge",
    "Treatment",
    "began",
    "effect",
    "is_harmful",
    "is_treatable",
    "ladder_of",
    "treatments",
    "urgency",
]

DEEPER = 3
"""Further attempts with the learning rate cut more deeply, each from what it was: 0.3 becomes 0.09, 0.009, 0.0009."""

TOGETHER = frozenset({"scale_lr", "warm_up_again", "tighten_clipping", "skip_batch"})
"""What belongs to the rewind it follows: a rewind alone would replay the same failure."""

LAST_RESORT: tuple[tuple[str, Mapping[str, float]], ...] = (("early_stop", {}),)
"""What ends a run that nothing helps: the best weights are put in place rather than what the fault left of them."""

PATIENCE = {"step": 32, "interval": 4, "evaluation": 2}
"""Ticks of the rule's clock a treatment has where the rule does not say `within`."""


class Judge(Protocol):
    """Who knows how the patient is: the Diagnoser."""

    def verified(self, rule: str, verify: str) -> bool | None:
        """Whether a fix's `verify` holds at the rule's latest tick; None while that is undecided."""

    def active(self, rule: str) -> bool:
        """Whether the finding is still going on."""

    def ticks(self, rule: str) -> int:
        """Ticks of the rule's clock so far."""

    def measured(self, rule: str) -> Mapping[str, float]:
        """The rule's measures at its latest tick."""

    def badness(self, rule: str) -> float:
        """How bad it is at the rule's latest tick: its peak measure; NaN where it has none."""

    def standing(self) -> Mapping[str, Standing]:
        """All of this for every rule that ever had a finding."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """Actions that are taken together or not at all. `verify` is to hold within `within` ticks of the rule's clock."""

    actions: tuple[tuple[str, Mapping[str, float]], ...]
    verify: str | None = None
    within: int | None = None
    deeper: bool = False
    """Whether it is one before it with a deeper cut, for when all have failed."""

    @property
    def name(self) -> str:
        """The actions' names, joined by a plus sign."""
        return "+".join(name for name, _ in self.actions)

    @property
    def begins_afresh(self) -> bool:
        """Whether it goes back to where the training began."""
        return any(name == "rewind" and numbers.get("before", math.inf) <= 1 for name, numbers in self.actions)

    @property
    def names(self) -> frozenset[str]:
        """The actions' names."""
        return frozenset(name for name, _ in self.actions)


@dataclass(slots=True)
class Course:
    """A treatment under way: applied, and on probation until it is kept or reverted.

    `finding` is None for what the guard against non-finite steps began by itself.
    """

    treatment: Treatment
    rule: str
    finding: Finding | None
    record: Intervention
    reverts: Sequence[Callable[[], None]]
    tried: frozenset[float] = frozenset()
    """Steps of the snapshots gone back to in this course and those before it."""
    first_tick: int | None = None
    deadline: int = 0
    """Ticks after the first one at which time is over."""
    worst: float = math.nan
    """The worst of the finding's peak measure since the last deadline."""


def is_treatable(finding: Finding) -> bool:
    """Whether a finding may be acted on: grave enough, still there, and with something safe to do."""
    grave = SEVERITIES.index(finding.severity) >= SEVERITIES.index("warning")
    safe = any(one.applicability == "safe" and one.action is not None for one in finding.prescriptions)
    return grave and not finding.resolved and safe


def is_harmful(finding: Finding) -> bool:
    """Whether a finding that goes on makes the weights worse than they were: an error, instability or overfitting."""
    harmful = finding.category in {"unstable", "overfit"}
    grave = finding.severity == "error" or (finding.severity == "warning" and harmful)
    return grave and finding.until is None


def urgency(finding: Finding) -> tuple[bool, int, float, str]:
    """The order in which findings are treated: causes, then the gravest, then the earliest."""
    return finding.explained_by is not None, -SEVERITIES.index(finding.severity), finding.since, finding.rule


def treatments(
    prescriptions: Sequence[Prescription], *, unstable: bool = False, last_resort: bool = False
) -> list[Treatment]:
    """The safe prescriptions in order, a `rewind` and the knobs behind it as one treatment.

    For an unstable run more attempts follow when all have failed: back to an older snapshot, with a deeper cut of the
    learning rate. With `last_resort` the last of all is to stop with the best weights.
    """
    found: list[Treatment] = []
    for one in prescriptions:
        if one.applicability != "safe" or one.action is None:
            continue
        actions: tuple[tuple[str, Mapping[str, float]], ...] = ((one.action, one.arguments),)
        if one.action == "rewind" and "factor" in one.arguments:
            target = {name: number for name, number in one.arguments.items() if name != "factor"}
            actions = (("rewind", target), ("scale_lr", {"factor": one.arguments["factor"]}))
        follows = bool(found) and found[-1].actions[0][0] == "rewind"
        if follows and one.action in TOGETHER - found[-1].names:
            before = found.pop()
            judged = one if one.verify is not None or one.within is not None else before
            found.append(Treatment((*before.actions, *actions), judged.verify, judged.within))
        else:
            found.append(Treatment(actions, one.verify, one.within))
    by_name = {name: arguments for one in found for name, arguments in one.actions}
    factor = by_name.get("scale_lr", {}).get("factor", 1.0)
    if unstable and 0 < factor < 1:
        last = next(one for one in reversed(found) if "scale_lr" in one.name)
        where = by_name.get("rewind", {})
        for _ in range(DEEPER):
            factor = max(factor**2, factor / 10)
            warm_up = [("warm_up_again", by_name["warm_up_again"])] if "warm_up_again" in by_name else []
            actions = (("rewind", where), ("scale_lr", {"factor": factor}), *warm_up)
            found.append(Treatment(actions, last.verify, last.within, deeper=True))
    if last_resort and found and found[-1].actions[0][0] != "early_stop":
        found.append(Treatment(LAST_RESORT))
    return found


def ladder_of(finding: Finding) -> list[Treatment]:
    """The treatments of a finding, in order. Only an error of an unstable run is a reason to stop."""
    unstable = finding.category == "unstable"
    return treatments(finding.prescriptions, unstable=unstable, last_resort=unstable and finding.severity == "error")


def effect(finding: Finding, verify: str | None, now: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The numbers a treatment is judged by, at the finding and `now`: those that `verify` names, or else all."""
    numbers = {
        name: (value, now[name]) for name, value in finding.evidence.items() if math.isfinite(now.get(name, math.nan))
    }
    named = {name: pair for name, pair in numbers.items() if verify and re.search(rf"\b{name}\b", verify)}
    return named or numbers


def began(finding: Finding) -> float:
    """The step before which all was well, as far as the finding's clock tells: an interval is dated by its end."""
    return finding.since - max(2.0, finding.since / 20) if finding.clock == "interval" else finding.since
