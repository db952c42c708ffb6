"""What became of a treated run: what helped, what was undone, what is open, and what is left for a person to do."""

from collections.abc import Sequence

from lossdoctor.findings import Finding
from lossdoctor.reports.printable import number
from lossdoctor.runs.events import Intervention

__all__ = ["account", "effect_of"]

_MOST = 3
"""Numbers of an effect that are told."""

_GROUPS = (
    ("helped", ("kept",)),
    ("undone, as it did not help", ("reverted", "failed")),
    ("open when the run ended", ("pending",)),
)


def effect_of(act: Intervention) -> str:
    """What became of the numbers an act was judged by; empty where none were.

    >>> effect_of(Intervention(id=1, step=431, time=0, rule="divergence", action="rewind", reason="",
    ...     effect={"lost": (1.4, 0.05)}))
    'lost 1.4 → 0.05'
    """
    told = list(act.effect.items())[:_MOST]
    return ", ".join(f"{name} {number(before)} → {number(after)}" for name, (before, after) in told)


def account(interventions: Sequence[Intervention], findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Lines as (label, sentence) on what the doctor did to a run; none where it did nothing.

    What remains for a person are changes that only held for this run, and what findings ask for that no doctor can do.
    """
    if not interventions or all(act.outcome == "proposed" for act in interventions):
        return []
    lines = []
    for label, outcomes in _GROUPS:
        told = [_told(act) for act in interventions if act.outcome in outcomes]
        if told:
            lines.append((label, "; ".join(told)))
    remains = [*_standing(interventions), *_left(interventions, findings)]
    if remains:
        lines.append(("left for you", " ".join(remains)))
    return lines


def _told(act: Intervention) -> str:
    effect = effect_of(act)
    return f"{act.action} at step {number(act.step)} for {act.rule}" + (f" ({effect})" if effect else "")


def _standing(interventions: Sequence[Intervention]) -> list[str]:
    """The multiplier of the learning rate that the run ended with: the next run begins without it."""
    multiplier = 1.0
    for act in interventions:
        if act.outcome in {"kept", "pending"} and "lr_multiplier" in act.changes:
            multiplier = act.changes["lr_multiplier"][1]
    if multiplier == 1:
        return []
    return [
        f"The learning rate was {number(multiplier)} times what the loop sets; change it there before the next run."
    ]


def _left(interventions: Sequence[Intervention], findings: Sequence[Finding]) -> list[str]:
    """The first advice, for each rule that was treated or is still going on, that no action stands for."""
    treated = {act.rule for act in interventions}
    advice = []
    for finding in findings:
        grave = finding.severity in {"warning", "error"} and finding.explained_by is None
        if finding.rule in treated or grave:
            advice += [fix.advice for fix in finding.prescriptions if fix.action is None][:1]
    return list(dict.fromkeys(advice))
