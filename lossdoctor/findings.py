"""The values of a diagnosis: findings, prescriptions, the verdict. Plain data, and the JSON schema of `analyze`."""

from typing import Any, Literal, TypeAlias

import msgspec

from lossdoctor.runs.events import Intervention

__all__ = [
    "ADVICE",
    "SCHEMA",
    "SEVERITIES",
    "Applicability",
    "Category",
    "Diagnosis",
    "Finding",
    "Prescription",
    "Severity",
    "Undecided",
]

SCHEMA = "lossdoctor.diagnosis/1"

ADVICE = "recipe"
"""The family of findings that are advice on the recipe: nothing is wrong, so reports keep them apart and short."""

Severity: TypeAlias = Literal["benign", "info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("benign", "info", "warning", "error")
"""From harmless to grave."""

Applicability: TypeAlias = Literal["safe", "needs-value", "maybe", "manual"]
Category: TypeAlias = Literal["invalid", "unstable", "undertrained", "overfit", "inefficient", "healthy", "undecided"]


class Prescription(msgspec.Struct, frozen=True, kw_only=True):
    """A fix bound to a finding, with numbers.

    `arguments` are the numbers the action takes; `verify` is the condition under which the fix counts as a success,
    to be met within `within` ticks of the rule's clock.
    """

    advice: str
    action: str | None = None
    applicability: Applicability = "manual"
    arguments: dict[str, float] = {}
    verify: str | None = None
    within: int | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One episode of one pathology.

    `since` is the step at which the condition first held, `detected` the step at which it had held long enough,
    `until` the last step at which it held (None: it holds to the end of what was read). `evidence` are the rule's
    measures at `detected`; `peak` is the value of the rule's peak measure at its worst.
    `explained_by` is the rule id of the finding that is the cause, None for a cause.
    """

    rule: str
    title: str
    family: str
    category: Category
    severity: Severity
    clock: str
    since: float
    detected: float
    until: float | None = None
    resolved: bool = False
    layers: list[str] = []
    names: list[str] = []
    """The parameters or modules it is about, where run.json names them."""
    message: str
    evidence: dict[str, float] = {}
    peak: float | None = None
    evidence_signal: str | None = None
    """The signal a report draws beside the finding."""
    explained_by: str | None = None
    prescriptions: list[Prescription] = []
    episodes: int = 1
    """How many episodes of this rule there were up to and including this one."""


class Undecided(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that could not be judged, why, and what to record so that it can be."""

    rule: str
    reason: str
    missing: list[str] = []
    """The signals that would decide it; empty where there were just too few ticks."""
    family: str = ""
    """The rule's family: reports are silent about advice that could not be given."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What lossdoctor has to say about one run. `findings` has causes first, each followed by what it explains."""

    run: str
    verdict: str
    """The leading cause's rule id, "healthy" or "undecided"."""
    category: Category
    summary: str
    steps: int = 0
    evaluations: int = 0
    findings: list[Finding] = []
    passed: list[str] = []
    undecided: list[Undecided] = []
    worth: str = ""
    """What a healthy verdict is worth where little was seen: "as far as 8 epochs tell"; empty where it says enough."""
    reasons: list[str] = []
    """Why the run is healthy; given for other verdicts too, as far as it holds."""
    interventions: list[Intervention] = []
    warnings: list[str] = []
    """What could not be read."""
    status: str = ""
    config: dict[str, Any] = {}
    accepted: list[str] = []
    """Rules whose findings are known and accepted, by a baseline."""

    @property
    def severity(self) -> Severity:
        """The gravest severity among the findings; "benign" if there are none."""
        return max((finding.severity for finding in self.findings), key=SEVERITIES.index, default="benign")

    def __repr__(self) -> str:
        faults = (f"{one.rule} since {one.since:g}" for one in self.findings if one.family != ADVICE)
        found = ", ".join(dict.fromkeys(faults)) or "no findings"
        return f"<Diagnosis of {self.run!r}: {self.verdict} ({self.category}); {found}>"

    def _repr_html_(self) -> str:
        from lossdoctor.reports.notebook import diagnosis_html  # noqa: PLC0415  only a notebook asks

        return diagnosis_html(self)
