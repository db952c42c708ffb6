"""Runs the tests embedded in rule files.

A test gives signals at the ticks of the rule's own clock, in promtool's notation, and says what is expected. Each test
runs twice, as one block and tick by tick, and both must agree.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossdoctor.clocks import Ticks, names_on
from lossdoctor.errors import RuleError
from lossdoctor.expressions import nearest
from lossdoctor.findings import Finding
from lossdoctor.judges import Judges
from lossdoctor.plans import GroupPlan
from lossdoctor.rulebook import Rule, RuleTest, load_rule

if TYPE_CHECKING:
    from lossdoctor.statistics import Array

__all__ = ["check_rule", "check_rules", "series"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_RAMP = re.compile(rf"^({_NUMBER})(?:([+*-])((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?))?x(\d+)$")
_MISSING = re.compile(r"^_(?:x(\d+))?$")
_EXPECTATIONS = {
    "fires_at": int,
    "silent": bool,
    "undecided": bool,
    "episode": int,
    "until": int,
    "severity": str,
    "message": str,
    "layers": list,
    "advice": str,
    "action": str,
    "arguments": dict,
}
_MAX_TICKS = 10_000


def series(text: str) -> list[float]:
    """Values in promtool's notation; missing ones are NaN. Besides a+bxn there is a*bxn, a geometric ramp.

    >>> series("2.0-0.5x3 7 _")
    [2.0, 1.5, 1.0, 0.5, 7.0, nan]
    >>> series("1*10x3 5x1")
    [1.0, 10.0, 100.0, 1000.0, 5.0, 5.0]
    """
    values: list[float] = []
    for token in text.split():
        if match := _RAMP.match(token):
            start, sign, increment, times = float(match[1]), match[2], float(match[3] or 0), _times(token, match[4])
            if sign == "*":
                values += [start * _power(increment, number) for number in range(times + 1)]
            else:
                values += [start + (-increment if sign == "-" else increment) * number for number in range(times + 1)]
        elif match := _MISSING.match(token):
            values += [math.nan] * _times(token, match[1] or "1")
        elif re.fullmatch(_NUMBER, token):
            values.append(float(token))
        else:
            raise ValueError(f"{token!r} is not a+bxn, a-bxn, a*bxn, axn, a number or _")
        if len(values) > _MAX_TICKS:
            raise ValueError(f"{token!r}: more than {_MAX_TICKS} ticks")
    return values


def _times(token: str, digits: str) -> int:
    if len(digits) > len(str(_MAX_TICKS)):
        raise ValueError(f"{token!r}: more than {_MAX_TICKS} ticks")
    return int(digits)


def _power(factor: float, number: int) -> float:
    try:
        return float(factor**number)
    except OverflowError:
        return math.inf


def check_rules(paths: Iterable[Path]) -> list[str]:
    """Check rule files and run their tests; every problem as one line, none if all is well."""
    problems: list[str] = []
    for path in paths:
        try:
            problems.extend(check_rule(load_rule(path)))
        except RuleError as error:
            problems.append(str(error))
    return problems


def check_rule(rule: Rule) -> list[str]:
    """Run the tests of one rule. A rule must have a firing, a silent and a missing-signal test."""
    problems: list[str] = []
    for kind, what in (("fires_at", "firing"), ("silent", "silent"), ("undecided", "missing-signal")):
        if not any(kind in test.expect for test in rule.tests):
            problems.append(f"{rule.path}: no {what} test (expect.{kind})")
    for test in rule.tests:
        try:
            problems.extend(f"{rule.path}: test '{test.name}': {problem}" for problem in _run(rule, test))
        except ValueError as error:
            problems.append(f"{rule.path}: test '{test.name}': {error}")
    return problems


@dataclass(frozen=True, slots=True)
class _Outcome:
    findings: list[Finding]
    fired_at: list[int]
    undecided: bool


def _run(rule: Rule, test: RuleTest) -> list[str]:
    for key, value in test.expect.items():
        if key not in _EXPECTATIONS:
            return [f"expect: unknown key '{key}'{nearest(key, _EXPECTATIONS)}"]
        if type(value) is not _EXPECTATIONS[key]:
            return [f"expect.{key}: {value!r} is not {_EXPECTATIONS[key].__name__}"]
    if not {"fires_at", "silent", "undecided"} & {*test.expect}:
        return ["expect: says neither fires_at, silent nor undecided"]
    for name in test.facts:
        if name not in rule.scope.facts:
            return [f"facts: unknown fact '{name}'{nearest(name, rule.scope.facts)}"]
    ticks = _ticks(rule, test)
    whole = _evaluate(rule, test, [ticks])
    single = _evaluate(rule, test, [_slice(ticks, row) for row in range(len(ticks))])
    if whole.findings != single.findings:
        return ["gives another result tick by tick than as one block"]
    return _compare(test, whole, ticks)


def _ticks(rule: Rule, test: RuleTest) -> Ticks:
    known = names_on(rule.clock)
    arrays: dict[str, Array] = {}
    for name, given in test.given.items():
        if name not in known:
            msg = f"given: unknown signal '{name}'{nearest(name, known)}"
            raise ValueError(msg)
        columns = [series(text) for text in ([given] if isinstance(given, str) else given)]
        if len({len(column) for column in columns}) > 1:
            msg = f"given.{name}: layers of different length"
            raise ValueError(msg)
        arrays[name] = np.array(columns[0]) if isinstance(given, str) else np.array(columns).T
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        msg = f"given: series of different length: {lengths}"
        raise ValueError(msg)
    length = next(iter(lengths.values()))
    layers = next((array.shape[1] for array in arrays.values() if array.ndim > 1), 1)
    for name in {"step", "layer_depth", *rule.signals, *rule.optional} - {*arrays}:
        arrays[name] = np.full((length, layers) if name.startswith("layer_") else length, np.nan)
    if "step" not in test.given:
        arrays["step"] = np.arange(1.0, length + 1)
    if np.isnan(arrays["step"]).any() or np.any(np.diff(arrays["step"]) <= 0):
        msg = "given.step: every tick has a step, and steps rise"
        raise ValueError(msg)
    if "layer_depth" not in test.given:
        arrays["layer_depth"] = np.tile(np.linspace(0.0, 1.0, layers), (length, 1))
    return Ticks(arrays["step"], arrays)


def _slice(ticks: Ticks, row: int) -> Ticks:
    rows = slice(row, row + 1)
    return Ticks(ticks.step[rows], {name: array[rows] for name, array in ticks.signals.items()})


def _evaluate(rule: Rule, test: RuleTest, blocks: Sequence[Ticks]) -> _Outcome:
    judges = Judges([GroupPlan.of(rule)], test.facts)
    for ticks in blocks:
        judges.observe(ticks)
    (group,) = judges.groups
    (state,) = group.states
    layers = [str(number) for number in range(1000)]
    findings = [state.finding(episode, layers) for episode in state.tracker.episodes]
    step = np.concatenate([ticks.step for ticks in blocks])
    fired_at = [int(np.flatnonzero(step == finding.detected)[0]) for finding in findings]
    return _Outcome(findings, fired_at, group.undecided(state) is not None)


def _compare(test: RuleTest, outcome: _Outcome, ticks: Ticks) -> list[str]:
    expect = test.expect
    if expect.get("undecided"):
        if outcome.findings or not outcome.undecided:
            return [f"expected undecided, but it {'fired' if outcome.findings else 'was decided'}"]
        return []
    if expect.get("silent"):
        if outcome.findings:
            return [f"expected silence, but it fired at tick {outcome.fired_at[0]}: {outcome.findings[0].message}"]
        return ["expected silence, but it was undecided"] if outcome.undecided else []
    if not outcome.findings:
        was = "undecided" if outcome.undecided else "silent"
        return [f"expected to fire at tick {expect.get('fires_at')}, but it was {was}"]
    number = expect.get("episode", 1)
    if not 1 <= number <= len(outcome.findings):
        return [f"episode: expected {number}, found {len(outcome.findings)}"]
    finding = outcome.findings[number - 1]
    found = {
        "fires_at": outcome.fired_at[number - 1],
        "until": None if finding.until is None else int(np.flatnonzero(ticks.step == finding.until)[0]),
        "severity": finding.severity,
        "layers": [int(layer) for layer in finding.layers],
    }
    problems = [
        f"{key}: expected {expect[key]}, found {value}"
        for key, value in found.items()
        if key in expect and expect[key] != value
    ]
    if "message" in expect and expect["message"] not in finding.message:
        problems.append(f"message: expected {expect['message']!r} in {finding.message!r}")
    first = finding.prescriptions[0] if finding.prescriptions else None
    if "advice" in expect and (first is None or expect["advice"] not in first.advice):
        problems.append(f"advice: expected {expect['advice']!r} in {first and first.advice!r}")
    if "action" in expect and expect["action"] not in [fix.action for fix in finding.prescriptions]:
        problems.append(f"action: expected {expect['action']!r} among {[fix.action for fix in finding.prescriptions]}")
    if "arguments" in expect:
        problems.extend(_compare_arguments(expect, finding))
    return problems


def _compare_arguments(expect: Mapping[str, Any], finding: Finding) -> list[str]:
    """Numbers that an action takes, to three digits: of the action that is expected, else of the first one."""
    acting = [fix for fix in finding.prescriptions if fix.action is not None]
    fix = next((fix for fix in acting if fix.action == expect.get("action", fix.action)), None)
    found = {} if fix is None else {name: float(f"{value:.3g}") for name, value in fix.arguments.items()}
    return [
        f"arguments.{name}: expected {value}, found {found.get(name)}"
        for name, value in expect["arguments"].items()
        if found.get(name) != value
    ]
