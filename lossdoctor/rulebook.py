"""Rules: what lossdoctor believes about training. One TOML file per pathology, loaded and validated here.

A rule names signals, thresholds and measures, says when it fires, what that means, what to do about it, and carries its
own tests. Everything wrong with a file is found when it is loaded: `rules/x.toml: where: what; did you mean 'y'?`
"""

import math
import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from lossdoctor.clocks import names_on
from lossdoctor.errors import ConfigurationError, RuleError
from lossdoctor.expressions import Graph, Scope, nearest
from lossdoctor.findings import Applicability, Category, Severity
from lossdoctor.signals import FACTS, Clock

__all__ = [
    "ACTIONS",
    "Fix",
    "Rule",
    "RuleTest",
    "Rulebook",
    "Variant",
    "Verify",
    "applies",
    "fill",
    "load_rule",
    "names_in",
    "rules_directory",
]

ACTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "scale_lr": ("factor",),
        "scale_weight_decay": ("factor",),
        "tighten_clipping": ("max_norm",),
        "skip_step": (),
        "rewind": ("before",),
        "early_stop": ("to_step",),
        "lower_loss_scale": ("factor",),
    }
)
"""What can be done to a running training, with the numbers each action takes."""

_OPTIONAL = frozenset({"before"})
"""Numbers that may be left out: a rewind without `before` goes back to before the finding's `since`."""

_SPEC = re.compile(r"\+?(d|(\.\d{1,2})?[%gfe]?)")
_ID = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_BYTES = 200_000
_MAX_COST = 10_000
"""Operations per tick, each with the ticks it looks back at: a rule that asks for more would be slow on long runs."""
_WHOLE_BELOW = 1e15
"""Larger numbers are written with an exponent, even when they are whole."""
_COUNTED = frozenset({"steps", "evaluations"})
"""What is counted rather than recorded: facts of rules on the run clock."""


class Verify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which condition a fix counts as a success, and within how many ticks of the rule's clock."""

    when: str
    within: int


class Fix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do about a pathology.

    `when` limits it to some runs; `arguments` are expressions over the rule's measures. A fix whose numbers are not
    known is not offered.
    """

    advice: str
    action: str | None = None
    applicability: Applicability = "manual"
    when: str | None = None
    arguments: dict[str, str] = {}
    verify: Verify | None = None


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A special case of a pathology: the first whose condition holds gives the message, and fixes if it has any."""

    when: str
    message: str
    fixes: list[Fix] = []


class RuleTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test inside a rule file: signals in promtool's notation, and what is expected of them.

    `given` maps a signal to "a+bxn" notation, or to a list of those, one for each layer; `facts` are facts of the run.
    `expect` has one of `fires_at` (the 0-based tick that completes the streak), `silent`, `undecided`; with fires_at
    also `until` (tick), `severity`, `message` (a part of it), `layers` (numbers), `advice` (a part of the first fix).
    """

    name: str
    given: dict[str, str | list[str]]
    expect: dict[str, Any]
    facts: dict[str, float] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pathology, as its file says it.

    `peak` names the measure whose highest value tells how bad an episode became (and which layer is worst). `evidence`
    is the signal to draw beside a finding. `applies_when` is a condition on facts of the run: where it is known to be false
    the rule has nothing to say, and is neither passed nor undecided. Without a decision on every `vital` rule a run is not called healthy.
    """

    id: str
    title: str
    family: Literal["numerics", "stability", "learning", "generalization", "throughput", "recipe", "benign"]
    category: Category
    severity: Severity
    kind: Literal["state", "event"]
    clock: Clock
    when: str
    message: str
    explain: str
    sources: list[str]
    each: Literal["layer"] | None = None
    applies_when: str | None = None
    error_when: str | None = None
    peak: str | None = None
    evidence: str | None = None
    patience: int = 1
    vital: bool = False
    explains: list[str] = []
    thresholds: dict[str, float] = {}
    measures: dict[str, str] = {}
    variants: list[Variant] = []
    fixes: list[Fix] = []
    tests: list[RuleTest] = []

    # Known once the file was checked; a file may not set them.
    path: str = ""
    signals: frozenset[str] = frozenset()
    """The names `when` depends on: the rule ticks where all of them were observed."""
    optional: frozenset[str] = frozenset()
    """Names that only messages, variants and fixes use."""
    facts: frozenset[str] = frozenset()
    """Facts of the run `when` depends on."""

    @property
    def scope(self) -> Scope:
        """The names its expressions may use."""
        return Scope(
            where=self.path,
            signals=names_on(self.clock),
            facts=frozenset(FACTS) | (_COUNTED if self.clock == "run" else frozenset()),
            constants=self.thresholds,
            measures=self.measures,
        )


