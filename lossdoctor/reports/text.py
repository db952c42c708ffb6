"""A diagnosis as text for a terminal: verdict, findings with their evidence, what passed, what was not checked.

It reads like the output of a good compiler. Messages state the fault; only the ``help`` lines say what to do.
"""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding, Undecided
from lossdoctor.reports.finding import STYLES, since, write_finding
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import number, printable, step_number
from lossdoctor.rulebook import Rule
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.tables import Run

__all__ = ["overview", "render", "verdict_line"]

_VERDICT_STYLES: Mapping[str, str] = {"healthy": "bold green", "undecided": "bold yellow"}


def render(
    diagnosis: Diagnosis,
    run: Run | None = None,
    *,
    rules: Mapping[str, Rule] | None = None,
    page: Page | None = None,
) -> Text:
    """The report on one run, without the verdict line.

    With `run`, curves are drawn; with `rules`, evidence is printed in the format of the rule's message, and a verbose
    page has the rule's explanation.
    """
    page = page or Page()
    last_step = _last_step(diagnosis, run)
    lines = _headline(page, diagnosis, run)
    for warning in diagnosis.warnings:
        lines += page.hang(page.text(("warning: ", STYLES["warning"])), warning)
    for cause, again in _causes([finding for finding in diagnosis.findings if finding.family != ADVICE]):
        lines += [
            Text(),
            *write_finding(
                page,
                cause,
                run_name=diagnosis.run,
                run=run,
                rule=(rules or {}).get(cause.rule),
                again=again,
                consequences=_consequences(diagnosis.findings, cause),
                last_step=last_step,
            ),
        ]
    for part in (
        _reasons(page, diagnosis),
        _interventions(page, diagnosis.interventions),
        _advice(page, diagnosis.findings),
        _passed(page, diagnosis.passed),
        _not_checked(page, diagnosis.undecided),
    ):
        if part:
            lines += [Text(), *part]
    return Text("\n").join(lines)


_CUT_SHORT = {"crashed", "killed", "stopped"}
"""Ends of a run that are not its own: worth a word even where all was well until then."""


