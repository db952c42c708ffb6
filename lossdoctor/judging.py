"""A rule at work on one run: from the values of its expressions to episodes and findings."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from lossdoctor.episodes import Episode, EpisodeTracker, Frozen
from lossdoctor.filters import Array
from lossdoctor.findings import Finding, Prescription
from lossdoctor.plans import RulePlan
from lossdoctor.templates import fill, names_in
from lossdoctor.values import Values

__all__ = ["RuleState", "Standing"]


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

    def observe(self, step: Array, values: Values) -> list[Episode]:
        """Take in the rule's next ticks and return the episodes that began."""
        self.ticks += len(step)
        for text, node in self._plan.verifications.items():
            # On layers it holds where it holds on all of them.
            self.verified[text] = float(np.fmin.reduce(values.at(node, -1), axis=None, initial=np.nan))
        worst = None if self.rule.peak is None else self._plan.measures[self.rule.peak]
        began: list[Episode] = []
        if not self.tracker.passes(_wide(values.short(self._plan.when)), len(step)):
            truth = _wide(values[self._plan.when])

            def like_truth(node: int | None) -> Array:
                return np.broadcast_to(np.nan if node is None else _wide(values[node]), truth.shape)

            began = self.tracker.observe(
                step,
                truth,
                peak=like_truth(worst),
                grave=like_truth(self._plan.grave),
                freeze=lambda tick, layer: self._freeze(values, tick, layer),
            )
        if self.tracker.episodes:
            self._badness = (
                np.nan if worst is None else float(np.fmax.reduce(values.at(worst, -1), axis=None, initial=np.nan))
            )
            self._measured = {name: _number(values, node, -1, 0) for name, node in self._plan.measures.items()}
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

    def _freeze(self, values: Values, tick: int, layer: int) -> Frozen:
        def at(node: int) -> float:
            return _number(values, node, tick, layer)

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
        since = episode.since
        if rule.at_step is not None and numbers[rule.at_step] < since:  # False for NaN
            over = (one.until for one in self.tracker.episodes if one.until < since)
            since = max(numbers[rule.at_step], max(over, default=-np.inf))
        return Finding(
            rule=rule.id,
            title=rule.title,
            family=rule.family,
            category=rule.category,
            severity="info" if resolved and severity != "benign" else severity,
            clock=rule.clock,
            since=since,
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


def _wide(array: Array) -> Array:
    """Values as (ticks, layers), one layer where there are none."""
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _number(values: Values, node: int, tick: int, layer: int) -> float:
    """A node's value at one tick. Which of two zeros a median finds depends on the cut: never report -0."""
    row = values.at(node, tick).reshape(-1)
    return float(row[min(layer, len(row) - 1)]) + 0.0
