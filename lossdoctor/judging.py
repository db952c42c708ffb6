"""Rules at work on one run: from the values of their expressions to episodes, findings and reasons for indecision."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from lossdoctor.clocks import Ticks, recorded, source_of
from lossdoctor.episodes import Episode, EpisodeTracker, Frozen
from lossdoctor.expressions import Graph
from lossdoctor.filters import Array
from lossdoctor.findings import Finding, Prescription, Undecided
from lossdoctor.plans import GroupPlan, RulePlan
from lossdoctor.signals import SIGNALS
from lossdoctor.templates import fill, names_in

__all__ = ["RuleGroup", "RuleState", "Standing"]


class Standing(msgspec.Struct, frozen=True):
    """How things are with one rule: what whoever acts on its findings goes by."""

    active: bool = False
    ticks: int = 0
    verified: dict[str, bool | None] = {}
    measured: dict[str, float] = {}
    badness: float = float("nan")


class RuleState:
    """One rule at work on one run."""

    def __init__(self, plan: RulePlan) -> None:
        self.rule, self._plan = plan.rule, plan
        self.tracker = EpisodeTracker(plan.rule.patience, layered=plan.rule.each == "layer")
        self.ticks = 0
        self.verified: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self._badness = float("nan")

    def observe(self, step: Array, values: "_Values") -> list[Episode]:
        """Take in the rule's next ticks and return the episodes that began."""
        self.ticks += len(step)
        truth = values.wide(self._plan.when)
        unknown = np.broadcast_to(np.nan, truth.shape)
        for text, node in self._plan.verifications.items():
            # On layers it holds where it holds on all of them.
            self.verified[text] = float(np.fmin.reduce(values.wide(node)[-1], initial=np.nan))

        def freeze(tick: int, layer: int) -> Frozen:
            return self._freeze(values, tick, layer)

        peak = unknown if self.rule.peak is None else values.wide(self._plan.measures[self.rule.peak], like=truth)
        began = self.tracker.observe(
            step,
            truth,
            peak=peak,
            grave=unknown if self._plan.grave is None else values.wide(self._plan.grave, like=truth),
            freeze=freeze,
        )
        if self.tracker.episodes:
            self._badness = float(np.fmax.reduce(peak[-1], initial=np.nan))
            self._measured = {name: values.at(node, -1, 0) for name, node in self._plan.measures.items()}
        return began

    def measured(self) -> dict[str, float]:
        """The rule's measures at its latest tick, on the first layer; empty while it never had a finding."""
        return dict(self._measured)

    def standing(self) -> Standing:
        """How things are with it now."""
        verified = {text: None if np.isnan(value) else bool(value) for text, value in self.verified.items()}
        return Standing(self.tracker.current is not None, self.ticks, verified, self.measured(), self.badness())

    def badness(self) -> float:
        """The peak measure at the latest tick, where it is worst on layers; NaN without one or without a finding."""
        return self._badness

    def _freeze(self, values: "_Values", tick: int, layer: int) -> Frozen:
        def at(node: int) -> float:
            return values.at(node, tick, layer)

        measured = {name: at(node) for name, node in self._plan.measures.items()}
        variant = next((number for number, node in enumerate(self._plan.variants) if at(node) == 1), None)
        fixes = self.rule.variants[variant].fixes if variant is not None else []
        owner = variant if fixes else None
        arguments: dict[int, dict[str, float]] = {}
        for number in range(len(fixes or self.rule.fixes)):
            when, nodes = self._plan.fixes[owner, number]
            if when is None or at(when) == 1:
                arguments[number] = {name: at(node) for name, node in nodes.items()}
        return Frozen(measured, variant, arguments)

    def finding(self, episode: Episode, layers: Sequence[str]) -> Finding:
        """What there is to say about one episode; `layers` are the names of the layers."""
        rule = self.rule
        resolved = rule.kind == "state" and episode.over
        numbers = {**rule.thresholds, **episode.frozen.values}
        variant = None if episode.frozen.variant is None else rule.variants[episode.frozen.variant]
        special = None if variant is None else variant.severity
        severity = "error" if episode.grave else special or rule.severity
        ongoing = rule.kind == "state" and not episode.over
        worst = sorted(episode.layers, key=lambda layer: (-np.nan_to_num(episode.layers[layer], nan=-np.inf), layer))
        if rule.at_layer is not None and (number := numbers[rule.at_layer]) >= 0:  # False for NaN
            worst = [int(number)]
        return Finding(
            rule=rule.id,
            title=rule.title,
            family=rule.family,
            category=rule.category,
            severity="info" if resolved and severity != "benign" else severity,
            clock=rule.clock,
            since=episode.since,
            detected=episode.detected,
            until=None if ongoing else episode.until,
            resolved=resolved,
            layers=[layers[layer] if layer < len(layers) else f"layer {layer}" for layer in worst],
            message=fill(rule.message if variant is None else variant.message, numbers, rule.path),
            evidence={name: value for name, value in episode.frozen.values.items() if not np.isnan(value)},
            peak=None if np.isnan(episode.peak) else episode.peak,
            evidence_signal=rule.evidence,
            prescriptions=list(self._prescriptions(episode.frozen, numbers)),
            episodes=episode.number,
        )

    def _prescriptions(self, frozen: Frozen, numbers: Mapping[str, float]) -> Iterable[Prescription]:
        special = [] if frozen.variant is None else self.rule.variants[frozen.variant].fixes
        for number, arguments in frozen.arguments.items():
            fix = (special or self.rule.fixes)[number]
            used = {**numbers, **arguments}
            if any(np.isnan(used[name]) for name in names_in(fix.advice)) or any(map(np.isnan, arguments.values())):
                continue
            yield Prescription(
                advice=fill(fix.advice, used, self.rule.path),
                action=fix.action,
                applicability=fix.applicability,
                arguments=arguments,
                verify=None if fix.verify is None else fix.verify.when,
                within=None if fix.verify is None else fix.verify.within,
            )


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of a graph's nodes over one block."""

    graph: Graph
    arrays: Sequence[Array]

    def wide(self, node: int, *, like: Array | None = None) -> Array:
        """A node's values as (ticks, layers), one layer where it has none."""
        array = self.arrays[node]
        array = array.reshape(-1, 1) if array.ndim == 1 else array
        return array if like is None else np.broadcast_to(array, like.shape)

    def at(self, node: int, tick: int, layer: int) -> float:
        """A node's value at one tick. Which of two zeros a median finds depends on the cut: never report -0."""
        row = self.arrays[node][tick]
        return (float(row) if row.ndim == 0 else float(row[min(layer, len(row) - 1)])) + 0.0