def overview(diagnoses: Sequence[Diagnosis], *, page: Page | None = None) -> Text:
    """One line a run: the gravest severity, the run, its verdict."""
    page = page or Page()
    names = [page.show(diagnosis.run) for diagnosis in diagnoses]
    room = min(max(map(cell_len, names), default=0), page.columns // 2)
    lines: list[Text] = []
    for name, diagnosis in zip(names, diagnoses, strict=True):
        word, style = _word(diagnosis)
        lead = Text().append(f"{word:<11}", style).append(name, "bold")
        if cell_len(name) > room:
            lines.append(lead)
            lead = Text(" " * 11).append(" " * room)
        else:
            lead.append(" " * (room - cell_len(name)))
        ended = f", {diagnosis.status}" if diagnosis.status in _CUT_SHORT else ""
        lines += page.hang(lead.append("  "), f"{_verdict(diagnosis)}{ended}")
    return Text("\n").join(lines)


def verdict_line(diagnosis: Diagnosis, *, named: bool = False) -> str:
    """The verdict in one line for `grep`; with `named`, the run stands last, so that blanks in it do no harm.

    Advice on the recipe is not counted among the findings.

    >>> verdict_line(Diagnosis(run="a", verdict="healthy", category="healthy", summary=""))
    'lossdoctor: verdict=healthy category=healthy since=- findings=0'
    """
    leading = _leading(diagnosis)
    begin = step_number(leading.since) if leading else "-"
    line = f"lossdoctor: verdict={diagnosis.verdict} category={diagnosis.category} since={begin}"
    line += f" findings={sum(finding.family != ADVICE for finding in diagnosis.findings)}"
    return printable(f"{line} run={diagnosis.run}" if named else line)


def _leading(diagnosis: Diagnosis) -> Finding | None:
    """The finding the verdict is named after."""
    return next((finding for finding in diagnosis.findings if finding.rule == diagnosis.verdict), None)


def _last_step(diagnosis: Diagnosis, run: Run | None) -> float | None:
    if run is not None and len(run.steps):
        return float(run.steps.step[-1])
    return float(diagnosis.steps) if diagnosis.steps else None


def _word(diagnosis: Diagnosis) -> tuple[str, str]:
    """The gravest severity as one word and its style: "ok" if nothing is worth a look."""
    if diagnosis.verdict in _VERDICT_STYLES and SEVERITIES.index(diagnosis.severity) <= SEVERITIES.index("info"):
        return ("ok" if diagnosis.verdict == "healthy" else "undecided"), _VERDICT_STYLES[diagnosis.verdict]
    return diagnosis.severity, STYLES[diagnosis.severity]


def _verdict(diagnosis: Diagnosis) -> str:
    """The verdict, its category and since when."""
    if diagnosis.verdict in _VERDICT_STYLES:
        return diagnosis.verdict
    leading = _leading(diagnosis)
    when = f" {since(leading)}" if leading else ""
    return f"{diagnosis.verdict}{when} ({diagnosis.category})"


def _headline(page: Page, diagnosis: Diagnosis, run: Run | None) -> list[Text]:
    style = _VERDICT_STYLES.get(diagnosis.verdict, STYLES[diagnosis.severity])
    lines = page.hang(page.text((f"{diagnosis.run}: ", "bold")), _verdict(diagnosis), style, indent=4)
    counts = [_count(diagnosis.steps, "step"), _count(diagnosis.evaluations, "evaluation"), _ending(diagnosis, run)]
    return lines + page.hang(Text("  "), ", ".join(count for count in counts if count), STYLES["faint"])


def _ending(diagnosis: Diagnosis, run: Run | None) -> str:
    """How the run ended, with the exception that ended it where it is known."""
    marks = run.marks if run is not None and diagnosis.status in {"crashed", "stopped"} else ()
    details = [mark.detail.partition("\n")[0] for mark in marks if mark.name in {"exception", "stop"} and mark.detail]
    return f"{diagnosis.status} ({details[-1]})" if details else diagnosis.status


def _count(number_of: int, thing: str) -> str:
    return f"{number_of or 'no'} {thing}{'' if number_of == 1 else 's'}"


def _causes(findings: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Every cause in order, with further episodes of the same rule: the gravest stands for them, else the first."""
    present = {finding.rule for finding in findings}
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.explained_by not in present:
            groups.setdefault(finding.rule, []).append(finding)
    causes = []
    for group in groups.values():
        shown = max(group, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.since))
        causes.append((shown, [finding for finding in group if finding is not shown]))
    return causes


def _consequences(findings: Sequence[Finding], cause: Finding) -> list[tuple[int, list[Finding]]]:
    """What a cause explains, grouped by rule, each group followed by what it explains in turn."""
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


def _reasons(page: Page, diagnosis: Diagnosis) -> list[Text]:
    """Why the run is healthy or undecided; for any other verdict, what else was seen."""
    style = _VERDICT_STYLES.get(diagnosis.verdict)
    label = f"{diagnosis.verdict}, because:" if style else "observed:"
    reasons = diagnosis.reasons
    if diagnosis.verdict == "undecided" or (style and not reasons):
        reasons = [diagnosis.summary, *reasons]
    lines = [line for reason in reasons if reason for line in page.hang(Text("  - "), reason)]
    return [page.text((label, style or "bold")), *lines] if lines else []


def _interventions(page: Page, interventions: Sequence[Intervention]) -> list[Text]:
    if not interventions:
        return []
    rows = [(f"step {step_number(act.step)}", _intervention(act)) for act in interventions]
    return [page.text((f"interventions ({len(rows)}):", "bold")), *page.table(rows, style=STYLES["faint"])]


def _intervention(act: Intervention) -> str:
    """What was done, to what numbers, why, and what came of it.

    >>> _intervention(Intervention(id=1, step=431, time=0, rule="divergence", action="scale_lr", reason="",
    ...     changes={"learning_rate": (3e-3, 1e-3)}, outcome="kept", settled=480))
    'scale_lr for divergence: learning_rate 0.003 → 0.001; kept at step 480'
    """
    changes = ", ".join(f"{knob} {number(old)} → {number(new)}" for knob, (old, new) in act.changes.items())
    done = f"{act.action} for {act.rule}" + (f": {changes}" if changes else "")
    outcome = f"{act.outcome} at step {step_number(act.settled)}" if act.settled is not None else act.outcome
    because = act.outcome_reason or act.reason
    return f"{done}; {outcome}" + (f": {because}" if because else "")


def _advice(page: Page, findings: Sequence[Finding]) -> list[Text]:
    """What is said of the recipe: what was seen and what is usual, a paragraph each."""
    lines: list[Text] = []
    for finding in findings:
        if finding.family == ADVICE:
            helps = " ".join(fix.advice for fix in finding.prescriptions)
            lead = page.text("  - ", (finding.rule, STYLES["faint"]), ": ")
            lines += page.hang(lead, f"{finding.message} {helps}".rstrip(), indent=4)
    return [page.text(("advice:", "bold")), *lines] if lines else []


def _passed(page: Page, passed: Sequence[str]) -> list[Text]:
    if not passed:
        return []
    return page.hang(page.text((f"passed ({len(passed)}): ", "bold")), ", ".join(passed))


def _not_checked(page: Page, undecided: Sequence[Undecided]) -> list[Text]:
    """Rules without a verdict, those with the same reason together."""
    undecided = [rule for rule in undecided if rule.family != ADVICE]
    if not undecided:
        return []
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for rule in undecided:
        groups.setdefault((rule.reason, tuple(rule.missing)), []).append(rule.rule)
    lines = [page.text((f"not checked ({len(undecided)}):", "bold"))]
    for (reason, missing), names in groups.items():
        lines += page.hang(Text("  - "), f"{', '.join(names)}: {reason}")
        if unnamed := [name for name in missing if name not in reason]:
            lines += page.hang(page.text("    ", ("decided by ", STYLES["faint"])), ", ".join(unnamed), STYLES["faint"])
    return lines
