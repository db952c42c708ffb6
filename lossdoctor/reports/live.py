"""A running training on one screen: how far it is, the verdict so far, curves, what to look at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from lossdoctor.findings import ADVICE, Diagnosis, Finding
from lossdoctor.reports.finding import STYLES, since
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import number, step_number
from lossdoctor.reports.sparkline import Sparkline, sparkline
from lossdoctor.reports.trace import Trace

__all__ = ["LiveView", "changes", "duration", "render"]

_NAME_WIDTH = 15
_VALUE_WIDTH = 9
_SPAN_WIDTH = 22
_LABELS: Mapping[str, str] = {"samples_per_second": "samples/s", "tokens_per_second": "tokens/s"}
_OLD_SECONDS = 30.0
"""A last record older than this may mean that the training hangs."""
_HELPED = 3
"""Findings shown with their first fix; further ones have a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView:
    """What a live view shows. `rate` is in steps a second, `age` in seconds since the last record; None: not known."""

    diagnosis: Diagnosis
    status: str
    step: float | None = None
    total_steps: int | None = None
    rate: float | None = None
    age: float | None = None
    traces: Mapping[str, Trace] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """What is the matter now, causes first: neither advice nor what is over or harmless."""
        found = [finding for finding in self.diagnosis.findings if finding.family != ADVICE]
        return [finding for finding in found if finding.severity != "benign" and not finding.resolved]


def render(view: LiveView, *, page: Page | None = None, rows: int | None = None) -> Text:
    """The view in at most `rows` lines, as far as its head and its curves allow."""
    page = page or Page()
    lines = [*_head(view, page), Text(), *_curves(view, page)]
    body = _findings(view, page)
    if rows is not None and len(lines) + 1 + len(body) > rows:
        room = max(rows - len(lines) - 2, 1)
        body = [*body[:room], page.text(("  … more in lossdoctor analyze", STYLES["faint"]))]
    return Text("\n").join([*lines, Text(), *body])


def changes(before: LiveView | None, after: LiveView) -> list[str]:
    """What is new since the last look, a line each, for a log.

    What only the end of the run can tell is left to the report there.
    """
    known = {} if before is None else {_key(one): one for one in before.diagnosis.findings}
    lines = []
    for finding in after.diagnosis.findings:
        if finding.family == ADVICE or finding.clock == "run" or finding.severity == "benign":
            continue
        old = known.get(_key(finding))
        if old is None or (finding.severity != old.severity and not finding.resolved):
            fix = finding.prescriptions[0].advice if finding.prescriptions and not finding.resolved else ""
            over = " (resolved)" if finding.resolved else ""
            line = f"step {step_number(finding.since)}: {finding.severity}[{finding.rule}]: {finding.message}{over}"
            lines.append(line + (f" help: {fix}" if fix else ""))
        elif finding.resolved and not old.resolved:
            until = step_number(finding.until if finding.until is not None else finding.since)
            lines.append(f"step {until}: {finding.rule} resolved")
    if before is None or before.status != after.status or before.diagnosis.verdict != after.diagnosis.verdict:
        at = "-" if after.step is None else step_number(after.step)
        lines.append(f"step {at}: verdict={after.diagnosis.verdict} status={after.status or 'unknown'}")
    return lines


