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

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from lossdoctor.findings import Finding
from lossdoctor.remedies.action import Patient
from lossdoctor.remedies.bad_steps import BadSteps
from lossdoctor.remedies.choosing import Choice, Loop
from lossdoctor.remedies.finite import weights_are_finite
from lossdoctor.remedies.keeping.best import Best, BestWeights
from lossdoctor.remedies.keeping.buffers import GoodBuffers
from lossdoctor.remedies.keeping.places import Place
from lossdoctor.remedies.keeping.snapshots import Snapshots, is_due
from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.ledger import Ledger
from lossdoctor.remedies.policy import Policy
from lossdoctor.remedies.skipping import StepGuard, Steps
from lossdoctor.remedies.together.company import Company
from lossdoctor.remedies.transactions import Transactions
from lossdoctor.remedies.treatments import Judge, began, is_harmful, is_treatable, ladder_of, urgency
from lossdoctor.runs.events import Intervention

__all__ = ["Remediator"]

logger = logging.getLogger(__name__)


_TOGETHER = 8
"""Steps after which several processes look at the flags on their devices, so that all see them at the same step."""


class Remediator:
    """Treats a running training; see the module's docstring for how.

    Make it before other optimizer hooks are registered, so that they read the learning rate in force, and call
    `block_last` after, so that they still see the gradients of a step that is skipped. Then, for every record:
    `after_step`; and whenever the run was judged: `act` with what is new, and `settle` with the judge.

    `record` is called with each Intervention when it is made and once more, under the same id, when its outcome is
    known. With a `loop`, treatments are tried before one is chosen. `directory` is for snapshots on disk. The ranks
    of one training are a `company`. A run without interventions is bit-identical to an unmonitored one.
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
        policy: Policy | None = None,
        company: Company | None = None,
        loop: Loop | None = None,
        directory: Path | None = None,
    ) -> None:
        policy = Policy() if policy is None else policy
        policy = policy if company is None else company.asked_once(policy)
        self._model, self._policy, self._total_steps = model, policy, total_steps
        self._buffers = GoodBuffers(model)
        self._snapshots = (Snapshots if company is None else company.snapshots)(
            model,
            optimizers,
            scaler=scaler,
            also=also,
            generations=policy.generations,
            place=Place(policy.snapshots, directory),
        )
        self._ledger = Ledger(record)
        self._guards_steps = policy.allows("skip_step")
        guard = StepGuard if company is None else company.guard
        self._knobs = [
            OptimizerKnobs(
                one,
                guard(one, skips=self._guards_steps),
                before_step=self._before_step,
                on_fault=(lambda: None) if company is None else company.agreement.leave,
            )
            for one in optimizers
        ]
        self._patient = Patient(knobs=self._knobs, snapshots=self._snapshots, scaler=scaler)
        if company is not None:
            company.enter(self._patient, model)
        choice = None
        if loop is not None and company is None:  # of several processes none may train on alone
            choice = Choice(loop, self._patient, self._ledger, model=model, also=also, steps=policy.trial_steps)
        self._transactions = Transactions(
            self._patient, self._ledger, policy=policy, rewound=self._rewound, choice=choice
        )
        self._bad_steps = BadSteps(
            self._patient, self._ledger, self._transactions, limit=policy.bad_in_a_row, hopeless=policy.hopeless
        )
        self._best = BestWeights(self._snapshots, policy)
        self._company, self._is_one_of_several = company, company is not None
        self._waiting: dict[str, Finding] = {}
        self._present: dict[str, Finding] = {}
        """What harms the weights now."""
        self._steps = 0

    # -- what the loop may ask

    @property
    def should_stop(self) -> bool:
        """Whether the loop should end; the weights to keep are in place by then."""
        return self._patient.stopped

    @property
    def best(self) -> Best | None:
        """The best evaluation with a finite value: the lowest validation loss, or what the policy goes by."""
        return self._best.best

    def is_sound(self) -> bool:
        """Whether the present weights are worth keeping: finite, after a finite step, and with no error going on.

        Reads the weights: on CUDA it waits for the device. Where they are sharded it is so on all ranks, or on none:
        ask on all of them.
        """
        sound = not self._bad_steps.in_a_row and not self._has_errors and weights_are_finite(self._model)
        return sound if self._company is None else self._company.are_all_sound(self._ledger.step, mine=sound)

    @property
    def _has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self._present.values())

    def loop_bound(self, max_norm: float) -> float:
        """The bound in force where the loop clips by `monitor.clip_grad_norm_(max_norm)`."""
        return self._patient.clipping.bound(max_norm)

    @property
    def multipliers(self) -> list[float]:
        """What each optimizer's learning rate is multiplied by during its steps; 1.0 is untouched."""
        return [knobs.in_force for knobs in self._knobs]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take no notice of the steps that are tried out beside the training."""
        for knobs in self._knobs:
            knobs.rests = True
        try:
            yield
        finally:
            for knobs in self._knobs:
                knobs.rests = False

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
            seen += knobs.guard.collect(wait=step % _TOGETHER == 0)
        if seen.large:
            self._transactions.left_out(seen.large)
            self._buffers.give_back()
        if self._guards_steps and (seen.skipped or seen.dirty or finite is False):
            self._buffers.give_back()
            self._bad_steps.bad(seen, loss=finite is False)
            return
        if not self._buffers.keep():  # a scaler skipped the step, the statistics are poisoned all the same
            self._buffers.give_back()
        self._bad_steps.good()
        newest = self._snapshots.newest_step
        # Of several processes each may have another place, and all need snapshots of the same steps.
        on_disk = self._snapshots.are_on_disk and not self._is_one_of_several
        due = newest is None or is_due(step, newest, total_steps=self._total_steps, on_disk=on_disk)
        if due and self._snapshots.is_ready():
            self._snapshots.take(step)

    def evaluated(self, step: float, values: Mapping[str, float]) -> None:
        """After every evaluation: keep the weights if they are the best so far. NaN is never best."""
        if not self.should_stop:
            self._best.evaluated(step, values)

    def adopt_best(self, step: float, value: float) -> None:
        """Rank 0 has new best weights: these stand in for them, or are the shards of them that this rank holds."""
        self._best.adopt(step, value)

    def stand_by(self, step: float) -> None:
        """Rank 0 may find that the weights of this evaluation are the best: keep their shards until it says so."""
        if not self.should_stop:
            self._snapshots.stand_by(step)

    def act(self, findings: Sequence[Finding], step: float) -> None:
        """Take in new findings, and begin the treatment of the most urgent one if none is under way."""
        self._ledger.step = max(step, self._ledger.step)
        self._present |= {one.rule: one for one in findings if is_harmful(one)}
        self._transactions.cured.difference_update(self._present)
        for finding in findings:
            if not is_treatable(finding):
                continue
            ladder = ladder_of(finding)
            if ladder[0].name == "skip_step":  # in force already; what follows is for when it is not enough
                self._bad_steps.prescribed[finding.rule] = ladder[1:]
            else:
                self._waiting[finding.rule] = finding
        self._treat()

    def settle(self, judge: Judge, step: float) -> None:
        """Decide about the treatment under way by what `judge`, a Diagnoser, has seen. Call after `act`."""
        self._ledger.step = max(step, self._ledger.step)
        if (kept := self._transactions.judge(judge)) is not None:
            self._waiting.setdefault(kept.rule, kept)
        self._waiting = {rule: finding for rule, finding in self._waiting.items() if judge.active(rule)}
        cured = self._transactions.cured
        self._present = {rule: one for rule, one in self._present.items() if judge.active(rule) and rule not in cured}
        self._treat()

    def _treat(self) -> None:
        step = self._ledger.step
        for finding in sorted(self._waiting.values(), key=urgency):
            if self.should_stop:
                return
            # After a rewind the loss is higher than it was: what is found then may be nothing but that.
            stale = finding.detected <= self._transactions.back_at
            urgent = finding.severity == "error" and not stale
            course = self._transactions.course
            if course is not None:
                if not urgent or course.finding is None or course.finding.severity == "error":
                    return
                self._transactions.revert(f"a graver finding came up: {finding.rule}")
            if not urgent and (self._transactions.is_quiet or (stale and step < self._transactions.back_at)):
                continue
            del self._waiting[finding.rule]
            self._transactions.begin(
                finding.rule, finding.message, ladder_of(finding), since=began(finding), finding=finding
            )

    # -- the end, and going on elsewhere

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: the standing multipliers and bounds, and what was tried. Not the snapshots."""
        return {
            "step": self._ledger.step,
            "next_id": self._ledger.next_id,
            "knobs": [knobs.state_dict() for knobs in self._knobs],
            "clip_at_least": self._patient.clipping.at_least,
            "best": self._best.state_dict(),
            "transactions": self._transactions.state_dict(),
            "stopped": self.should_stop,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another process stopped.

        The best value of that process is known, its weights are not: only a better evaluation can be stopped at.
        """
        for knobs, standing in zip(self._knobs, state["knobs"], strict=True):
            knobs.load_state_dict(standing)
        self._patient.clipping.at_least = float(state["clip_at_least"])
        self._ledger.step, self._ledger.next_id = float(state["step"]), int(state["next_id"])
        self._best.load_state_dict(state["best"])
        self._transactions.load_state_dict(state["transactions"])
        self._patient.stopped = bool(state["stopped"])

    def close(self, *, crashed: bool = False) -> None:
        """Remove the hooks; no multiplier and no bound stays behind. What is on probation is recorded as such.

        A run that ends ill is left with its best weights if those it ends with are worse: see BestWeights. Not one
        that crashed, nor one of several processes: the others may not have come to their end.
        """
        course = self._transactions.course
        ill = dict(self._present)
        if course is not None and course.finding is not None:
            ill[course.rule] = course.finding
        if not (crashed or self._is_one_of_several or self.should_stop):
            why = self._best.why_to_be_left(self._ledger.step, ill)
            if why is not None:
                self._transactions.leave_with_the_best(next(iter(ill)), why)
        self._transactions.close()
        self._bad_steps.close("kept", "the run ended")
        for knobs in self._knobs:
            knobs.close()
        self._snapshots.close()
