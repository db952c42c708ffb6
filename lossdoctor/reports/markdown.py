"""A diagnosis as Markdown, for a pull request, a job summary or a lab book."""

import re
from collections.abc import Iterable, Sequence

from lossdoctor.findings import ADVICE, Diagnosis, Finding
from lossdoctor.reports.finding import since, steps_of
from lossdoctor.reports.printable import compact, number, printable
from lossdoctor.reports.text import verdict_line
from lossdoctor.reports.treated import account

__all__ = ["render"]

_MARKUP = re.compile(r"([\\`*{}\[\]<>#|~&@]|(?<!\w)_|_(?!\w)|^[-+=])")


def render(diagnoses: Sequence[Diagnosis]) -> str:
    """The reports one after the other, each under a heading, with the verdict lines last."""
    parts = [part for diagnosis in diagnoses for part in _run(diagnosis)]
    verdicts = "\n".join(verdict_line(diagnosis, named=len(diagnoses) > 1).replace("`", "'") for diagnosis in diagnoses)
    return "\n\n".join([*parts, f"```text\n{verdicts}\n```"]) + "\n"


def _run(diagnosis: Diagnosis) -> list[str]:
    last_step = float(diagnosis.steps) if diagnosis.steps else None
    findings = [finding for finding in diagnosis.findings if finding.family != ADVICE]
    verdict = f"{diagnosis.verdict} ({diagnosis.category})" if findings else diagnosis.verdict
    parts = [f"## {_plain(diagnosis.run)}: {_plain(verdict)}"]
    if diagnosis.warnings:
        parts.append(_list(f"warning: {_plain(warning)}" for warning in diagnosis.warnings))
    parts += [_finding(finding, last_step) for finding in findings if finding.explained_by is None]
    consequences = [finding for finding in findings if finding.explained_by is not None]
    if consequences:
        rows = [
            f"**{_plain(finding.rule)}** ({since(finding)}, explained by {_plain(finding.explained_by or '')}): "
            f"{_plain(finding.message)}"
            for finding in consequences
        ]
        parts.append("Consequences:\n\n" + _list(rows))
    if diagnosis.reasons:
        label = "Healthy, because" if diagnosis.verdict == "healthy" else "Observed"
        parts.append(f"{label}:\n\n" + _list(_plain(reason) for reason in diagnosis.reasons))
    if diagnosis.interventions:
        rows = [
            f"step {number(act.step)}: {_plain(act.action)} for {_plain(act.rule)}, {act.outcome}"
            for act in diagnosis.interventions
        ]
        parts.append("Interventions:\n\n" + _list(rows))
        if told := account(diagnosis.interventions, diagnosis.findings):
            parts.append("Treatment:\n\n" + _list(f"{label}: {_plain(sentence)}" for label, sentence in told))
    advice = [finding for finding in diagnosis.findings if finding.family == ADVICE]
    if advice:
        helps = {finding.rule: " ".join(fix.advice for fix in finding.prescriptions) for finding in advice}
        rows = [f"{_plain(one.rule)}: {_plain(f'{one.message} {helps[one.rule]}'.rstrip())}" for one in advice]
        parts.append("Advice:\n\n" + _list(rows))
    if diagnosis.passed:
        parts.append(f"Passed ({len(diagnosis.passed)}): {_plain(', '.join(diagnosis.passed))}")
    undecided = [rule for rule in diagnosis.undecided if rule.family != ADVICE]
    if undecided:
        rows = [f"{_plain(rule.rule)}: {_plain(rule.reason)}" for rule in undecided]
        parts.append(f"Not checked ({len(undecided)}):\n\n" + _list(rows))
    return parts


def _finding(finding: Finding, last_step: float | None) -> str:
    about = [*finding.layers, *finding.names]
    lines = [
        f"### {finding.severity}: {_plain(finding.rule)}",
        f"{_plain(finding.message)}",
        "; ".join([f"At {steps_of(finding, last_step)}", *([_plain(", ".join(about))] if about else [])]) + ".",
    ]
    if finding.evidence:
        rows = [f"| {_plain(name)} | {number(value)} |" for name, value in finding.evidence.items()]
        lines.append("\n".join(["| evidence | value |", "| --- | ---: |", *rows]))
    if finding.prescriptions:
        helps = [f"{_plain(fix.advice)} *({fix.applicability})*" for fix in finding.prescriptions]
        lines.append("What helps:\n\n" + _list(helps))
    return "\n\n".join(lines)


def _list(rows: Iterable[str]) -> str:
    return "\n".join(f"- {row}" for row in rows)


def _plain(text: str) -> str:
    r"""`text` with nothing in it that Markdown or HTML would obey.

    >>> _plain("loss_a <b>| @you")
    'loss_a \\<b\\>\\| \\@you'
    """
    return _MARKUP.sub(r"\\\1", printable(compact(text)))