def duration(seconds: float) -> str:
    """A time span in the two units that matter.

    >>> duration(0.42), duration(14.2), duration(75), duration(7290), duration(200000)
    ('0.42 s', '14 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 10:  # noqa: PLR2004  one digit more says something
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for size, name, smaller, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def _key(finding: Finding) -> tuple[str, float]:
    return finding.rule, finding.detected


def _head(view: LiveView, page: Page) -> list[Text]:
    """The run, its progress, and the verdict."""
    progress = []
    if view.step is not None:
        total = f" of {view.total_steps:,} ({view.step / view.total_steps:.0%})" if view.total_steps else ""
        progress.append(f"step {view.step:,.0f}{total}")
    if view.status == "running":
        if view.rate:
            shown = f"{view.rate:,.0f} steps/s" if view.rate >= 10 else f"{view.rate:.2g} steps/s"  # noqa: PLR2004
            progress.append(shown)
        if view.rate and view.total_steps and view.step and view.total_steps > view.step:
            progress.append(f"{duration((view.total_steps - view.step) / view.rate)} left")
    style = {"running": "bold green", "finished": "bold"}.get(view.status, "bold yellow")
    state = page.text((view.status or "status unknown", style), "  ")
    name = page.hang(Text(), f"{view.diagnosis.run}:", "bold")
    fits = len(name) == 1 and name[0].cell_len + 1 + state.cell_len <= page.columns // 2
    lines = [] if fits else name
    lead = name[0].append(" ").append(state) if fits else Text("    ").append(state)
    lines += page.hang(lead, ", ".join(progress), STYLES["faint"], indent=4)
    if view.age is not None and view.status == "running":
        old = view.age > max(_OLD_SECONDS, 20 / view.rate if view.rate else 0.0)
        remark = "; is it still training?" if old else ""
        text = f"last record {duration(view.age)} ago{remark}"
        lines += page.hang(Text("    "), text, STYLES["warning"] if old else STYLES["faint"])
    verdict = view.diagnosis.verdict
    style = {"healthy": "bold green", "undecided": "bold yellow"}.get(verdict, STYLES[view.diagnosis.severity])
    leading = next((one for one in view.diagnosis.findings if one.rule == verdict), None)
    when = f" {since(leading)}" if leading else ""
    so_far = " so far" if view.status == "running" and leading is None else ""
    return [*lines, page.text("verdict: ", (f"{verdict}{when}{so_far}", style))]


def _curves(view: LiveView, page: Page) -> list[Text]:
    lines = []
    for name, trace in view.traces.items():
        steps, values = trace.points()
        width = page.columns - _NAME_WIDTH - _VALUE_WIDTH - _SPAN_WIDTH - 3
        line = sparkline(steps, values, width=width, unicode=page.unicode)
        if line is None:
            continue
        text = page.text(
            f"  {_fitted(page.show(_LABELS.get(name, name))):<{_NAME_WIDTH}}", (f"{line.bars:<{width}}", "cyan")
        )
        style = "bold" if math.isfinite(trace.last) else STYLES["error"]
        text.append(f" {_value(name, trace.last):>{_VALUE_WIDTH}}", style)
        lines.append(text.append(f"  {_span(name, line)}", STYLES["faint"]))
    return lines or [page.text(("  nothing was recorded yet", STYLES["faint"]))]


def _value(name: str, value: float) -> str:
    """A value with three digits; of things a second, all before the point."""
    is_large = name in _LABELS and 1000 <= value < 1e8  # noqa: PLR2004  where digits say more than an exponent
    return f"{value:,.0f}" if is_large else number(value, digits=3)


def _span(name: str, line: Sparkline) -> str:
    """The values between which a curve lies."""
    if math.isnan(line.low):
        return "never finite"
    span = f"{_value(name, line.low)} to {_value(name, line.high)}" if line.low < line.high else "constant"
    return f"{span}, NaN" if line.non_finite else span


def _fitted(name: str) -> str:
    return name if len(name) < _NAME_WIDTH else f"{name[: _NAME_WIDTH - 4]}..."


def _findings(view: LiveView, page: Page) -> list[Text]:
    found = view.findings
    present = {finding.rule for finding in found}
    causes = [finding for finding in found if finding.explained_by not in present]
    effects: Sequence[Finding] = [finding for finding in found if finding.explained_by in present]
    lines: list[Text] = []
    for rank, finding in enumerate(causes):
        lead = page.text((f"{finding.severity}[{finding.rule}]", STYLES[finding.severity]), ": ")
        so_far = " (so far)" if finding.clock == "run" and view.status == "running" else ""
        lines += page.hang(lead, f"{since(finding)}{so_far}: {finding.message}", indent=4)
        if finding.prescriptions and rank < _HELPED:
            lines += page.hang(page.text(("  help: ", STYLES["help"])), finding.prescriptions[0].advice)
        if explained := sorted({one.rule for one in effects if one.explained_by == finding.rule}):
            lines += page.hang(page.text(("  explains: ", "bold")), ", ".join(explained), STYLES["faint"])
    over = sorted({f.rule for f in view.diagnosis.findings if f.resolved and f.severity in {"warning", "error"}})
    if over:
        lines += page.hang(page.text(("resolved: ", STYLES["faint"])), ", ".join(over), STYLES["faint"])
    counts = f"{len(view.diagnosis.passed)} rules passed, {len(view.diagnosis.undecided)} not decided yet"
    return [*lines, page.text((counts, STYLES["faint"]))]
