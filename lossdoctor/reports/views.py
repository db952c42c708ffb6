"""What a page says of a run, in the order in which it says it: values for the templates, without a word of markup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from lossdoctor.findings import ADVICE, SEVERITIES, Applicability, Category, Diagnosis, Finding
from lossdoctor.reports.chart import Charts, charts_of, sparkline_path
from lossdoctor.reports.facts import Facts, facts_of, layer_rows
from lossdoctor.reports.finding import number_formats, since, steps_of, told_measures
from lossdoctor.reports.outline import causes, consequences, count, leading, unchecked
from lossdoctor.reports.picture import Picture
from lossdoctor.reports.printable import compact, number, step_number
from lossdoctor.reports.treated import account
from lossdoctor.rulebook import Rule
from lossdoctor.runs.events import Intervention

__all__ = ["View", "view_of"]

_MEANS: Mapping[Category, str] = MappingProxyType(
    {
        "invalid": "There is a bug: nothing should be concluded from this run.",
        "unstable": "The training is unstable.",
        "undertrained": "The model could have learned more than it did.",
        "overfit": "The model fits its training data at the expense of new data.",
        "inefficient": "It trains, but time or hardware is wasted.",
        "healthy": "Nothing wrong was found.",
        "undecided": "Too little was recorded to call this run healthy or not.",
    }
)

_HOW: Mapping[Applicability, tuple[str, str]] = MappingProxyType(
    {
        "safe": ("safe", "lossdoctor would do this by itself in auto mode"),
        "needs-value": ("choose a value", "safe once you have chosen the value"),
        "maybe": ("worth a try", "helps in many cases, not in all"),
        "manual": ("by hand", "a change to be made in the code or the data"),
    }
)

_Row: TypeAlias = tuple[str, str, str]
"""A number behind a finding: its name, its value, a remark."""

_EVIDENCE, _EVIDENCE_UNTOLD = 6, 4
_AGAIN = 6


@dataclass(frozen=True, slots=True)
class Fix:
    """A prescription in words."""

    advice: str
    applicability: str
    label: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Consequence:
    """Findings of one rule that another explains."""

    number: int
    numbers: list[int]
    finding: Finding
    when: str


@dataclass(frozen=True, slots=True)
class Item:
    """One card: a cause with all that belongs to it. `number` is its place in the diagnosis."""

    number: int
    finding: Finding
    when: str
    accepted: bool
    prescriptions: list[Fix]
    evidence: list[_Row]
    more_evidence: list[_Row]
    again: list[str]
    consequences: list[Consequence]
    explain: list[str]
    sources: list[str]


@dataclass(frozen=True, slots=True)
class View:
    """One run. `tone` is the colour of its verdict, `word` the same for those who see no colours."""

    diagnosis: Diagnosis
    anchor: str
    tone: str
    word: str
    headline: str
    since: str
    means: str
    counts: list[str]
    charts: Charts | None
    spark: str
    judged: bool = True
    findings: list[Item] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    reasons_title: str = ""
    interventions: list[dict[str, str]] = field(default_factory=list)
    account: list[tuple[str, str]] = field(default_factory=list)
    advice: list[tuple[int, str]] = field(default_factory=list)
    unchecked: list[tuple[list[str], str, list[str]]] = field(default_factory=list)
    unchecked_count: int = 0
    facts: Facts = field(default_factory=list)
    layers: list[tuple[str, str, str, str]] = field(default_factory=list)
    layers_total: int = 0
    read_as: tuple[str, ...] = ()


def view_of(
    diagnosis: Diagnosis,
    picture: Picture | None = None,
    *,
    rules: Mapping[str, Rule] = MappingProxyType({}),
    anchor: str = "run",
    judged: bool = True,
) -> View:
    """The view of a run; `rules` give evidence its formats and findings their explanation."""
    tone, word = _tone(diagnosis)
    finding = leading(diagnosis)
    last = picture.last if picture else float(diagnosis.steps)
    open_questions = unchecked(diagnosis.undecided)
    layers = picture.info.model.layers if picture else []
    return View(
        diagnosis=diagnosis,
        anchor=anchor,
        tone=tone,
        word=word,
        headline=finding.title if finding else diagnosis.verdict.replace("_", " ").capitalize(),
        since=_since(finding),
        means=_MEANS[diagnosis.category],
        counts=_counts(diagnosis),
        charts=charts_of(picture) if picture else None,
        spark=sparkline_path(picture) if picture else "",
        judged=judged,
        findings=_items(diagnosis, rules, last),
        reasons=_reasons(diagnosis),
        reasons_title="Why it is healthy" if diagnosis.verdict == "healthy" else "Also observed",
        interventions=[_intervention(act) for act in diagnosis.interventions],
        account=account(diagnosis.interventions, diagnosis.findings),
        advice=_advice(diagnosis),
        unchecked=open_questions,
        unchecked_count=sum(len(names) for names, _, _ in open_questions),
        facts=facts_of(picture.info, diagnosis.config) if picture else [],
        layers=layer_rows(layers),
        layers_total=len(layers),
        read_as=picture.read_as if picture else (),
    )


def _tone(diagnosis: Diagnosis) -> tuple[str, str]:
    """The colour of the verdict and its word: only what is worth a look is coloured as trouble."""
    if SEVERITIES.index(diagnosis.severity) <= SEVERITIES.index("info"):
        return {"healthy": ("good", "ok"), "undecided": ("undecided", "undecided")}.get(
            diagnosis.verdict, (diagnosis.severity, diagnosis.severity)
        )
    return diagnosis.severity, diagnosis.severity


def _since(finding: Finding | None) -> str:
    return since(finding) if finding else ""


def _counts(diagnosis: Diagnosis) -> list[str]:
    steps = f"{diagnosis.steps:,} steps" if diagnosis.steps > 1 else count(diagnosis.steps, "step")
    found = [steps, count(diagnosis.evaluations, "evaluation"), diagnosis.status]
    return [words for words in found if words]


def _items(diagnosis: Diagnosis, rules: Mapping[str, Rule], last: float) -> list[Item]:
    numbers = {id(finding): number for number, finding in enumerate(diagnosis.findings)}
    shown = [finding for finding in diagnosis.findings if finding.family != ADVICE]
    items = []
    for cause, again in causes(shown):
        rule = rules.get(cause.rule)
        explain = rule.explain.strip().split("\n\n") if rule else []
        evidence, more_evidence = _evidence(cause, rule)
        items.append(
            Item(
                number=numbers[id(cause)],
                finding=cause,
                when=steps_of(cause, last),
                accepted=cause.rule in diagnosis.accepted,
                prescriptions=[
                    Fix(fix.advice, fix.applicability, *_HOW[fix.applicability]) for fix in cause.prescriptions
                ],
                evidence=evidence,
                more_evidence=more_evidence,
                again=[steps_of(one, last) for one in again[:_AGAIN]]
                + ([f"and {len(again) - _AGAIN} more"] if len(again) > _AGAIN else []),
                consequences=[_consequence(group, numbers) for _, group in consequences(shown, cause)],
                explain=[compact(paragraph) for paragraph in explain],
                sources=list(rule.sources) if rule else [],
            )
        )
    return items


def _consequence(group: Sequence[Finding], numbers: Mapping[int, int]) -> Consequence:
    first = min(group, key=lambda finding: finding.since)
    times = f"{len(group)} times, " if len(group) > 1 else ""
    return Consequence(numbers[id(first)], [numbers[id(one)] for one in group], first, f"{times}{since(first)}")


def _evidence(finding: Finding, rule: Rule | None) -> tuple[list[_Row], list[_Row]]:
    """The numbers that the rule's words are about, and the others behind them."""
    formats = number_formats(rule) if rule else {}
    told = told_measures(rule) if rule else set()
    rows = []
    for name, value in finding.evidence.items():
        worst = rule is not None and rule.peak == name and finding.peak not in {None, value}
        remark = f"(at its worst {number(finding.peak or 0.0, formats.get(name, ''))})" if worst else ""
        rows.append((name, number(value, formats.get(name, "")), remark))
    first = [row for row in rows if row[0] in told] or rows[:_EVIDENCE_UNTOLD]
    return first[:_EVIDENCE], [row for row in rows if row not in first[:_EVIDENCE]]


def _reasons(diagnosis: Diagnosis) -> list[str]:
    if diagnosis.verdict == "undecided" or (diagnosis.verdict == "healthy" and not diagnosis.reasons):
        return [reason for reason in (diagnosis.summary, *diagnosis.reasons) if reason]
    return list(diagnosis.reasons)


def _advice(diagnosis: Diagnosis) -> list[tuple[int, str]]:
    return [
        (number, " ".join([finding.message, *(fix.advice for fix in finding.prescriptions)]))
        for number, finding in enumerate(diagnosis.findings)
        if finding.family == ADVICE
    ]


def _intervention(act: Intervention) -> dict[str, str]:
    changes = "; ".join(f"{knob} {number(old)} → {number(new)}" for knob, (old, new) in act.changes.items())
    effect = "; ".join(f"{name} {number(old)} → {number(new)}" for name, (old, new) in act.effect.items())
    settled = f"at step {step_number(act.settled)}" if act.settled is not None else ""
    return {
        "step": step_number(act.step),
        "action": act.action,
        "rule": act.rule,
        "changes": changes,
        "outcome": act.outcome,
        "why": ": ".join(part for part in (settled, act.outcome_reason or act.reason) if part),
        "effect": effect,
    }
