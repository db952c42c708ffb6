"""Figures where they are shipped and shown: rules/accuracy.json, and the tables of docs/benchmarks.md."""

import datetime as dt
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

import lossdoctor
from benchmarks.accuracy.corpus import Judged
from benchmarks.accuracy.figures import figures
from lossdoctor.accuracy import Accuracy, Measured

__all__ = ["accuracy", "write_docs", "write_figures"]

_ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"(<!-- accuracy: begin .*?-->\n).*(<!-- accuracy: end -->)", re.DOTALL)


def accuracy(judged: Sequence[Judged]) -> Accuracy:
    """What was measured, an entry for every rule in force."""
    healthy = [one for one in judged if one.recipe.healthy]
    return Accuracy(
        version=lossdoctor.__version__,
        measured=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        healthy=len(healthy),
        faulty=len(judged) - len(healthy),
        rules={rule: _measured(rule, judged) for rule in sorted(judged[0].rulebook.rules)},
    )


def _measured(rule: str, judged: Sequence[Judged]) -> Measured:
    of_it = [one for one in judged if one.cause == rule]
    delay = figures(of_it).delay
    return Measured(
        runs=len(of_it),
        found=sum(one.found for one in of_it),
        right=sum(one.right for one in of_it),
        false_alarms=sum(rule in one.strays for one in judged if one.recipe.healthy),
        strays=sum(rule in one.strays for one in judged if not one.recipe.healthy),
        delay=delay,
    )


def write_figures(judged: Sequence[Judged]) -> None:
    """Write rules/accuracy.json."""
    text = msgspec.json.format(msgspec.json.encode(accuracy(judged)), indent=1).decode()
    # A rule a line: a change of one is seen at once.
    compact = re.sub(
        r"\{\n\s+(\"runs\".*?)\n\s+\}", lambda found: "{" + re.sub(r"\n\s+", " ", found[1]) + "}", text, flags=re.DOTALL
    )
    (_ROOT / "rules" / "accuracy.json").write_text(compact + "\n", encoding="utf-8")


def write_docs(tables: str) -> None:
    """Put the tables into docs/benchmarks.md."""
    document = _ROOT / "docs" / "benchmarks.md"
    text = document.read_text(encoding="utf-8")
    document.write_text(_MARKED.sub(lambda found: f"{found[1]}{tables}{found[2]}", text), encoding="utf-8")
