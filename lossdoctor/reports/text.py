"""A diagnosis as text for a terminal: verdict, findings with their evidence, what passed, what was not checked.

It reads like the output of a good compiler. Messages state the fault; only the ``help`` lines say what to do.
"""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding, Undecided
from lossdoctor.reports.finding import STYLES, write_finding
from lossdoctor.reports.outline import (
    causes,
    consequences,
    count,
    ending,
    intervention_sentence,
    last_step,
    leading,
    unchecked,
    unrecorded,
    verdict_phrase,
)
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import printable, step_number
from lossdoctor.reports.treated import account
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
    end = last_step(diagnosis, run)
    lines = _headline(page, diagnosis, run)
    for warning in diagnosis.warnings:
        lines += page.hang(page.text(("warning: ", STYLES["warning"])), warning)
    for cause, again in causes([finding for finding in diagnosis.findings if finding.family != ADVICE]):
        lines += [
            Text(),
            *write_finding(
                page,
                cause,
                run_name=diagnosis.run,
                run=run,
                rule=(rules or {}).get(cause.rule),
                again=again,
                consequences=consequences(diagnosis.findings, cause),
                last_step=end,
            ),
        ]
    for part in (
        _reasons(page, diagnosis),
        _interventions(page, diagnosis.interventions, diagnosis.findings),
        _advice(page, diagnosis.findings),
        _passed(page, diagnosis.passed),
        _not_checked(page, diagnosis.undecided, of_log=run is not None and bool(run.read_as)),
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
        lines += page.hang(lead.append("  "), f"{verdict_phrase(diagnosis)}{ended}")
    return Text("\n").join(lines)


def verdict_line(diagnosis: Diagnosis, *, named: bool = False) -> str:
    """The verdict in one line for `grep`; with `named`, the run stands last, so that blanks in it do no harm.

    Advice on the recipe is not counted among the findings.

    >>> verdict_line(Diagnosis(run="a", verdict="healthy", category="healthy", summary=""))
    'lossdoctor: verdict=healthy category=healthy severity=benign since=- findings=0 status=-'
    """
    cause = leading(diagnosis)
    begin = step_number(cause.since) if cause else "-"
    faults = [finding for finding in diagnosis.findings if finding.family != ADVICE]
    severity = max((fault.severity for fault in faults), key=SEVERITIES.index, default="benign")
    line = f"lossdoctor: verdict={diagnosis.verdict} category={diagnosis.category} severity={severity} since={begin}"
    line += f" findings={len(faults)} status={diagnosis.status or '-'}"
    return printable(f"{line} run={diagnosis.run}" if named else line)


def _word(diagnosis: Diagnosis) -> tuple[str, str]:
    """The gravest severity as one word and its style: "ok" if nothing is worth a look."""
    if diagnosis.verdict in _VERDICT_STYLES and SEVERITIES.index(diagnosis.severity) <= SEVERITIES.index("info"):
        return ("ok" if diagnosis.verdict == "healthy" else "undecided"), _VERDICT_STYLES[diagnosis.verdict]
    return diagnosis.severity, STYLES[diagnosis.severity]


def _headline(page: Page, diagnosis: Diagnosis, run: Run | None) -> list[Text]:
    style = _VERDICT_STYLES.get(diagnosis.verdict, STYLES[diagnosis.severity])
    lines = page.hang(page.text((f"{diagnosis.run}: ", "bold")), verdict_phrase(diagnosis), style, indent=4)
    counts = [count(diagnosis.steps, "step"), count(diagnosis.evaluations, "evaluation"), ending(diagnosis, run)]
    return lines + page.hang(Text("  "), ", ".join(count for count in counts if count), STYLES["faint"])


def _reasons(page: Page, diagnosis: Diagnosis) -> list[Text]:
    """Why the run is healthy or undecided; for any other verdict, what else was seen."""
    style = _VERDICT_STYLES.get(diagnosis.verdict)
    label = f"{diagnosis.verdict}, because:" if style else "observed:"
    reasons = diagnosis.reasons
    if diagnosis.verdict == "undecided" or (style and not reasons):
        reasons = [diagnosis.summary, *reasons]
    lines = [line for reason in reasons if reason for line in page.hang(Text("  - "), reason)]
    return [page.text((label, style or "bold")), *lines] if lines else []


def _interventions(page: Page, interventions: Sequence[Intervention], findings: Sequence[Finding]) -> list[Text]:
    if not interventions:
        return []
    rows = [(f"step {step_number(act.step)}", intervention_sentence(act)) for act in interventions]
    lines = [page.text((f"interventions ({len(rows)}):", "bold")), *page.table(rows, style=STYLES["faint"])]
    for label, sentence in account(interventions, findings):
        lines += page.hang(Text(f"  {label}: "), sentence)
    return lines


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


_EXAMPLES = 3
"""Rules that are named of those that need a recording."""


def _not_checked(page: Page, undecided: Sequence[Undecided], *, of_log: bool = False) -> list[Text]:
    """Rules without a verdict, those with the same reason together; of a log, those that need a recording in one."""
    beyond, others = unrecorded(undecided) if of_log else ([], undecided)
    groups = unchecked(others)
    if not groups and not beyond:
        return []
    number = len(beyond) + sum(len(names) for names, _, _ in groups)
    lines = [page.text((f"not checked ({number}):", "bold"))]
    for names, reason, unnamed in groups:
        lines += page.hang(Text("  - "), f"{', '.join(names)}: {reason}")
        if unnamed:
            lines += page.hang(page.text("    ", ("decided by ", STYLES["faint"])), ", ".join(unnamed), STYLES["faint"])
    if beyond:
        named = beyond if page.verbose or len(beyond) <= _EXAMPLES + 1 else beyond[:_EXAMPLES]
        more = f" and {len(beyond) - len(named)} more (-v names them)" if len(named) < len(beyond) else ""
        needs = f"{count(len(beyond), 'rule')} need{'s' if len(beyond) == 1 else ''} what only a Monitor records"
        lines += page.hang(Text("  - "), f"{needs} (gradients, layers, batches): {', '.join(named)}{more}")
    return lines
