"""All rules of a clock at work on one run: who judges which ticks, and why some could not be decided.

Rules with the same required signals tick together, where all of these were observed. Sets of signals that were observed
at the same ticks so far share their statistics too, as long as that remains so.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lossdoctor.clocks import Ticks, recorded, source_of
from lossdoctor.episodes import Episode
from lossdoctor.expressions import Graph
from lossdoctor.filters import Array
from lossdoctor.findings import Undecided
from lossdoctor.judging import RuleState
from lossdoctor.plans import GroupPlan
from lossdoctor.signals import SIGNALS
from lossdoctor.values import Values

__all__ = ["Judges", "RuleGroup"]

Truth: TypeAlias = npt.NDArray[np.bool_]

_ROWS = 32_768
"""Ticks that are judged at once: what is computed for them stays in the cache of a core."""


class _Presence:
    """Where the signals of some ticks were observed: (ticks,), for layers where any of them was."""

    def __init__(self, ticks: Ticks) -> None:
        self._ticks = ticks
        self._known: dict[str, tuple[Truth | None, bool]] = {}

    def __call__(self, name: str) -> tuple[Truth | None, bool]:
        """Where a signal was observed, None for everywhere, and whether it was anywhere."""
        if name not in self._known:
            present: Truth = ~np.isnan(self._ticks.signals[name])
            if present.ndim > 1:
                present = np.logical_or.reduce(present, axis=1)
            self._known[name] = None if present.all() else present, bool(present.any())
        return self._known[name]


class RuleGroup:
    """Rules that tick together: same clock, same required signals."""

    def __init__(self, plan: GroupPlan, run_facts: Mapping[str, float]) -> None:
        self.plan, self.signals = plan, plan.signals
        self.states = [RuleState(rule) for rule in plan.rules]
        self._run_facts = run_facts
        self._observed: set[str] = set()
        self._ticks = 0

    def rows(self, ticks: Ticks, present: _Presence) -> Truth | None:
        """At which of the ticks every required signal was observed; None for all."""
        self._ticks += len(ticks)
        rows: Truth | None = None
        for name in self.signals or ticks.signals:
            where, anywhere = present(name)
            if anywhere:
                self._observed.add(name)
            if self.signals and where is not None:
                rows = where if rows is None else rows & where
        return rows

    def judge(self, step: Array, values: Values) -> list[tuple[RuleState, Episode]]:
        """Take in the values at the ticks `step`."""
        return [(state, episode) for state in self.states for episode in state.observe(step, values)]

    def undecided(self, state: RuleState, *, present: AbstractSet[str] = frozenset()) -> Undecided | None:
        """Why a rule without findings could not be decided; None if it was.

        `present` are the columns that have values, if only such as are not finite.
        """
        if state.tracker.decided >= state.rule.patience:
            return None
        reason, missing = self._why_undecided(state, present)
        return Undecided(rule=state.rule.id, reason=reason, missing=missing, family=state.rule.family)

    def _why_undecided(self, state: RuleState, present: AbstractSet[str]) -> tuple[str, list[str]]:
        """What to say of a rule that could not be decided, and the signals or facts that it lacks."""
        # A rule that can make do with one of several signals needs none in particular: it names the one it would draw.
        needed = self.signals or [state.rule.evidence or ""]
        missing = [name for name in filter(None, needed) if name not in self._observed]
        if state.rule.clock == "evaluation" and not self._ticks:
            # What is told of the steps between evaluations cannot be missing before there is one.
            missing = [name for name in missing if source_of(name)[1] is None]
        if missing:
            columns = sorted({recorded(name) for name in missing})
            if present >= {*columns}:
                return f"{' and '.join(columns)} {'were' if len(columns) > 1 else 'was'} never finite", columns
            hints = sorted({SIGNALS[name].how for name in columns if name in SIGNALS and SIGNALS[name].how})
            return "; ".join([f"no {' and no '.join(columns)} was recorded", *hints]), columns
        if unknown := sorted(name for name in state.rule.facts if name not in self._run_facts):
            known = f"{' and '.join(unknown)} {'are' if len(unknown) > 1 else 'is'} not known"
            return known, unknown
        if not state.ticks and self._ticks:
            return f"{' and '.join(self.signals)} were never observed together", []
        return f"too short: {_ticks(state.ticks, state.rule.clock)} seen, {state.tracker.decided} could be decided", []


class _Bench:
    """Groups that ticked at the same ticks so far: what they have in common is computed once."""

    def __init__(self, graph: Graph, groups: Sequence[RuleGroup]) -> None:
        self._graph, self._groups = graph, groups
        self._names = frozenset[str]().union(*(group.plan.names for group in groups))
        self._remembering = sorted({node for group in groups for node in group.plan.remembering})

    def split(self, ticks: Ticks, present: _Presence) -> list[tuple["_Bench", Truth | None]]:
        """The groups by the ticks at which they tick now. Those that part have a state of their own from here on."""
        parts: dict[bytes, tuple[Truth | None, list[RuleGroup]]] = {}
        for group in self._groups:
            rows = group.rows(ticks, present)
            parts.setdefault(b"" if rows is None else rows.tobytes(), (rows, []))[1].append(group)
        if len(parts) == 1:
            return [(self, rows) for rows, _ in parts.values()]
        return [(_Bench(self._graph.fork(self._remembering), groups), rows) for rows, groups in parts.values()]

    def judge(self, ticks: Ticks, rows: Truth | None = None) -> list[tuple[RuleState, Episode]]:
        """Take in these rows of the ticks, by default all, and return the episodes that began."""
        signals = ticks.signals if rows is None else _Chosen(ticks.signals, rows)
        step = signals["step"]
        if not len(step):
            return []
        wide = any(ticks.signals[name].ndim > 1 for name in self._names)
        values = self._graph.evaluate(signals, len(step), remembering=self._remembering, wide=wide)
        return [began for group in self._groups for began in group.judge(step, values)]


class _Chosen(dict[str, Array]):
    """Signals at some of the ticks, taken when they are asked for."""

    def __init__(self, signals: Mapping[str, Array], rows: Truth) -> None:
        super().__init__()
        self._signals, self._rows = signals, rows

    def __missing__(self, name: str) -> Array:
        self[name] = self._signals[name][self._rows]
        return self[name]


class Judges:
    """All rules of one clock at work on one run."""

    def __init__(self, plans: Iterable[GroupPlan], run_facts: Mapping[str, float]) -> None:
        self.groups = [RuleGroup(plan, run_facts) for plan in plans]
        by_graph: dict[int, list[RuleGroup]] = {}
        for group in self.groups:
            by_graph.setdefault(id(group.plan.graph), []).append(group)
        self._benches = [_Bench(groups[0].plan.graph.for_run(run_facts), groups) for groups in by_graph.values()]

    def observe(self, ticks: Ticks) -> list[tuple[RuleState, Episode]]:
        """Judge the next ticks, each rule where every signal it needs was observed; return the episodes that began."""
        began: list[tuple[RuleState, Episode]] = []
        for begin in range(0, max(len(ticks), 1), _ROWS):
            part = ticks if len(ticks) <= _ROWS else ticks[begin : begin + _ROWS]
            present = _Presence(part)
            split = [one for bench in self._benches for one in bench.split(part, present)]
            self._benches = [bench for bench, _ in split]
            began += [one for bench, rows in split for one in bench.judge(part, rows)]
        return began

    def observe_nothing(self, step: float) -> None:
        """Judge a tick at which no signal was observed: what facts alone decide is decided by it."""
        names = {name for group in self.groups for name in group.plan.names}
        at, nothing = np.array([step]), np.array([np.nan])
        ticks = Ticks(at, {**dict.fromkeys(names, nothing), "step": at})
        for bench in self._benches:
            bench.judge(ticks)


def _ticks(number: int, clock: str) -> str:
    return f"{number} {clock} tick{' was' if number == 1 else 's were'}"
