"""`lossdoctor rules`: what the doctor knows, why it thinks so, and whether its rules keep their promises."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from lossdoctor.accuracy import Accuracy, load_accuracy
from lossdoctor.cli.analyze import RulesOption, load_rulebook
from lossdoctor.cli.output import page_for, write
from lossdoctor.configuration import find_configuration
from lossdoctor.errors import RuleError, UsageError
from lossdoctor.expressions import nearest
from lossdoctor.reports import rules as sheets
from lossdoctor.rulebook import load_rule, rules_directory
from lossdoctor.rulecheck import check_rules

__all__ = ["rules"]

_FAILURES = 1

rules = typer.Typer(name="rules", help="List, explain and check rules.", no_args_is_help=False)


@rules.command("list")
def list_(
    *,
    format: Annotated[  # noqa: A002 (the name of the option)
        Literal["text", "json", "markdown"], typer.Option("--format", help="How to list them.")
    ] = "text",
    directories: RulesOption = None,
) -> None:
    """List all rules: id, severity, family, clock, title."""
    configuration = find_configuration()
    known = list(load_rulebook(configuration, directories or [], []).rules.values())
    accuracy = _measured([*configuration.rules, *(directories or [])])
    if format == "json":
        write(json.dumps(sheets.catalogue(known, accuracy), indent=2) + "\n")
    elif format == "markdown":
        write(sheets.markdown_table(known, accuracy))
    else:
        write(sheets.table(known, page_for(None)))


@rules.command("explain")
def explain(
    rule: Annotated[str, typer.Argument(metavar="ID", help="The rule's id, e.g. overfitting.")],
    *,
    directories: RulesOption = None,
) -> None:
    """Explain a rule: what it means, its thresholds, the signals it needs, what helps, the sources."""
    configuration = find_configuration()
    known = load_rulebook(configuration, directories or [], []).rules
    if rule not in known:
        hint = nearest(rule, known) or "; lossdoctor rules list shows them all"
        raise UsageError(f"unknown rule '{rule}'{hint}")
    files = [place / f"{rule}.toml" for place in (rules_directory(), *configuration.rules, *(directories or []))]
    source = next(file for file in reversed(files) if file.is_file()).read_text(encoding="utf-8")
    accuracy = _measured([*configuration.rules, *(directories or [])])
    write(sheets.card(known[rule], page_for(None), source=source, accuracy=accuracy))


@rules.command("check")
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="Rule files; default: lossdoctor's own.")
    ] = None,
) -> None:
    """Run the tests inside rule files. Exit code: 0 all pass, 1 failures, 2 a file cannot be read."""
    paths = _rule_files(files or [rules_directory()])
    problems = check_rules(paths)
    for problem in problems:
        write(" ".join(problem.split()) + "\n")
    verdict = _count(len(problems), "problem") if problems else "all pass"
    write(f"lossdoctor: {_count(len(paths), 'rule file')}, {_count(_count_tests(paths), 'test')}: {verdict}\n")
    raise typer.Exit(_FAILURES if problems else 0)


def _measured(own: Sequence[Path]) -> Accuracy:
    """What was measured of the rules in force: of those that come with lossdoctor, not of the user's `own`."""
    accuracy = load_accuracy()
    replaced = {file.stem for place in own for file in place.glob("*.toml")}
    rules = {rule: measured for rule, measured in accuracy.rules.items() if rule not in replaced}
    return msgspec.structs.replace(accuracy, rules=rules)


def _rule_files(places: Sequence[Path]) -> list[Path]:
    """The files named, and those in the directories named."""
    files: list[Path] = []
    for place in places:
        if not place.exists():
            raise UsageError(f"{place}: no such file or directory")
        files += sorted(place.glob("*.toml")) if place.is_dir() else [place]
    if not files:
        raise UsageError(f"{places[0]}: no rule files (*.toml) here")
    return files


def _count_tests(paths: Sequence[Path]) -> int:
    count = 0
    for path in paths:
        try:
            count += len(load_rule(path).tests)
        except RuleError:  # already among the problems
            continue
    return count


def _count(number_of: int, thing: str) -> str:
    return f"{number_of} {thing}{'' if number_of == 1 else 's'}"
