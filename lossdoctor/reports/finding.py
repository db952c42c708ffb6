"""One finding as a compiler would print it: the fault, where, the evidence, what helps, what it explains."""

import string
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from lossdoctor.findings import Finding, Prescription
from lossdoctor.reports.curves import evidence_curve
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import compact, number, step_number
from lossdoctor.reports.sparkline import Sparkline, sparkline
from lossdoctor.rulebook import Rule
from lossdoctor.runs.tables import Run

__all__ = ["STYLES", "number_formats", "since", "steps_of", "told_measures", "write_finding"]

STYLES: Mapping[str, str] = {
    "error": "bold red",
    "warning": "bold yellow",
    "info": "bold cyan",
    "benign": "bold green",
    "help": "bold cyan",
    "gutter": "bold blue",
    "faint": "dim",
}

_EVIDENCE_SHOWN = 4
"""Evidence numbers shown unless all are asked for."""

_LAYERS_SHOWN = 4
_EPISODES_SHOWN = 3
_WIDEST_SPARKLINE = 72


def write_finding(
    page: Page,
    finding: Finding,
    *,
    run_name: str,
    run: Run | None = None,
    rule: Rule | None = None,
    again: Sequence[Finding] = (),
    consequences: Sequence[tuple[int, Sequence[Finding]]] = (),
    last_step: float | None = None,
) -> list[Text]:
    """The lines of one finding.

    `again` are further episodes of the same rule; `consequences` the findings it explains, in groups of one rule each
    with their depth (0: explained by this finding itself). `rule` gives evidence its format and `verbose` its prose.
    """
    style = STYLES[finding.severity]
    lead = page.text((f"{finding.severity}[{finding.rule}]", style), (": ", "bold"))
    lines = page.hang(lead, finding.message, "bold", indent=4)
    where = f"{run_name}, {steps_of(finding, last_step)}"
    lines += page.hang(page.text((" --> ", STYLES["gutter"])), where)
    if finding.resolved and not consequences and not page.verbose:
        return lines  # over: what happened and when is enough
    body = _layers(page, finding)
    if run is not None:
        body += _drawing(page, finding, run, last_step)
    evidence = _evidence(page, finding, rule)
    notes = [line for prescription in finding.prescriptions for line in _help(page, prescription)]
    notes += _episodes(page, again, last_step)
    notes += _explains(page, consequences)
    if page.verbose and rule is not None:
        notes += _explanation(page, rule)
    for part in (body, evidence, notes):
        if part:
            lines += [_gutter(), *part]
    return lines


def since(finding: Finding) -> str:
    """When it began, in words.

    >>> since(Finding(rule="x", title="", family="", category="unstable", severity="error", clock="step",
    ...               since=412, detected=420, message=""))
    'since step 412'
    """
    if finding.clock == "run":
        return "over the whole run"
    only = finding.until is not None and finding.until <= finding.since
    return f"{'at' if only else 'since'} step {step_number(finding.since)}"


def steps_of(finding: Finding, last_step: float | None = None) -> str:
    """The steps of a finding in words; `last_step` is the last one that was read."""
    if finding.clock == "run":
        return "the whole run" if last_step is None else f"the whole run ({step_number(last_step)} steps)"
    end = finding.until if finding.until is not None else last_step
    begin = step_number(finding.since)
    if end is None:
        span = f"step {begin} to the end"
    elif end <= finding.since:
        span = f"step {begin}"
    else:
        span = f"steps {begin} to {step_number(end)}" + (", the end" if finding.until is None else "")
    remarks = []
    if finding.detected > finding.since:
        remarks.append(f"detected at {step_number(finding.detected)}")
    if finding.resolved:
        remarks.append("resolved")
    return f"{span} ({', '.join(remarks)})" if remarks else span


def _gutter(*parts: str | tuple[str, str], page: Page | None = None) -> Text:
    line = Text().append("  |", STYLES["gutter"])
    return line.append(" ").append_text(page.text(*parts)) if page else line


def _note(page: Page, label: str, body: str, *, style: str = "bold") -> list[Text]:
    return page.hang(page.text(("  = ", STYLES["gutter"]), (label, style)), body)


def _explanation(page: Page, rule: "Rule") -> list[Text]:
    """What the rule's file says about it, paragraph by paragraph."""
    first, *others = rule.explain.strip().split("\n\n")
    lines = _note(page, "note: ", compact(first))
    for paragraph in others:
        lines += page.hang(Text(" " * 10), compact(paragraph))
    return lines


def _layers(page: Page, finding: Finding) -> list[Text]:
    """The layers and the names it is about, the first ones of many."""
    lines: list[Text] = []
    label = "layer: " if len(finding.layers) == 1 else "layers, worst first: "
    for what, names in ((label, finding.layers), ("names: ", finding.names)):
        shown = names if page.verbose else names[:_LAYERS_SHOWN]
        more = len(names) - len(shown)
        if shown:
            text = ", ".join(shown) + (f" and {more} more" if more else "")
            lines += page.hang(_gutter((what, STYLES["faint"]), page=page), text, gutter=_gutter())
    return lines