class RuleGroup:
    """Rules that tick together: same clock, same required signals. They share one graph of expressions."""

    def __init__(self, plan: GroupPlan, run_facts: Mapping[str, float]) -> None:
        self.signals, self.names = plan.signals, plan.names
        self._graph = plan.graph.for_run(run_facts)
        self.states = [RuleState(rule) for rule in plan.rules]
        self._run_facts = run_facts
        self._observed: set[str] = set()
        self._ticks = 0

    def observe(self, ticks: Ticks) -> list[tuple[RuleState, Episode]]:
        """Evaluate all rules over the ticks at which every required signal was observed."""
        self._ticks += len(ticks)
        seen = np.ones(len(ticks), dtype=np.bool_)
        for name in self.signals:
            present: npt.NDArray[np.bool_] = ~np.isnan(ticks.signals[name])
            if present.ndim > 1:
                present = np.logical_or.reduce(present, axis=1)
            if present.any():
                self._observed.add(name)
            seen &= present
        if not self.signals:
            self._observed |= {name for name, values in ticks.signals.items() if not np.isnan(values).all()}
        if not seen.any():
            return []
        everything = bool(seen.all())
        signals = {name: ticks.signals[name] if everything else ticks.signals[name][seen] for name in self.names}
        step = signals["step"]
        values = _Values(self._graph, self._graph.evaluate(signals, len(step)))
        return [(state, episode) for state in self.states for episode in state.observe(step, values)]

    def undecided(self, state: RuleState) -> Undecided | None:
        """Why a rule without findings could not be decided; None if it was."""
        if state.tracker.decided >= state.rule.patience:
            return None
        reason, missing = self._why_undecided(state)
        return Undecided(rule=state.rule.id, reason=reason, missing=missing, family=state.rule.family)

    def _why_undecided(self, state: RuleState) -> tuple[str, list[str]]:
        """What to say of a rule that could not be decided, and the signals or facts that it lacks."""
        # A rule that can make do with one of several signals needs none in particular: it names the one it would draw.
        needed = self.signals or [state.rule.evidence or ""]
        missing = [name for name in filter(None, needed) if name not in self._observed]
        if state.rule.clock == "evaluation" and not self._ticks:
            # What is told of the steps between evaluations cannot be missing before there is one.
            missing = [name for name in missing if source_of(name)[1] is None]
        if missing:
            columns = sorted({recorded(name) for name in missing})
            hints = sorted({SIGNALS[name].how for name in columns if name in SIGNALS and SIGNALS[name].how})
            return "; ".join([f"no {' and no '.join(columns)} was recorded", *hints]), columns
        if unknown := sorted(name for name in state.rule.facts if name not in self._run_facts):
            known = f"{' and '.join(unknown)} {'are' if len(unknown) > 1 else 'is'} not known"
            return known, unknown
        if not state.ticks and self._ticks:
            return f"{' and '.join(self.signals)} were never observed together", []
        return f"too short: {_ticks(state.ticks, state.rule.clock)} seen, {state.tracker.decided} could be decided", []


def _ticks(number: int, clock: str) -> str:
    return f"{number} {clock} tick{' was' if number == 1 else 's were'}"
