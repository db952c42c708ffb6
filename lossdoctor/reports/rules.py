"""Rules for readers: the list of all, and the card that explains one."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from lossdoctor.accuracy import Accuracy
from lossdoctor.clocks import recorded
from lossdoctor.reports.finding import STYLES
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import compact, number
from lossdoctor.signals import FACTS, SIGNALS

if TYPE_CHECKING:
    from lossdoctor.rulebook import Fix, Rule

__all__ = ["card", "catalogue", "markdown_table", "table"]

_COLUMNS = ("id", "severity", "family", "clock", "title")
_MEASURED = ("found", "named", "false alarms")
_NOTHING = Accuracy()


def catalogue(rules: Iterable["Rule"], accuracy: Accuracy = _NOTHING) -> list[dict[str, Any]]:
    """What is known about each rule, as plain data for JSON; `measured` is null where nothing was measured."""
    return [
        {
            "id": rule.id,
            "title": rule.title,
            "severity": rule.severity,
            "category": rule.category,
            "family": rule.family,
            "clock": rule.clock,
            "signals": sorted(rule.signals),
            "optional_signals": sorted(rule.optional),
            "thresholds": dict(rule.thresholds),
            "explains": list(rule.explains),
            "explain": compact(rule.explain),
            "fixes": [
                {"advice": fix.advice, "action": fix.action, "applicability": fix.applicability} for fix in _fixes(rule)
            ],
            "sources": list(rule.sources),
            "measured": msgspec.to_builtins(accuracy.rules.get(rule.id)),
        }
        for rule in rules
    ]


def table(rules: Sequence["Rule"], page: Page) -> Text:
    """One line a rule, in columns."""
    rows = [tuple(page.show(getattr(rule, column)) for column in _COLUMNS) for rule in rules]
    widths = [max(len(row[column]) for row in (_COLUMNS, *rows)) + 2 for column in range(len(_COLUMNS))]
    lines = [Text("".join(f"{name:<{width}}" for name, width in zip(_COLUMNS, widths, strict=True)).rstrip(), "dim")]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        line = Text().append(cells[0], "bold").append(cells[1], STYLES[row[1]]).append("".join(cells[2:4]))
        lines += page.hang(line, row[-1])
    return Text("\n").join(lines)


def markdown_table(rules: Sequence["Rule"], accuracy: Accuracy = _NOTHING) -> str:
    """The list as a Markdown table, for documentation that is generated instead of kept up by hand.

    Where `accuracy` knows of the rules, columns say in how many of the trainings with its fault a rule found it, in how
    many it named it as the cause, and on how many healthy trainings it raised an alarm.
    """
    columns = (*_COLUMNS, *(_MEASURED if accuracy.rules else ()))
    rows = [
        (
            *(f"`{rule.id}`", rule.severity, rule.family, rule.clock, compact(rule.title).replace("|", "\\|")),
            *(_figures(rule.id, accuracy) if accuracy.rules else ()),
        )
        for rule in rules
    ]
    lines = ["| " + " | ".join(row) + " |" for row in (columns, ("---",) * len(columns), *rows)]
    return "\n".join(lines) + "\n"


def _figures(rule: str, accuracy: Accuracy) -> tuple[str, ...]:
    """The cells of `_MEASURED`; empty where nothing was measured."""
    if (measured := accuracy.rules.get(rule)) is None:
        return ("",) * len(_MEASURED)
    of_runs = tuple(
        f"{count} of {measured.runs}" if measured.runs else "" for count in (measured.found, measured.right)
    )
    return *of_runs, f"{measured.false_alarms} of {accuracy.healthy}"


def card(rule: "Rule", page: Page, *, source: str = "", accuracy: Accuracy = _NOTHING) -> Text:
    """Everything about one rule: meaning, condition, thresholds, signals, fixes, figures, sources.

    `source` is the text of the rule's file, whose comments say where its thresholds come from. `accuracy` is how often
    the rules were right.
    """
    lines = [
        page.text((rule.id, "bold"), ": ", (rule.title, "bold")),
        *page.hang(Text(), f"{rule.severity}, {rule.family}, judged on the {rule.clock} clock", "dim"),
    ]
    for paragraph in rule.explain.strip().split("\n\n"):
        lines += [Text(), *page.hang(Text(), compact(paragraph))]
    for title, part in (
        ("fires when", _condition(rule, page)),
        ("thresholds", _thresholds(rule, source, page)),
        ("signals it needs", page.table([(name, _meaning(name)) for name in sorted(rule.signals)])),
        ("signals it uses where they are recorded", page.table([(n, _meaning(n)) for n in sorted(rule.optional)])),
        ("what helps", [line for fix in _fixes(rule) for line in _fix(fix, page)]),
        ("explains", page.hang(Text("  "), ", ".join(rule.explains))),
        ("measured", _measured(rule.id, accuracy, page)),
        ("sources", [line for source in rule.sources for line in page.hang(Text("  - "), source)]),
    ):
        if part and any(line.plain.strip() for line in part):
            lines += [Text(), page.text((f"{title}:", "bold")), *part]
    if rule.thresholds:
        first = next(iter(rule.thresholds))
        lines += [
            Text(),
            *page.hang(
                page.text(("change a threshold: ", "dim")), f"--set {rule.id}.{first}=X, or lossdoctor.toml", "dim"
            ),
        ]
    return Text("\n").join([*lines, *page.hang(page.text(("read from: ", "dim")), rule.path, "dim")])


def _measured(rule: str, accuracy: Accuracy, page: Page) -> list[Text]:
    """How often the rule was right, and by whom and when that was found."""
    if (measured := accuracy.rules.get(rule)) is None:
        return []
    trainings = accuracy.healthy + accuracy.faulty
    by = f"lossdoctor {accuracy.version}, {accuracy.measured}, {trainings} trainings, default thresholds"
    return [*page.hang(Text("  "), measured.sentence(accuracy.healthy)), *page.hang(Text("  "), f"({by})", "dim")]


def _condition(rule: "Rule", page: Page) -> list[Text]:
    patience = f", {rule.patience} ticks in a row" if rule.patience > 1 else ""
    lines = page.hang(Text("  "), rule.when + patience)
    if rule.error_when:
        lines += page.hang(page.text(("  error when ", "dim")), rule.error_when)
    if rule.measures:
        lines += page.table([(f"  {name}", f"= {text}") for name, text in rule.measures.items()])
    return lines


def _thresholds(rule: "Rule", source: str, page: Page) -> list[Text]:
    """Name, value in force, the file's value where the user has another, and the file's comment."""
    comments = _comments(source)
    defaults = tomllib.loads(source).get("thresholds", {}) if source else {}
    values = {
        name: number(value) + (f" (default {number(defaults[name])})" if defaults.get(name, value) != value else "")
        for name, value in rule.thresholds.items()
    }
    name_width, value_width = max(map(len, values), default=0), max(map(len, values.values()), default=0)
    rows = [(f"{name:<{name_width}}  {value:<{value_width}}", comments.get(name, "")) for name, value in values.items()]
    return page.table(rows)


def _comments(source: str) -> Mapping[str, str]:
    r"""What the comments in a rule file's [thresholds] say, by threshold; a comment may go on in the next lines.

    >>> _comments("[thresholds]\nmax_lost = 0.1  # share of progress;\n  # healthy: 0.012\nwindow = 3\n[measures]")
    {'max_lost': 'share of progress; healthy: 0.012'}
    """
    comments: dict[str, str] = {}
    inside, name = False, ""
    for line in source.splitlines():
        if table := re.match(r"^\s*\[([^\[\]]+)\]", line):
            inside, name = table[1].strip() == "thresholds", ""
        elif inside and (match := re.match(r"^\s*(\w+)\s*=[^#]*(?:#\s*(.*))?$", line)):
            name = match[1]
            if match[2]:
                comments[name] = match[2].strip()
        elif name in comments and (match := re.match(r"^\s*#\s*(.*)$", line)):
            comments[name] += f" {match[1].strip()}"
    return comments


def _meaning(name: str) -> str:
    """What a signal, a companion of one, or a fact is."""
    if name in SIGNALS:
        return SIGNALS[name].meaning
    if name in FACTS:
        return FACTS[name].meaning
    column = recorded(name)
    if column not in SIGNALS:
        return ""
    if name.endswith("_non_finite"):
        return f"how many values of {column} were NaN or infinite"
    return f"{name.removesuffix(column).strip('_')} of {column} over a tick ({SIGNALS[column].meaning})"


def _fixes(rule: "Rule") -> list["Fix"]:
    """All fixes, those of variants too, each piece of advice once."""
    fixes = [*rule.fixes, *(fix for variant in rule.variants for fix in variant.fixes)]
    return list({fix.advice: fix for fix in reversed(fixes)}.values())[::-1]


def _fix(fix: "Fix", page: Page) -> list[Text]:
    by = f"{fix.action}: " if fix.action else ""
    return page.hang(Text("  - "), f"{_template(fix.advice)} [{by}{fix.applicability}]")


def _template(text: str) -> str:
    """A rule's text with its numbers still open, for people.

    >>> _template("lr {lr:.3g} after {n:d} steps")
    'lr <lr> after <n> steps'
    """
    return re.sub(r"\{(\w+)(?::[^{}]*)?\}", r"<\1>", text)