def _drawing(page: Page, finding: Finding, run: Run, last_step: float | None) -> list[Text]:
    """The evidence signal over the run, the finding's span marked underneath."""
    curve = evidence_curve(run, finding)
    if curve is None:
        return []
    whole_run = finding.clock == "run"
    end = finding.until if finding.until is not None else last_step
    span = None if whole_run else (finding.since, finding.since if end is None else end)
    width = min(page.columns - 4, _WIDEST_SPARKLINE)
    line = sparkline(curve.steps, curve.values, span=span, width=width, unicode=page.unicode)
    if line is None:
        return []
    caption = f", steps {step_number(line.first)} to {step_number(line.last)}: "
    caption += _range(line) if line.non_finite < len(curve.values) else "no finite value"
    if line.logarithmic:
        caption += " (log scale)"
    if line.non_finite:
        caption += f", {line.non_finite} not finite ({'×' if page.unicode else 'x'})"
    style = STYLES[finding.severity]
    bars = Text(line.bars)
    for column, mark in enumerate(line.marks):
        if mark == "^":
            bars.stylize(style, column, column + 1)
    lines = page.hang(_gutter(page=page), curve.label + caption, STYLES["faint"], gutter=_gutter())
    lines.append(_gutter(page=page).append_text(bars))
    if not whole_run:
        lines.append(_gutter(page=page).append(_labelled(line.marks, _span_label(finding), width), style))
    return lines


def _range(line: Sparkline) -> str:
    """The smallest and largest value, with as many digits as it takes to tell them apart."""
    for digits in (3, 6, 9):
        low, high = number(line.low, digits=digits), number(line.high, digits=digits)
        if low != high:
            return f"{low} to {high}"
    return f"constant {number(line.low)}"


def _span_label(finding: Finding) -> str:
    if finding.until is None or finding.until <= finding.since:
        return since(finding).removeprefix("at ")
    return f"steps {step_number(finding.since)} to {step_number(finding.until)}"


def _labelled(marks: str, label: str, width: int) -> str:
    """The marks with their label on whichever side has room for it."""
    begin, end = marks.index("^"), marks.rindex("^") + 1
    if end + 1 + len(label) <= width:
        return f"{marks[:end]} {label}"
    if begin > len(label):
        return f"{label:>{begin - 1}} {marks[begin:end]}"
    return marks[:end]


def _evidence(page: Page, finding: Finding, rule: Rule | None) -> list[Text]:
    """The numbers the condition was decided on, names left, values flush right."""
    specs = number_formats(rule) if rule else {}
    measures = rule.measures if rule and page.verbose else {}
    peak_of = rule.peak if rule else None
    told = told_measures(rule) if rule else set()
    # What the words are about comes first, then what is behind it.
    ordered = sorted(finding.evidence.items(), key=lambda item: item[0] not in told)
    shown = ordered[: None if page.verbose else _EVIDENCE_SHOWN]
    names = [page.show(name) for name, _ in shown]
    values = [number(value, specs.get(name, "")) for name, value in shown]
    name_width, value_width = max(map(cell_len, names), default=0), max(map(len, values), default=0)
    lines = []
    for name, value, (measure, _) in zip(names, values, shown, strict=True):
        row = _gutter(name + " " * (name_width - cell_len(name) + 3), (f"{value:>{value_width}}", "bold"), page=page)
        remarks = [measures[measure]] if measure in measures else []
        if finding.peak is not None and measure == peak_of and finding.peak != finding.evidence[measure]:
            remarks.append(f"(peak {number(finding.peak, specs.get(measure, ''))})")
        lines += (
            page.hang(row.append("   "), " ".join(remarks), STYLES["faint"], gutter=_gutter()) if remarks else [row]
        )
    return lines


def told_measures(rule: "Rule") -> set[str]:
    """The measures that the rule's messages print, and the one that says how bad it is."""
    messages = [rule.message, *(variant.message for variant in rule.variants)]
    fields = (name for message in messages for _, name, _, _ in string.Formatter().parse(message))
    return {name for name in (*fields, rule.peak) if name}


def number_formats(rule: "Rule") -> dict[str, str]:
    """The formats in which a rule's messages print its measures; the main message's hold where they differ."""
    messages = [*(variant.message for variant in rule.variants), rule.message]
    fields = [field for message in messages for field in string.Formatter().parse(message)]
    return {name: spec for _, name, spec, _ in fields if name and spec}


def _help(page: Page, prescription: Prescription) -> list[Text]:
    by = f"{prescription.action}: " if prescription.action else ""
    lines = _note(page, "help: ", f"{prescription.advice} [{by}{prescription.applicability}]", style=STYLES["help"])
    if page.verbose and prescription.verify:
        within = f" within {prescription.within} ticks" if prescription.within is not None else ""
        lines += page.hang(page.text("          cured when "), f"{prescription.verify}{within}", STYLES["faint"])
    return lines


def _episodes(page: Page, again: Sequence[Finding], last_step: float | None) -> list[Text]:
    if not again:
        return []
    shown = again if page.verbose else again[:_EPISODES_SHOWN]
    listed = "; ".join(steps_of(finding, last_step) for finding in shown)
    more = f"; and {len(again) - len(shown)} more" if len(again) > len(shown) else ""
    return _note(page, "again: ", f"{listed}{more}")


def _explains(page: Page, consequences: Sequence[tuple[int, Sequence[Finding]]]) -> list[Text]:
    """What follows from the finding, one paragraph a rule, deeper where a consequence has its own."""
    lines: list[Text] = []
    for row, (depth, group) in enumerate(consequences):
        first = min(group, key=lambda finding: finding.since)
        times = f"{len(group)} ×, " if len(group) > 1 else ""
        lead = page.text(
            ("  = " if row == 0 else "    ", STYLES["gutter"]),
            ("explains: " if row == 0 else " " * len("explains: "), "bold"),
            "  " * depth,
            (first.rule, STYLES[first.severity]),
            f" ({times}{since(first)})",
        )
        lines.append(lead)
        lines += page.hang(Text(" " * (16 + 2 * depth)), first.message, STYLES["faint"])
    return lines
