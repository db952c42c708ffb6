"""Rules compiled once and put to work on many runs: where each expression stands in a graph that rules share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

from lossdoctor.expressions import Graph
from lossdoctor.rule import Fix, Rule
from lossdoctor.rulebook import Rulebook

__all__ = ["GroupPlan", "Plans", "RulePlan", "is_layered"]


def is_layered(rule: Rule) -> bool:
    """Whether a rule has to do with layers: what it is made of is (ticks, layers)."""
    return rule.each == "layer" or any(name.startswith("layer_") for name in rule.signals | rule.optional)


@dataclass(frozen=True, slots=True)
class RulePlan:
    """A rule, and the numbers of its expressions' nodes.

    `fixes` has, by variant (None: the rule's own) and number, the nodes of the fix's condition and of its arguments.
    """

    rule: Rule
    when: int
    grave: int | None
    measures: Mapping[str, int]
    variants: Sequence[int]
    fixes: Mapping[tuple[int | None, int], tuple[int | None, Mapping[str, int]]]
    verifications: Mapping[str, int]

    @classmethod
    def of(cls, rule: Rule, graph: Graph) -> "RulePlan":
        """Compile a rule into a graph."""
        scope = rule.scope

        def node(text: str, part: str) -> int:
            return graph.add(text, scope, part)

        fixes = list(_all_fixes(rule))
        return cls(
            rule=rule,
            when=node(rule.when, "when"),
            grave=None if rule.error_when is None else node(rule.error_when, "error_when"),
            measures={name: node(name, name) for name in rule.measures},
            variants=[node(variant.when, "variants") for variant in rule.variants],
            fixes={
                place: (
                    None if fix.when is None else node(fix.when, "fixes"),
                    {name: node(text, "fixes") for name, text in fix.arguments.items()},
                )
                for place, fix in fixes
            },
            verifications={
                fix.verify.when: node(fix.verify.when, "verify") for _, fix in fixes if fix.verify is not None
            },
        )

    def nodes(self) -> Iterable[int]:
        """All nodes that the rule asks for."""
        yield self.when
        yield from () if self.grave is None else (self.grave,)
        yield from (*self.measures.values(), *self.variants, *self.verifications.values())
        for when, arguments in self.fixes.values():
            yield from (*(() if when is None else (when,)), *arguments.values())


def _all_fixes(rule: Rule) -> Iterable[tuple[tuple[int | None, int], Fix]]:
    for number, fix in enumerate(rule.fixes):
        yield (None, number), fix
    for variant, special in enumerate(rule.variants):
        for number, fix in enumerate(special.fixes):
            yield (variant, number), fix


class GroupPlan:
    """Rules that tick together, compiled into one graph.

    `remembering` are the nodes that must see every tick.
    """

    def __init__(self, rules: Sequence[RulePlan], graph: Graph) -> None:
        self.rules, self.graph = rules, graph
        self.remembering = graph.remembering(*(node for plan in rules for node in plan.nodes()))
        self.signals = sorted(rules[0].rule.signals)
        self.names = frozenset[str]().union(*(plan.rule.signals | plan.rule.optional for plan in rules), {"step"})
        if any(plan.rule.each == "layer" for plan in rules):
            self.names |= {"layer_depth"}

    @classmethod
    def of(cls, rule: Rule) -> "GroupPlan":
        """A rule that ticks alone."""
        graph = Graph()
        return cls([RulePlan.of(rule, graph)], graph)


class Plans:
    """What was compiled of a rulebook so far."""

    _made: ClassVar["WeakKeyDictionary[Rulebook, Plans]"] = WeakKeyDictionary()

    def __init__(self, rulebook: Rulebook) -> None:
        self._rules = list(rulebook.rules.values())
        self._groups: dict[tuple[str, ...], GroupPlan] = {}
        self._graphs: dict[tuple[str, bool], Graph] = {}
        self._compiled: dict[str, RulePlan] = {}
        self._conditions: dict[str, tuple[Graph, int]] = {}

    @classmethod
    def of(cls, rulebook: Rulebook) -> "Plans":
        """The plans of a rulebook, the same ones every time."""
        if rulebook not in cls._made:
            cls._made[rulebook] = cls(rulebook)
        return cls._made[rulebook]

    def group(self, rules: Sequence[Rule]) -> GroupPlan:
        """The plan of rules that tick together. All of a clock share a graph, those with layers another."""
        key = tuple(rule.id for rule in rules)
        if key not in self._groups:
            graph = self._graphs.setdefault((rules[0].clock, is_layered(rules[0])), Graph())
            self._groups[key] = GroupPlan([self._plan(rule, graph) for rule in rules], graph)
        return self._groups[key]

    def _plan(self, rule: Rule, graph: Graph) -> RulePlan:
        if rule.id not in self._compiled:
            self._compiled[rule.id] = RulePlan.of(rule, graph)
        return self._compiled[rule.id]

    def applies(self, rule: Rule, run_facts: Mapping[str, float]) -> bool:
        """Whether a rule has anything to say about a run of which this much is known."""
        if rule.applies_when is None:
            return True
        if rule.id not in self._conditions:
            graph = Graph()
            self._conditions[rule.id] = graph, graph.add(rule.applies_when, rule.scope, "applies_when")
        graph, node = self._conditions[rule.id]
        return bool(graph.for_run(run_facts).evaluate({}, 1)[node][0] != 0)
