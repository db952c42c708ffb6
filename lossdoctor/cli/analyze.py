"""`lossdoctor analyze`: diagnose runs and report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.text import Text

from lossdoctor.analysis import runs_at
from lossdoctor.cli.baseline import Baseline
from lossdoctor.cli.many import Place, Sheet, Task, examine_all
from lossdoctor.cli.output import complain, page_for, write, write_file
from lossdoctor.cli.pictures import check_plot, page_on, write_plots
from lossdoctor.cli.remote import fetch, is_remote
from lossdoctor.configuration import Configuration, FailOn, Format, find_configuration, parse_setting
from lossdoctor.errors import ConfigurationError, LogError, UsageError, nearest
from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding
from lossdoctor.reports import json, junit, markdown, text
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook
from lossdoctor.signals import SIGNALS

__all__ = ["MapOption", "RulesOption", "SetOption", "analyze", "columns_of", "exit_code", "load_rulebook"]

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


MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="SIGNAL=COLUMN",
        help="Take this column of a log for a signal: val_loss=eval/nll. Without a column, the signal is left out. "
        "Repeatable.",
    ),
]


def analyze(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Run directories, logs, or directories of them; s3://… and others, too."),
    ],
    *,
    format: Annotated[  # noqa: A002 (the name of the option)
        Format | None, typer.Option("--format", help="How to report. Default: text.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the report here, only verdicts to stdout.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Also draw the run, as .png, .svg or .pdf; several are numbered."),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Draw the plot on dark paper.")] = False,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="Exit with 1 from this severity on. Default: error.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Accept the findings that this file lists.")
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option("--write-baseline", metavar="FILE", help="List all findings here, to be accepted.")
    ] = None,
    set_: SetOption = None,
    rules: RulesOption = None,
    map_: MapOption = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="All evidence, all layers, what each finding means, and what in a log was taken for what.",
        ),
    ] = False,
) -> None:
    """Diagnose runs: what is wrong, since when, what to do about it.

    Exit code: 0 nothing at or above --fail-on, 1 findings, 2 bad usage or unreadable input.
    """
    configuration = find_configuration()
    load = partial(load_rulebook, configuration, rules or [], set_ or [])
    format = format or configuration.format  # noqa: A001
    page = page_for(output, verbose=verbose)
    check_plot(plot)
    task = Task(load, page, columns_of(map_ or []), pictures=plot is not None or format == "html")
    known = None if baseline is None else Baseline.read(baseline)
    with TemporaryDirectory(prefix="lossdoctor-", ignore_cleanup_errors=True) as fetched:
        sheets, unreadable = _sheets(paths, Path(fetched), task)
    if known is not None:
        sheets = [_accepted(sheet, known, page) for sheet in sheets]
    diagnoses = [sheet.diagnosis for sheet in sheets]
    if write_baseline is not None:
        Baseline.of(diagnoses, write_baseline).write()
    fail_on = fail_on or configuration.fail_on
    report = page_on(sheets, load) if format == "html" else _report(format, sheets, page, fail_on)
    if plot is not None:
        write_plots(plot, sheets, dark=dark)
    if output is not None:
        write_file(output, report)
        report = _verdicts(diagnoses)
    if sheets or isinstance(report, str):
        write(report)
    raise typer.Exit(_UNREADABLE if unreadable else exit_code(diagnoses, fail_on))


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


def columns_of(settings: Sequence[str]) -> Mapping[str, str]:
    """Signals and the columns that they are in, from the command line."""
    found: dict[str, str] = {}
    for setting in settings:
        signal, equals, column = setting.partition("=")
        known = [name for name, of in SIGNALS.items() if of.source != "layer" and name != "time"]
        if not equals:
            raise UsageError(f"--map {setting}: expected SIGNAL=COLUMN, e.g. val_loss=eval/nll")
        if signal.strip() not in known:
            raise UsageError(f"--map {setting}: there is no signal '{signal}'{nearest(signal, known)}")
        found[signal.strip()] = column.strip()
    return found


def _places(paths: Sequence[str], fetched: Path) -> tuple[list[Place], bool]:
    """Every run and log once, and whether there was none somewhere. What lies elsewhere is put below `fetched`."""
    places: dict[Path, Place] = {}
    missing = False
    for number, given in enumerate(paths):
        try:
            if is_remote(given):
                into = fetched / str(number)
                into.mkdir()
                path = fetch(given, into)
            else:
                path = Path(given)
            found = runs_at(path)
        except LogError as error:
            complain(str(error))
            missing = True
            continue
        for place in found:
            name = f"{given.rstrip('/')}{str(place)[len(str(path)) :]}" if is_remote(given) else str(place)
            places.setdefault(place.resolve(), Place(place, name, searched=place != path))
    return list(places.values()), missing


def _sheets(paths: Sequence[str], fetched: Path, task: Task) -> tuple[list[Sheet], bool]:
    """What there is to say of every run, and whether something could not be read.

    Of what was only found by searching a directory, a log that holds nothing to judge is worth a warning.
    """
    sheets: list[Sheet] = []
    rulebook = task.load()
    places, unreadable = _places(paths, fetched)
    for examined in examine_all(places, task, rulebook):
        sheets += examined.sheets
        if examined.error:
            complain(examined.error, *["warning"] * examined.place.searched)
            unreadable = unreadable or not examined.place.searched
    return sheets, unreadable or (bool(places) and not sheets)


def _accepted(sheet: Sheet, known: Baseline, page: Page) -> Sheet:
    """A sheet that says which of its findings are known."""
    diagnosis = known.applied_to(sheet.diagnosis)
    if not diagnosis.accepted:
        return sheet
    lead = page.text((f"accepted ({len(diagnosis.accepted)}): ", "bold"))
    lines = page.hang(lead, f"{', '.join(diagnosis.accepted)}; known from {known.path}, not counted by --fail-on")
    return replace(sheet, diagnosis=diagnosis, report=Text("\n\n").join([sheet.report, Text("\n").join(lines)]))


def _report(format: Format, sheets: Sequence[Sheet], page: Page, fail_on: FailOn) -> str | Text:  # noqa: A002
    diagnoses = [sheet.diagnosis for sheet in sheets]
    if format == "json":
        return json.render(diagnoses)
    if format == "markdown":
        return markdown.render(diagnoses)
    if format == "junit":
        return junit.render(diagnoses, fail_on=fail_on)
    return _text(sheets, page)


def _text(sheets: Sequence[Sheet], page: Page) -> Text:
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
    return any(finding.severity != "benign" for finding in _faults(diagnosis)) or bool(diagnosis.warnings)


def _faults(diagnosis: Diagnosis) -> list[Finding]:
    """The findings without advice on the recipe, which says nothing of this run."""
    return [finding for finding in diagnosis.findings if finding.family != ADVICE]


def _verdicts(diagnoses: Sequence[Diagnosis]) -> str:
    return "".join(f"{text.verdict_line(diagnosis, named=len(diagnoses) > 1)}\n" for diagnosis in diagnoses)


def exit_code(diagnoses: Sequence[Diagnosis], fail_on: FailOn) -> int:
    """1 if a finding that is not accepted is as grave as `fail_on`, else 0."""
    if fail_on == "never":
        return 0
    grave = SEVERITIES.index(fail_on)
    severities = [
        finding.severity
        for diagnosis in diagnoses
        for finding in _faults(diagnosis)
        if finding.rule not in diagnosis.accepted
    ]
    return _FINDINGS if any(SEVERITIES.index(severity) >= grave for severity in severities) else 0
