"""Rules: what lossdoctor believes about training. One TOML file per pathology, loaded and validated here.

A rule names signals, thresholds and measures, says when it fires, what that means, what to do about it, and carries its
own tests. Everything wrong with a file is found when it is loaded: `rules/x.toml: where: what; did you mean 'y'?`
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from lossdoctor.errors import ConfigurationError, RuleError, nearest
from lossdoctor.expressions import Graph, Scope
from lossdoctor.naming import LISTS
from lossdoctor.rule import ACTIONS, OPTIONAL, Fix, Rule, RuleTest, Variant, Verify
from lossdoctor.templates import fill, names_in

__all__ = [
    "ACTIONS",
    "Fix",
    "Rule",
    "RuleTest",
    "Rulebook",
    "Variant",
    "Verify",
    "fill",
    "load_rule",
    "names_in",
    "rules_directory",
]

_ID = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_BYTES = 200_000
_MAX_COST = 10_000
"""Operations per tick, each with the ticks it looks back at: a rule that asks for more would be slow on long runs."""
_DERIVED = ("path", "signals", "optional", "facts")


def rules_directory() -> Path:
    """Where the rules that come with lossdoctor lie: in the package of a wheel, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "rules"
    return inside if inside.is_dir() else package.parent / "rules"


def load_rule(path: Path, overrides: Mapping[str, float] = MappingProxyType({})) -> Rule:
    """Read and validate one rule file; `overrides` replace some of its thresholds.

    Raises RuleError naming file, place and, where there is one, the likely meaning; ConfigurationError for a threshold
    that the rule does not have.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > _MAX_BYTES:
            msg = f"{where}: larger than {_MAX_BYTES} bytes; a rule file is a page of text"
            raise RuleError(msg)
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{where}: cannot be read: {error.strerror}"
        raise RuleError(msg) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number with thousands of digits
        msg = f"{where}: not TOML: {error}"
        raise RuleError(msg) from None
    try:
        for name in _DERIVED:
            if name in data:
                msg = f"Object contains unknown field `{name}`"
                raise msgspec.ValidationError(msg)  # noqa: TRY301 - the same message as for any other unknown field
        rule = msgspec.convert(data, Rule)
    except msgspec.ValidationError as error:
        raise RuleError(f"{where}: {_readable(str(error))}") from None
    if not _ID.fullmatch(rule.id) or rule.id != path.stem:
        msg = f"{where}: id: is '{rule.id}', but the file name makes it '{path.stem}'"
        raise RuleError(msg)
    for name in overrides:
        if name not in rule.thresholds:
            hint = nearest(name, rule.thresholds) or f" (it has {', '.join(rule.thresholds) or 'no thresholds'})"
            raise ConfigurationError(f"rule '{rule.id}' has no threshold '{name}'{hint}")
    return _checked(msgspec.structs.replace(rule, path=where, thresholds={**rule.thresholds, **overrides}))


def _readable(error: str) -> str:
    message, _, place = error.partition(" - at `$")
    field = re.search(r"unknown field `(.+)`", message)
    fields = (*Rule.__struct_fields__, *Fix.__struct_fields__, *RuleTest.__struct_fields__)
    hint = nearest(field[1], fields) if field else ""
    place = place.strip("`.")
    return f"{place + ': ' if place else ''}{message}{hint}"


def _checked(rule: Rule) -> Rule:
    """Compile everything once, so that nothing can fail later, and note which signals the rule needs."""
    where, scope, thresholds = rule.path, rule.scope, rule.thresholds
    _check_names(rule, scope)
    graph = Graph()
    when = graph.add(rule.when, scope, "when")
    if not graph.is_condition(when):
        raise RuleError(f"{where}: when: is a number, not a condition; compare it with something")
    nodes = [graph.add(name, scope, f"measures.{name}") for name in rule.measures]
    for part, text in _expressions(rule):
        node = graph.add(text, scope, part)
        nodes.append(node)
        if part.endswith("when") and not graph.is_condition(node):
            raise RuleError(f"{where}: {part}: is a number, not a condition; compare it with something")
        if part == "applies_when" and graph.uses(node):
            raise RuleError(f"{where}: {part}: may use facts of the run only, not {', '.join(graph.uses(node))}")
    if graph.cost > _MAX_COST:
        raise RuleError(f"{where}: about {graph.cost} operations a tick, more than {_MAX_COST}; use shorter windows")
    known = dict.fromkeys([*thresholds, *rule.measures], 1.0)
    for fix in (*rule.fixes, *(fix for variant in rule.variants for fix in variant.fixes)):
        _check_fix(where, fix)
        fill(fix.advice, known | dict.fromkeys(fix.arguments, 1.0), where)
    for message in (rule.message, *(variant.message for variant in rule.variants)):
        fill(message, known, where)
    for part, named in (("peak", rule.peak), ("at_layer", rule.at_layer), ("at_step", rule.at_step)):
        if named is not None and named not in rule.measures:
            raise RuleError(f"{where}: {part}: unknown measure '{named}'{nearest(named, rule.measures)}")
    if rule.patience < 1:
        raise RuleError(f"{where}: patience: must be 1 or more")
    free = {"step", "layer_depth"}
    signals = graph.signals(when) - free
    optional = graph.uses(when, *nodes) - signals - free
    if graph.is_layered(when) != (rule.each == "layer"):
        said = "has one answer for all layers" if rule.each else "has an answer for each layer"
        raise RuleError(f'{where}: when: {said}; {"remove" if rule.each else "write"} each = "layer"')
    return msgspec.structs.replace(rule, signals=signals, optional=optional, facts=graph.facts(when))


def _check_names(rule: Rule, scope: Scope) -> None:
    for name in (*rule.thresholds, *rule.measures):
        if not name.isidentifier() or name in scope.signals or name in scope.facts:
            raise RuleError(f"{rule.path}: '{name}' is no usable name, or one that a signal or fact has already")
    for name, value in rule.thresholds.items():
        if math.isnan(value):
            raise RuleError(f"{rule.path}: thresholds.{name}: is not a number")
    for name in rule.names:
        if name not in LISTS:
            raise RuleError(f"{rule.path}: names: run.json has no list '{name}'{nearest(name, LISTS)}")
    if both := {*rule.thresholds} & {*rule.measures}:
        raise RuleError(f"{rule.path}: '{min(both)}' is both a threshold and a measure")


def _check_fix(where: str, fix: Fix) -> None:
    if fix.verify is not None and fix.verify.within < 1:
        raise RuleError(f"{where}: fixes: verify.within: must be 1 or more: {fix.advice!r}")
    if fix.action is None:
        if fix.applicability == "safe":
            raise RuleError(f"{where}: fixes: a fix without an action cannot be safe to apply: {fix.advice!r}")
        return
    if fix.action not in ACTIONS:
        raise RuleError(f"{where}: fixes: unknown action '{fix.action}'{nearest(fix.action, ACTIONS)}")
    takes, given = {*ACTIONS[fix.action]}, {*fix.arguments}
    if not takes - OPTIONAL.get(fix.action, frozenset()) <= given <= takes:
        raise RuleError(f"{where}: fixes: {fix.action} takes {', '.join(ACTIONS[fix.action]) or 'no arguments'}")


def _expressions(rule: Rule) -> Iterable[tuple[str, str]]:
    """Every expression of a rule besides `when` and the measures, with its place."""
    if rule.applies_when is not None:
        yield "applies_when", rule.applies_when
    if rule.error_when is not None:
        yield "error_when", rule.error_when
    for number, variant in enumerate(rule.variants):
        yield f"variants[{number}].when", variant.when
    groups: Sequence[tuple[str, Sequence[Fix]]] = [("fixes", rule.fixes)]
    groups = [*groups, *((f"variants[{number}].fixes", variant.fixes) for number, variant in enumerate(rule.variants))]
    for place, fixes in groups:
        for number, fix in enumerate(fixes):
            for name, text in fix.arguments.items():
                yield f"{place}[{number}].arguments.{name}", text
            if fix.when is not None:
                yield f"{place}[{number}].when", fix.when
            if fix.verify is not None:
                yield f"{place}[{number}].verify.when", fix.verify.when


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Rulebook:
    """All rules in force, by id, in alphabetical order; `explanations` maps a rule to all it explains, transitively."""

    rules: Mapping[str, Rule]
    explanations: Mapping[str, frozenset[str]]

    @staticmethod
    def load(
        extra_dirs: Iterable[Path] = (),
        thresholds: Mapping[str, float] = MappingProxyType({}),
        ignore: Iterable[str] = (),
    ) -> "Rulebook":
        """The rules that come with lossdoctor and those in `extra_dirs` (a later file with the same id wins).

        `thresholds` maps "rule.threshold" to a new value; `ignore` lists ids to leave out. Raises RuleError for a file
        that is wrong and ConfigurationError for a rule or threshold that does not exist.
        """
        paths: dict[str, Path] = {}
        for directory in (rules_directory(), *map(Path, extra_dirs)):
            if not directory.is_dir():
                raise RuleError(f"{directory}: no such directory of rules")
            paths |= {path.stem: path for path in sorted(directory.glob("*.toml"))}
        overrides = _overrides(thresholds, paths)
        for name in dict.fromkeys(ignore):
            if name not in paths:
                raise ConfigurationError(f"ignore: unknown rule '{name}'{nearest(name, paths)}")
            del paths[name]
        rules = {name: load_rule(paths[name], overrides.get(name, {})) for name in sorted(paths)}
        return Rulebook(MappingProxyType(rules), MappingProxyType(_explanations(rules)))


def _overrides(thresholds: Mapping[str, float], known: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    overrides: dict[str, dict[str, float]] = {}
    for key, value in thresholds.items():
        rule, dot, threshold = key.partition(".")
        if not dot or not threshold:
            raise ConfigurationError(f"'{key}' is not RULE.THRESHOLD, e.g. overfitting.max_lost")
        if rule not in known:
            raise ConfigurationError(f"unknown rule '{rule}'{nearest(rule, known)}")
        overrides.setdefault(rule, {})[threshold] = float(value)
    return overrides


def _explanations(rules: Mapping[str, Rule]) -> dict[str, frozenset[str]]:
    """What each rule explains, directly or through others. Raises RuleError on a cycle; unknown ids are ignored."""
    done: dict[str, frozenset[str]] = {}

    def visit(name: str, trail: tuple[str, ...]) -> frozenset[str]:
        if name in trail:
            raise RuleError(f"{rules[name].path}: explains: {' explains '.join((*trail, name))}: a cycle")
        if name not in done:
            direct = [other for other in rules[name].explains if other in rules]
            done[name] = frozenset(direct).union(*(visit(other, (*trail, name)) for other in direct))
        return done[name]

    for name in rules:
        visit(name, ())
    return done
