"""`lossdoctor analyze`: diagnose runs and report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lossdoctor.analysis import judge, runs_at
from lossdoctor.cli.output import complain, page_for, write, write_file
from lossdoctor.configuration import Configuration, FailOn, Format, find_configuration, parse_setting
from lossdoctor.errors import ConfigurationError, LogError
from lossdoctor.findings import SEVERITIES, Diagnosis
from lossdoctor.reports import json, markdown, text
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook

__all__ = ["RulesOption", "SetOption", "analyze"]

_FINDINGS = 1
_UNREADABLE = 2

RulesOption = Annotated[
    list[Path] | None,
    typer.Option("--rules", metavar="DIR", help="Also use the rule files in this directory. Repeatable."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="RULE.THRESHOLD=X", help="Use another threshold. Repeatable."),
]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A run's diagnosis and the report on it, written while the run was in memory."""

    diagnosis: Diagnosis
    report: Text


def analyze(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Run directories, or directories of runs.")],
    *,
    format: Annotated[  # noqa: A002 (the name of the option)
        Format | None, typer.Option("--format", help="How to report. Default: text.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the report here, only verdicts to stdout.")
    ] = None,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="Exit with 1 from this severity on. Default: error.")
    ] = None,
    set_: SetOption = None,
    rules: RulesOption = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="All evidence, all layers, and what each finding means.")
    ] = False,
) -> None:
    """Diagnose runs: what is wrong, since when, what to do about it.

    Exit code: 0 nothing at or above --fail-on, 1 findings, 2 bad usage or unreadable input.
    """
    configuration = find_configuration()
    rulebook = load_rulebook(configuration, rules or [], set_ or [])
    page = page_for(output, verbose=verbose)
    sheets, unreadable = _sheets(paths, rulebook, page)
    diagnoses = [sheet.diagnosis for sheet in sheets]
    report = _report(format or configuration.format, sheets, page)
    if output is not None:
        write_file(output, report)
        report = _verdicts(diagnoses)
    if sheets or isinstance(report, str):
        write(report)
    raise typer.Exit(_UNREADABLE if unreadable else _exit_code(diagnoses, fail_on or configuration.fail_on))


def load_rulebook(configuration: Configuration, rules: Sequence[Path], settings: Sequence[str]) -> Rulebook:
    """The rules in force: the configuration's, with the command line's directories and thresholds over them."""
    thresholds = dict(map(parse_setting, settings))
    try:
        return Rulebook.load(
            [*configuration.rules, *rules], {**configuration.thresholds, **thresholds}, configuration.ignore
        )
    except ConfigurationError as error:
        configured = bool(configuration.thresholds or configuration.ignore)
        places = [f"{configuration.path}"] * configured + ["--set"] * bool(settings)
        remedy = "" if "did you mean" in f"{error}" else "; see lossdoctor rules list"
        raise ConfigurationError(f"{' or '.join(places)}: {error}{remedy}") from None


def _sheets(paths: Sequence[Path], rulebook: Rulebook, page: Page) -> tuple[list[_Sheet], bool]:
    """Every run once, and whether something could not be read. No run stays in memory after its report."""
    sheets: list[_Sheet] = []
    unreadable = False
    seen: set[Path] = set()
    for path in paths:
        try:
            found = runs_at(path)
        except LogError as error:
            complain(str(error))
            unreadable = True
            continue
        for place in found:
            if place.resolve() in seen:
                continue
            seen.add(place.resolve())
            try:
                run, diagnosis = judge(place, rulebook)
            except LogError as error:
                complain(str(error))
                unreadable = True
            else:
                sheets.append(_Sheet(diagnosis, text.render(diagnosis, run, rules=rulebook.rules, page=page)))
    return sheets, unreadable


def _report(format: Format, sheets: Sequence[_Sheet], page: Page) -> str | Text:  # noqa: A002
    diagnoses = [sheet.diagnosis for sheet in sheets]
    if format == "json":
        return json.render(diagnoses)
    if format == "markdown":
        return markdown.render(diagnoses)
    return _text(sheets, page)


def _text(sheets: Sequence[_Sheet], page: Page) -> Text:
    """One run: its report. Several: a line each, then the reports of those with findings; verdicts last."""
    verdicts = Text(_verdicts([sheet.diagnosis for sheet in sheets]).rstrip("\n"))
    if len(sheets) == 1:
        return Text("\n\n").join([sheets[0].report, verdicts])
    line = Text(("─" if page.unicode else "-") * page.columns, "dim")
    parts = [text.overview([sheet.diagnosis for sheet in sheets], page=page)]
    for sheet in sheets:
        if page.verbose or _is_worth_showing(sheet.diagnosis):
            parts += [line, sheet.report]
    return Text("\n\n").join([*parts, line, verdicts])


def _is_worth_showing(diagnosis: Diagnosis) -> bool:
    return any(finding.severity != "benign" for finding in diagnosis.findings) or bool(diagnosis.warnings)


def _verdicts(diagnoses: Sequence[Diagnosis]) -> str:
    return "".join(f"{text.verdict_line(diagnosis, named=len(diagnoses) > 1)}\n" for diagnosis in diagnoses)


def _exit_code(diagnoses: Sequence[Diagnosis], fail_on: FailOn) -> int:
    if fail_on == "never":
        return 0
    grave = SEVERITIES.index(fail_on)
    return _FINDINGS if any(SEVERITIES.index(diagnosis.severity) >= grave for diagnosis in diagnoses) else 0
