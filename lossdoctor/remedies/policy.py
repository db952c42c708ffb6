"""The Remediator: repairs as transactions.

    finding ──> treatment ──apply──> probation ──verified──> kept
                    ^                    │
                    └──── the next <── reverted

One treatment at a time. It is kept once its `verify` holds (or, without one, once its finding has ended). If that does
not happen in time, its knobs are turned back and the next treatment of the finding follows, never the same again: the
list of a rule's treatments is only ever gone through forwards. A graver finding ends the probation of a lesser one.
Each treatment costs one of the run's budget; after one was kept, only errors are treated for a while.

Steps with non-finite gradients are not a matter of findings: they are kept from the weights at once, always.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from lossdoctor.findings import Finding
from lossdoctor.remedies.actions import Patient
from lossdoctor.remedies.bad_steps import BadSteps
from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.ledger import Ledger
from lossdoctor.remedies.skipping import GoodBuffers, StepGuard, Steps
from lossdoctor.remedies.snapshots import Snapshots, is_due
from lossdoctor.remedies.transactions import Transactions
from lossdoctor.remedies.treatments import Judge, began, is_treatable, treatments, urgency
from lossdoctor.runs.events import Intervention

__all__ = ["Best", "Limits", "Remediator"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the doctor may do in one run."""

    budget: int = 8
    """Treatments; skipped steps are not counted."""
    cool_down: int = 32
    """Steps after a kept treatment in which only errors are treated; a twentieth of the steps so far, if more."""
    bad_in_a_row: int = 8
    """Non-finite steps in a row that are just skipped; one more, and the run is rewound with a lower learning rate."""
    hopeless: int = 64
    """Non-finite steps in a row after which the run is asked to stop."""
    generations: int = 5
    """Snapshots kept, the first of the run among them."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far: its step and its validation loss."""

    step: float
    value: float


