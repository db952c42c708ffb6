"""The tests inside rules notice when a rule is changed: a threshold moved by a factor of 3, a comparison negated.

What they do not notice may show on the sample runs, and on the recorded corpus where there is one, on which the changed
rule then fires otherwise than before.
"""

import ast
from functools import cache
from pathlib import Path

import msgspec
import pytest

from lossdoctor.diagnosis import diagnose
from lossdoctor.errors import RuleError
from lossdoctor.rulebook import Rule, Rulebook, _checked, load_rule, rules_directory
from lossdoctor.rulecheck import check_rule
from lossdoctor.runs import find_runs, read_run

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "build" / "corpus"
RULES = sorted(rules_directory().glob("*.toml"))
FACTOR = 3


def negations(when):
    """The condition with one comparison negated, for each of its comparisons."""
    for place in range(len(comparisons(ast.parse(when, mode="eval")))):
        tree = ast.parse(when, mode="eval")
        chosen = comparisons(tree)[place]
        yield ast.unparse(Negate(chosen).visit(tree)), ast.unparse(chosen)


def comparisons(tree):
    """Those that compare something: 0 > 1 is how a rule says no."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and any(isinstance(part, ast.Name) for part in ast.walk(node))
    ]


class Negate(ast.NodeTransformer):
    """Puts `not` before one node."""

    def __init__(self, chosen):
        self.chosen = chosen

    def visit(self, node):
        return ast.UnaryOp(ast.Not(), node) if node is self.chosen else super().visit(node)


def moved(value):
    """A threshold three times as large and a third of it; counts stay counts."""
    for other in (value * FACTOR, value / FACTOR):
        rounded = max(1.0, round(other)) if float(value).is_integer() and abs(value) >= FACTOR else other
        if rounded != value:
            yield rounded


def mutants(path):
    """Of each threshold and each comparison the changed rules, by what was changed; those that load."""
    rule = load_rule(path)
    groups: dict[str, list[Rule]] = {}
    for name, value in rule.thresholds.items():
        for other in moved(value):
            with_it = _loaded(lambda name=name, other=other: load_rule(path, {name: other}))
            groups.setdefault(name, []).extend(with_it)
    for when, comparison in negations(rule.when):
        changed = _loaded(lambda when=when: _checked(msgspec.structs.replace(rule, when=when)))
        groups.setdefault(f"not {comparison}", []).extend(changed)
    return {what: rules for what, rules in groups.items() if rules}


def _loaded(make):
    try:
        return [make()]
    except RuleError:  # more operations than a rule may ask for, say
        return []


@cache
def recordings():
    """The sample runs, and the trainings of the corpus where it was recorded, by their names."""
    corpus = find_runs(CORPUS) if CORPUS.is_dir() else []
    return {path: read_run(path) for path in [*find_runs(ROOT / "sample_runs"), *corpus]}


def fires_on(rule):
    """When and how gravely the rule fires on the sample runs, and on trainings that are healthy or have its fault."""
    alone = Rulebook({rule.id: rule}, {rule.id: frozenset()})
    return [
        [(found.severity, found.since) for found in diagnose(run, alone).findings]
        for path, run in recordings().items()
        if path.parent != CORPUS or path.name.startswith(("healthy", rule.id))
    ]


def unnoticed(path):
    """What can be changed in a rule, in every direction, without any test noticing."""
    original = None
    for what, changed in mutants(path).items():
        if any(check_rule(mutant) for mutant in changed):
            continue
        original = fires_on(load_rule(path)) if original is None else original
        if all(fires_on(mutant) == original for mutant in changed):
            yield what


def test_a_negated_comparison_is_another_condition():
    assert [text for text, _ in negations("a > 1 and (b < 2 or not c > 3)")] == [
        "not a > 1 and (b < 2 or not c > 3)",
        "a > 1 and (not b < 2 or not c > 3)",
        "a > 1 and (b < 2 or not not c > 3)",
    ]
    assert not list(negations("0 > 1"))


def test_a_moved_threshold_stays_a_count_where_it_was_one():
    assert list(moved(20.0)) == [60, 7]
    assert list(moved(0.3)) == [pytest.approx(0.9), pytest.approx(0.1)]
    assert not list(moved(0.0))


@pytest.mark.slow
def test_nine_of_ten_rules_notice_every_change(record_property):
    found = {path.stem: list(unnoticed(path)) for path in RULES}
    silent = {rule: changes for rule, changes in found.items() if changes}
    record_property("unnoticed", silent)
    share = 1 - len(silent) / len(found)
    assert share >= 0.9, "\n".join(f"{rule}: {', '.join(changes)}" for rule, changes in silent.items())