_DERIVED = ("path", "signals", "optional", "facts")


def rules_directory() -> Path:
    """Where the rules that come with lossdoctor lie: in the package of a wheel, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "rules"
    return inside if inside.is_dir() else package.parent / "rules"


def fill(template: str, values: Mapping[str, float], where: str) -> str:
    """The template with {name} and {name:spec} replaced by numbers; the only specs are like .2%, .3g, +.1f and d.

    >>> fill("lr {lr:.3g} after {n:d} steps", {"lr": 0.00123, "n": 41.0}, "")
    'lr 0.00123 after 41 steps'
    """
    parts: list[str] = []
    for literal, name, spec in _fields(template, where):
        parts.append(literal)
        if name is not None:
            if name not in values:
                msg = f"{where}: unknown name '{name}' in {template!r}{nearest(name, values)}"
                raise RuleError(msg)
            value = values[name]
            whole = math.isfinite(value) and (
                spec.endswith("d") or (not spec and abs(value) < _WHOLE_BELOW and value == int(value))
            )
            parts.append(format(int(value), spec) if whole else format(value, spec.replace("d", "") or ".4g"))
    return "".join(parts)


def names_in(template: str) -> set[str]:
    """The names a template is to be filled with."""
    return {name for _, name, _ in _fields(template, template) if name is not None}


def _fields(template: str, where: str) -> list[tuple[str, str | None, str]]:
    found: list[tuple[str, str | None, str]] = []
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        msg = f"{where}: {template!r}: {error}"
        raise RuleError(msg) from None
    for literal, name, spec, conversion in pieces:
        if name is not None and (not name.isidentifier() or conversion or not _SPEC.fullmatch(spec or "")):
            msg = f"{where}: only {{name}} and {{name:spec}} with specs like .2%, .3g, +.1f, d: {template!r}"
            raise RuleError(msg)
        found.append((literal, name, spec or ""))
    return found


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
    if rule.peak is not None and rule.peak not in rule.measures:
        raise RuleError(f"{where}: peak: unknown measure '{rule.peak}'{nearest(rule.peak, rule.measures)}")
    if rule.patience < 1:
        raise RuleError(f"{where}: patience: must be 1 or more")
    free = {"step", "layer_depth"}
    signals = graph.signals(when) - free
    optional = graph.uses(when, *nodes) - signals - free
    if graph.is_layered(when) != (rule.each == "layer"):
        said = "has one answer for all layers" if rule.each else "has an answer for each layer"
        raise RuleError(f"{where}: when: {said}; {'remove' if rule.each else 'write'} each = \"layer\"")
    return msgspec.structs.replace(rule, signals=signals, optional=optional, facts=graph.facts(when))


def _check_names(rule: Rule, scope: Scope) -> None:
    for name in (*rule.thresholds, *rule.measures):
        if not name.isidentifier() or name in scope.signals or name in scope.facts:
            raise RuleError(f"{rule.path}: '{name}' is no usable name, or one that a signal or fact has already")
    for name, value in rule.thresholds.items():
        if math.isnan(value):
            raise RuleError(f"{rule.path}: thresholds.{name}: is not a number")
    if both := {*rule.thresholds} & {*rule.measures}:
        raise RuleError(f"{rule.path}: '{min(both)}' is both a threshold and a measure")


def applies(rule: Rule, run_facts: Mapping[str, float]) -> bool:
    """Whether a rule has anything to say about a run of which this much is known."""
    if rule.applies_when is None:
        return True
    graph = Graph(run_facts)
    node = graph.add(rule.applies_when, rule.scope, "applies_when")
    return bool(graph.evaluate({}, 1)[node][0] != 0)


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
    if not takes - _OPTIONAL <= given <= takes:
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


@dataclass(frozen=True, slots=True)
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
