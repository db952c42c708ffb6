"""What explains what, and the one verdict: findings in, causes first out."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from lossdoctor.few_rows import FewRows
from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding
from lossdoctor.runs.events import Intervention

__all__ = ["arrange", "conclude", "settle"]

_LATE_CAUSE = 0.1
"""A cause may begin up to this share of the run after its consequence: causes are often detected later."""
_FAR_TOO_LATE = 0.5
"""A cause that begins later than that is none, though its consequence still goes on."""


def settle(
    findings: Sequence[Finding],
    interventions: Sequence[Intervention],
    explanations: Mapping[str, AbstractSet[str]],
) -> list[Finding]:
    """The findings, resolved and down to info where an intervention that was kept has ended them.

    An intervention answers for the rule it was made for and for what that rule explains, up to the step at which it
    was settled; whatever begins later stands.
    """

    def treated(finding: Finding) -> bool:
        return finding.until is not None and any(
            (act.rule == finding.rule or finding.rule in explanations.get(act.rule, frozenset()))
            and finding.since <= act.step
            and finding.until <= (act.step if act.settled is None else act.settled)
            for act in interventions
            if act.outcome == "kept"
        )

    return [
        msgspec.structs.replace(finding, resolved=True, severity=min(finding.severity, "info", key=SEVERITIES.index))
        if treated(finding)
        else finding
        for finding in findings
    ]


def _explains(cause: Finding, finding: Finding, explanations: Mapping[str, AbstractSet[str]], last_step: float) -> bool:
    if finding.rule not in explanations.get(cause.rule, frozenset()):
        return False
    # What has resolved itself is no cause of what has not.
    if cause.resolved and not finding.resolved and cause.severity != "benign":
        return False
    end = {id(one): last_step if one.until is None else one.until for one in (cause, finding)}
    if cause.since > finding.since + _FAR_TOO_LATE * last_step:
        return False
    overlap = cause.since <= end[id(finding)] and finding.since <= end[id(cause)]
    return overlap or cause.since <= finding.since + _LATE_CAUSE * last_step


def arrange(
    findings: Sequence[Finding], explanations: Mapping[str, AbstractSet[str]], last_step: float
) -> list[Finding]:
    """Findings with causes first, each followed by what it explains; `explained_by` filled in.

    Leading cause: the gravest (itself or by what it explains), then the one with most consequences, then the earliest.
    What a benign finding explains drops to info.
    """
    causes = {
        number: [
            other
            for other, cause in enumerate(findings)
            if other != number and _explains(cause, finding, explanations, last_step)
        ]
        for number, finding in enumerate(findings)
    }
    roots = [number for number in causes if not causes[number]]

    def earliest(number: int) -> tuple[float, str]:
        return findings[number].since, findings[number].rule

    folded: dict[int, list[int]] = {root: [] for root in roots}
    for number, candidates in causes.items():
        if candidates:
            among = [root for root in candidates if root in folded] or [_root(number, causes)]
            folded[max(among, key=lambda root: (_grade(findings[root]), -findings[root].since))].append(number)

    def rank(root: int) -> tuple[int, int, float, str]:
        group = [root, *folded[root]]
        gravest = max(_grade(findings[number]) for number in group)
        if findings[root].severity == "benign":
            gravest = min(gravest, SEVERITIES.index("info"))
        return -gravest, -len(group), *earliest(root)

    arranged: list[Finding] = []
    for root in sorted(roots, key=rank):
        cause = findings[root]
        arranged.append(cause)
        for number in sorted(folded[root], key=earliest):
            changes: dict[str, str] = {"explained_by": cause.rule}
            if cause.severity == "benign" and findings[number].severity != "benign":
                changes["severity"] = "info"
            arranged.append(msgspec.structs.replace(findings[number], **changes))
    return arranged


def _root(number: int, causes: Mapping[int, Sequence[int]]) -> int:
    """A cause of the cause of ... that nothing explains; `explains` has no cycles, so there is one."""
    while causes[number]:
        number = causes[number][0]
    return number


def _grade(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def conclude(
    diagnosis: Diagnosis, vital: AbstractSet[str], *, learned: bool = True, few: FewRows | None = None
) -> Diagnosis:
    """Fill in verdict, category and summary.

    The verdict is the leading cause if it, or something it explains, is a warning or an error. Otherwise the run is
    healthy, unless one of the `vital` rules could not be decided, or no loss fell and no accuracy rose (`learned`).
    Where rows are means (`few`), rules that lack nothing but rows are excused if what there is is plain.
    """
    leading: Finding | None = None
    for finding in diagnosis.findings:
        if finding.explained_by is None:
            leading = leading or finding
    gravest = max((_grade(finding) for finding in diagnosis.findings), default=0)
    if leading is not None and gravest >= SEVERITIES.index("warning"):
        return msgspec.structs.replace(
            diagnosis, verdict=leading.rule, category=leading.category, summary=leading.message
        )
    open_questions = [why for why in diagnosis.undecided if why.rule in vital]
    if open_questions and few is not None and not any(why.missing for why in open_questions):
        return _of_few_rows(diagnosis, few, [why.rule for why in open_questions])
    if open_questions:
        # What is missing says more than which rules miss it.
        reasons = list(dict.fromkeys(why.reason for why in open_questions))
        return msgspec.structs.replace(diagnosis, verdict="undecided", category="undecided", summary="; ".join(reasons))
    if not learned:
        summary = "no rule found a fault, but no loss fell beyond its noise either"
        return msgspec.structs.replace(diagnosis, verdict="undecided", category="undecided", summary=summary)
    treated = sorted({finding.rule for finding in diagnosis.findings if finding.resolved and diagnosis.interventions})
    after = f"after treatment of {', '.join(treated)}" if treated else ""
    because = "; ".join(diagnosis.reasons) or "no rule found anything wrong"
    return msgspec.structs.replace(
        diagnosis, verdict="healthy", category="healthy", summary=f"{after + ': ' if after else ''}{because}"
    )


def _of_few_rows(diagnosis: Diagnosis, few: FewRows, too_short_for: Sequence[str]) -> Diagnosis:
    """The verdict on a log that is too short for vital rules: healthy only where that is plain."""
    rules = " and ".join(too_short_for)
    found = [one.rule for one in diagnosis.findings if one.family != ADVICE and one.severity != "benign"]
    if missing := few.missing or (f"{found[0]} was found" if found else ""):
        summary = f"too short: {few.rows} do not decide {rules}, and {missing}"
        return msgspec.structs.replace(diagnosis, verdict="undecided", category="undecided", summary=summary)
    worth = f"as far as {few.rows} tell"
    reasons = [f"{worth}: too few for {rules}, but the loss falls plainly", *diagnosis.reasons]
    return msgspec.structs.replace(
        diagnosis, verdict="healthy", category="healthy", summary="; ".join(reasons), reasons=reasons, worth=worth
    )
