"""How a report is arranged: causes with their episodes and consequences, and the short phrases all reports share."""

from collections.abc import Sequence

from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding, Undecided
from lossdoctor.reports.finding import since
from lossdoctor.reports.printable import number, step_number
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.tables import Run

__all__ = [
    "causes",
    "consequences",
    "count",
    "ending",
    "intervention_sentence",
    "last_step",
    "leading",
    "unchecked",
    "unrecorded",
    "verdict_phrase",
]

_LOGGED = frozenset(
    {
        *("train_loss", "val_loss", "train_accuracy", "val_accuracy", "learning_rate", "grad_norm"),
        *("step_time", "data_wait", "loss_scale", "total_steps"),
    }
)
"""What the log of another tool may hold: a rule that misses one of these can be helped by logging it."""


def causes(findings: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Every cause in order, with further episodes of the same rule: the gravest stands for them, else the first."""
    present = {finding.rule for finding in findings}
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.explained_by not in present:
            groups.setdefault(finding.rule, []).append(finding)
    found = []
    for group in groups.values():
        shown = max(group, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.since))
        found.append((shown, [finding for finding in group if finding is not shown]))
    return found


def consequences(findings: Sequence[Finding], cause: Finding) -> list[tuple[int, list[Finding]]]:
    """What a cause explains, grouped by rule, each group followed by what it explains in turn; with their depth."""
    found: list[tuple[int, list[Finding]]] = []
    seen = {cause.rule}

    def descend(rule: str, depth: int) -> None:
        groups: dict[str, list[Finding]] = {}
        for finding in findings:
            if finding.explained_by == rule and finding.rule not in seen:
                groups.setdefault(finding.rule, []).append(finding)
        seen.update(groups)
        for name, group in groups.items():
            found.append((depth, group))
            descend(name, depth + 1)

    descend(cause.rule, 0)
    return found


def leading(diagnosis: Diagnosis) -> Finding | None:
    """The finding the verdict is named after."""
    return next((finding for finding in diagnosis.findings if finding.rule == diagnosis.verdict), None)


def last_step(diagnosis: Diagnosis, run: Run | None) -> float | None:
    """The last step that was read."""
    if run is not None and len(run.steps):
        return float(run.steps.step[-1])
    return float(diagnosis.steps) if diagnosis.steps else None


def verdict_phrase(diagnosis: Diagnosis) -> str:
    """The verdict, its category and since when, or what it is worth."""
    if diagnosis.verdict in {"healthy", "undecided"}:
        return ", ".join(filter(None, (diagnosis.verdict, diagnosis.worth)))
    finding = leading(diagnosis)
    when = f" {since(finding)}" if finding else ""
    return f"{diagnosis.verdict}{when} ({diagnosis.category})"


def ending(diagnosis: Diagnosis, run: Run | None) -> str:
    """How the run ended, with the exception that ended it where it is known."""
    marks = run.marks if run is not None and diagnosis.status in {"crashed", "stopped"} else ()
    details = [mark.detail.partition("\n")[0] for mark in marks if mark.name in {"exception", "stop"} and mark.detail]
    return f"{diagnosis.status} ({details[-1]})" if details else diagnosis.status


def count(number_of: int, thing: str) -> str:
    """How many of a thing, in words.

    >>> count(0, "step"), count(1, "step"), count(2, "step")
    ('no steps', '1 step', '2 steps')
    """
    return f"{number_of or 'no'} {thing}{'' if number_of == 1 else 's'}"


def intervention_sentence(act: Intervention) -> str:
    """What was done, to what numbers, why, and what came of it.

    >>> intervention_sentence(Intervention(id=1, step=431, time=0, rule="divergence", action="scale_lr", reason="",
    ...     changes={"learning_rate": (3e-3, 1e-3)}, outcome="kept", settled=480))
    'scale_lr for divergence: learning_rate 0.003 → 0.001; kept at step 480'
    """
    changes = ", ".join(f"{knob} {number(old)} → {number(new)}" for knob, (old, new) in act.changes.items())
    done = f"{act.action} for {act.rule}" + (f": {changes}" if changes else "")
    outcome = f"{act.outcome} at step {step_number(act.settled)}" if act.settled is not None else act.outcome
    because = act.outcome_reason or act.reason
    return f"{done}; {outcome}" + (f": {because}" if because else "")


def unrecorded(undecided: Sequence[Undecided]) -> tuple[list[str], list[Undecided]]:
    """Rules without a verdict on the log of another tool: those that need a recording of ours, and the others."""
    asked = [rule for rule in undecided if rule.family != ADVICE]
    beyond = [rule for rule in asked if not _LOGGED.issuperset(rule.missing)]
    return [rule.rule for rule in beyond], [rule for rule in asked if rule not in beyond]


def unchecked(undecided: Sequence[Undecided]) -> list[tuple[list[str], str, list[str]]]:
    """Rules without a verdict, those with the same reason together: rules, reason, signals the reason does not name.

    Advice that could not be given is left out.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for rule in undecided:
        if rule.family != ADVICE:
            groups.setdefault((rule.reason, tuple(rule.missing)), []).append(rule.rule)
    return [
        (names, reason, [name for name in missing if name not in reason]) for (reason, missing), names in groups.items()
    ]
