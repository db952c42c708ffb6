"""The diagnoser: blocks of a run in, findings and a diagnosis out. The one evaluator, live and offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lossdoctor.clocks import EvaluationClock, IntervalClock, Shared, StepClock, Ticks
from lossdoctor.findings import Diagnosis, Finding, Undecided
from lossdoctor.health import EVALUATION_NAMES, INTERVAL_NAMES, Health
from lossdoctor.judges import Judges, RuleGroup
from lossdoctor.judging import Standing
from lossdoctor.naming import named
from lossdoctor.plans import GroupPlan, Plans, is_layered
from lossdoctor.rulebook import Rule, Rulebook
from lossdoctor.run_clock import RunClock
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.info import ModelChecks, facts
from lossdoctor.runs.tables import Block, Run
from lossdoctor.verdicts import arrange, conclude, settle

if TYPE_CHECKING:
    from lossdoctor.signals import Clock

__all__ = ["Diagnoser", "diagnose"]


@dataclass(slots=True)
class _Clocks:
    step: StepClock
    interval: IntervalClock
    evaluation: EvaluationClock
    run: RunClock
    seen: dict[str, int] = field(default_factory=lambda: {"steps": 0, "evaluations": 0})


class Diagnoser:
    """Diagnoses one run, block by block.

    `run_facts` are the numbers of the run that rules may use, and `learn` adds to them later; `layers` are the names of
    its layers in recorded order. `rows_are_means`: a row stands for many steps, as in logs with a row an epoch.
    """

    def __init__(
        self,
        rulebook: Rulebook,
        *,
        run_facts: Mapping[str, float],
        layers: Sequence[str] = (),
        rows_are_means: bool = False,
    ) -> None:
        self._rulebook, self._layers = rulebook, list(layers)
        self._facts = dict(run_facts)
        self._plans = Plans.of(rulebook)
        grouped: dict[tuple[str, frozenset[str], bool], list[Rule]] = {}
        for rule in rulebook.rules.values():
            if rule.clock != "run" and not self._plans.applies(rule, self._facts):
                continue
            grouped.setdefault((rule.clock, rule.signals, is_layered(rule)), []).append(rule)
        self._run_rules = [rules for rules in grouped.values() if rules[0].clock == "run"]
        plans: dict[Clock, list[GroupPlan]] = {"step": [], "interval": [], "evaluation": []}
        for rules in grouped.values():
            if rules[0].clock != "run":
                plans[rules[0].clock].append(self._plans.group(rules))
        self._judges = {clock: Judges(on_clock, self._facts) for clock, on_clock in plans.items()}
        names = {clock: {name for plan in on_clock for name in plan.names} for clock, on_clock in plans.items()}
        run_names = {name for rules in self._run_rules for rule in rules for name in rule.signals | rule.optional}
        self._clocks = _Clocks(
            StepClock(names["step"]),
            IntervalClock(names["interval"] | INTERVAL_NAMES, layers=len(layers), smallest=1 if rows_are_means else 2),
            EvaluationClock(names["evaluation"] | EVALUATION_NAMES),
            RunClock(run_names),
        )
        self._health = Health(self._facts)
        self._rows_are_means = rows_are_means
        self._present: set[str] = set()
        groups = [group for judges in self._judges.values() for group in judges.groups]
        self._states = {state.rule.id: state for group in groups for state in group.states}

    def observe(self, block: Block) -> list[Finding]:
        """Take in the next block of the run and return the findings that began in it, in the order of their steps."""
        block = Block(*(Shared(table.columns) for table in (block.steps, block.evaluations, block.layers)))
        clocks = self._clocks
        for table in (block.steps, block.evaluations):
            new = table.columns.keys() - self._present
            self._present |= {name for name in new if table.columns[name].mask().any()}
        clocks.seen["steps"] += len(block.steps)
        clocks.seen["evaluations"] += len(block.evaluations)
        clocks.run.observe(block)
        ticks: dict[Clock, Ticks] = {
            "step": clocks.step.observe(block),
            "interval": clocks.interval.observe(block),
            "evaluation": clocks.evaluation.observe(block),
        }
        self._health.observe(ticks["interval"], ticks["evaluation"])
        began = [
            state.finding(episode, self._layers)
            for clock, on_clock in ticks.items()
            for state, episode in self._judges[clock].observe(on_clock)
        ]
        return sorted(began, key=lambda finding: (finding.detected, finding.rule))

    def learn(self, run_facts: Mapping[str, float]) -> None:
        """Take in numbers of the run that were found out while it went on; they hold from the next block on."""
        self._facts |= run_facts

    def verified(self, rule: str, verify: str) -> bool | None:
        """Whether a fix's `verify` condition holds at the rule's latest tick; None while that is undecided.

        Rules on the run clock are judged at the end only: nothing is verified by them.
        """
        value = self._states[rule].verified.get(verify, float("nan")) if rule in self._states else float("nan")
        return None if np.isnan(value) else bool(value)

    def measured(self, rule: str) -> dict[str, float]:
        """A rule's measures at its latest tick: what became of the evidence behind its finding."""
        return self._states[rule].measured() if rule in self._states else {}

    def badness(self, rule: str) -> float:
        """How bad it is at a rule's latest tick, by its peak measure; NaN where it has none."""
        return self._states[rule].badness() if rule in self._states else float("nan")

    def standing(self) -> dict[str, Standing]:
        """How things are with every rule that ever had a finding."""
        return {rule: state.standing() for rule, state in self._states.items() if state.tracker.episodes}

    def ticks(self, rule: str) -> int:
        """How many ticks a rule has seen so far: the unit of a fix's `within`."""
        return self._states[rule].ticks if rule in self._states else 0

    def active(self, rule: str) -> bool:
        """Whether an episode of the rule is going on."""
        return rule in self._states and self._states[rule].tracker.current is not None

    def at_the_end(self) -> list[Finding]:
        """What the rules on the run clock find; provisional while the run goes on."""
        states = [state for group in (*self._judge_run(), *self._judge_nothing()) for state in group.states]
        return [state.finding(episode, self._layers) for state in states for episode in state.tracker.episodes]

    def _judge_run(self) -> list[RuleGroup]:
        """The rules on the run clock, judged afresh over what was seen so far."""
        tick = self._clocks.run.tick()
        known = {**self._facts, **{name: float(count) for name, count in self._clocks.seen.items()}}
        applicable = ([rule for rule in rules if self._plans.applies(rule, known)] for rules in self._run_rules)
        judges = Judges([self._plans.group(rules) for rules in applicable if rules], known)
        judges.observe(tick)
        return judges.groups

    def _judge_nothing(self) -> list[RuleGroup]:
        """The rules on the step clock where no step was ever done: the training may have ended in the first one."""
        if self._clocks.seen["steps"]:
            return []
        judges = Judges([group.plan for group in self._judges["step"].groups], self._facts)
        judges.observe_nothing(self._clocks.run.step)
        return judges.groups

    def diagnosis(
        self,
        *,
        run: str = "",
        status: str = "",
        interventions: Sequence[Intervention] = (),
        warnings: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
        checks: ModelChecks | None = None,
    ) -> Diagnosis:
        """Everything there is to say about what was seen so far; `checks` has the names of parameters and modules."""
        groups = [*(group for judges in self._judges.values() for group in judges.groups), *self._judge_run()]
        by_facts = [state for group in self._judge_nothing() for state in group.states if state.tracker.episodes]
        findings = [state.finding(episode, self._layers) for state in by_facts for episode in state.tracker.episodes]
        said = {finding.rule for finding in findings}
        passed: list[str] = []
        undecided: list[Undecided] = []
        for group in groups:
            for state in group.states:
                if state.rule.id in said or not self._plans.applies(state.rule, self._facts):  # known only now
                    continue
                if state.tracker.episodes:
                    findings.extend(state.finding(episode, self._layers) for episode in state.tracker.episodes)
                elif (why := group.undecided(state, present=self._present)) is None:
                    passed.append(state.rule.id)
                else:
                    undecided.append(why)
        seen = self._clocks.seen
        last_step = self._clocks.run.step
        explanations = self._rulebook.explanations
        arranged = arrange(settle(findings, interventions, explanations), explanations, last_step)
        vital = {rule.id for rule in self._rulebook.rules.values() if rule.vital}
        undecided.sort(key=lambda why: why.rule)
        return conclude(
            Diagnosis(
                run=run,
                verdict="undecided",
                category="undecided",
                summary="",
                steps=seen["steps"],
                evaluations=seen["evaluations"],
                findings=[named(finding, self._rulebook.rules, checks or ModelChecks()) for finding in arranged],
                passed=sorted(passed),
                undecided=undecided,
                reasons=self._health.reasons(),
                interventions=list(interventions),
                warnings=list(warnings),
                status=status,
                config=dict(config or {}),
            ),
            vital,
            few=self._health.few_rows() if self._rows_are_means else None,
            learned=bool(self._health.signs_of_learning())
            or any("not_learning" in explanations.get(one.rule, ()) for one in arranged if one.severity == "benign"),
        )


def diagnose(run: Run, rulebook: Rulebook | None = None) -> Diagnosis:
    """Diagnose a recorded run."""
    diagnoser = Diagnoser(
        rulebook or Rulebook.load(),
        run_facts=facts(run.info),
        layers=[layer.name for layer in run.info.model.layers],
        rows_are_means=run.rows_are_means,
    )
    for block in run.blocks():
        diagnoser.observe(block)
    return diagnoser.diagnosis(
        run=run.name,
        status=run.info.status,
        interventions=run.interventions,
        warnings=run.warnings,
        config=run.info.config,
        checks=run.info.checks,
    )