class Remediator:
    """Treats a running training; see the module's docstring for how.

    Make it before other optimizer hooks are registered, so that they read the learning rate in force, and call
    `block_last` after, so that they still see the gradients of a step that is skipped. Then, for every record:
    `after_step`; and whenever the run was judged: `act` with what is new, and `settle` with the judge.

    `record` is called with each Intervention when it is made and once more, under the same id, when its outcome is
    known. A run without interventions is bit-identical to an unmonitored one.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        optimizers: Sequence[Optimizer],
        record: Callable[[Intervention], None],
        scaler: GradScaler | None = None,
        also: Sequence[Any] = (),
        total_steps: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        limits = Limits() if limits is None else limits
        self._total_steps = total_steps
        self._buffers = GoodBuffers(model)
        self._snapshots = Snapshots(model, optimizers, scaler=scaler, also=also, generations=limits.generations)
        self._ledger = Ledger(record)
        self._knobs = [OptimizerKnobs(one, StepGuard(one), before_step=self._before_step) for one in optimizers]
        self._patient = Patient(knobs=self._knobs, snapshots=self._snapshots)
        self._transactions = Transactions(
            self._patient, self._ledger, budget=limits.budget, cool_down=limits.cool_down, rewound=self._rewound
        )
        self._bad_steps = BadSteps(
            self._patient, self._ledger, self._transactions, limit=limits.bad_in_a_row, hopeless=limits.hopeless
        )
        self._best: Best | None = None
        self._waiting: dict[str, Finding] = {}
        self._steps = 0

    # -- what the loop may ask

    @property
    def should_stop(self) -> bool:
        """Whether the loop should end; the weights to keep are in place by then."""
        return self._patient.stopped

    @property
    def best(self) -> Best | None:
        """The evaluation with the lowest finite validation loss."""
        return self._best

    @property
    def multipliers(self) -> list[float]:
        """What each optimizer's learning rate is multiplied by during its steps; 1.0 is untouched."""
        return [knobs.multiplier for knobs in self._knobs]

    # -- what happens in the loop

    def block_last(self) -> None:
        """Run the hooks that take non-finite gradients away after all other step pre-hooks. Call between steps."""
        for knobs in self._knobs:
            knobs.block_last()

    def _before_step(self) -> None:
        """Before the first update: take the snapshot that is kept for ever."""
        if not self._steps and self._snapshots.newest_step is None and self._snapshots.is_ready():
            if not self._buffers.are_finite():  # the very first batch held a NaN
                self._buffers.give_back()
            self._snapshots.take(self._ledger.step)

    def _rewound(self) -> None:
        """Forget what belongs to the weights that were left."""
        self._buffers.keep()
        for knobs in self._knobs:
            knobs.guard.forget()

    def after_step(self, step: float, *, finite: bool | None) -> None:
        """After every optimizer step: `finite` says whether its loss was finite, None if that is not known.

        Steps that a GradScaler skipped count, too: call this for every record.
        """
        if not self._steps:
            self.block_last()
        self._steps += 1
        self._ledger.step = step
        seen = Steps()
        for knobs in self._knobs:
            knobs.undo()  # where a step raised
            seen += knobs.guard.collect()
        if seen.skipped or seen.dirty or finite is False:
            self._buffers.give_back()
            self._bad_steps.bad(seen, loss=finite is False)
            return
        if not self._buffers.keep():  # a scaler skipped the step, the statistics are poisoned all the same
            self._buffers.give_back()
        self._bad_steps.good()
        newest = self._snapshots.newest_step
        due = newest is None or is_due(step, newest, total_steps=self._total_steps)
        if due and self._snapshots.is_ready():
            self._snapshots.take(step)

    def evaluated(self, step: float, values: Mapping[str, float]) -> None:
        """After every evaluation: keep the weights if `val_loss` is the lowest so far. NaN is never best."""
        value = values.get("val_loss", math.nan)
        if not math.isfinite(value) or self.should_stop or (self._best is not None and value >= self._best.value):
            return
        if self._snapshots.take_best(step, value):
            self._best = Best(step, value)

    def act(self, findings: Sequence[Finding], step: float) -> None:
        """Take in new findings, and begin the treatment of the most urgent one if none is under way."""
        self._ledger.step = max(step, self._ledger.step)
        for finding in findings:
            if not is_treatable(finding):
                continue
            ladder = treatments(finding.prescriptions, unstable=finding.category == "unstable")
            if ladder[0].name == "skip_step":  # in force already; what follows is for when it is not enough
                self._bad_steps.prescribed[finding.rule] = ladder[1:]
            else:
                self._waiting[finding.rule] = finding
        self._treat()

    def settle(self, judge: Judge, step: float) -> None:
        """Decide about the treatment under way by what `judge`, a Diagnoser, has seen. Call after `act`."""
        self._ledger.step = max(step, self._ledger.step)
        self._transactions.judge(judge)
        self._waiting = {rule: finding for rule, finding in self._waiting.items() if judge.active(rule)}
        self._treat()

    def _treat(self) -> None:
        for finding in sorted(self._waiting.values(), key=urgency):
            if self.should_stop:
                return
            urgent = finding.severity == "error"
            course = self._transactions.course
            if course is not None:
                if not urgent or course.finding is None or course.finding.severity == "error":
                    return
                self._transactions.revert(f"a graver finding came up: {finding.rule}")
            if not urgent and self._transactions.is_quiet:
                return
            del self._waiting[finding.rule]
            ladder = treatments(finding.prescriptions, unstable=finding.category == "unstable")
            self._transactions.begin(finding.rule, finding.message, ladder, since=began(finding), finding=finding)

    # -- the end, and going on elsewhere

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: the standing multipliers and bounds, and what was tried. Not the snapshots."""
        return {
            "step": self._ledger.step,
            "next_id": self._ledger.next_id,
            "multipliers": self.multipliers,
            "max_norms": [knobs.max_norm for knobs in self._knobs],
            "best": None if self._best is None else {"step": self._best.step, "value": self._best.value},
            "transactions": self._transactions.state_dict(),
            "stopped": self.should_stop,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another process stopped.

        The best value of that process is known, its weights are not: only a better evaluation can be stopped at.
        """
        for knobs, multiplier, max_norm in zip(self._knobs, state["multipliers"], state["max_norms"], strict=True):
            knobs.multiplier, knobs.max_norm = multiplier, max_norm
        self._ledger.step, self._ledger.next_id = float(state["step"]), int(state["next_id"])
        self._best = None if state["best"] is None else Best(state["best"]["step"], state["best"]["value"])
        self._transactions.load_state_dict(state["transactions"])
        self._patient.stopped = bool(state["stopped"])

    def close(self) -> None:
        """Remove the hooks; no multiplier and no bound stays behind. What is on probation is recorded as such."""
        self._transactions.close()
        self._bad_steps.close("kept", "the run ended")
        for knobs in self._knobs:
            knobs.close()
