"""One treatment at a time: apply it wholly or not at all, watch it, keep it or turn it back and go on to the next."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lossdoctor.findings import Finding
from lossdoctor.remedies.action import Done, Occasion, Patient, Refused
from lossdoctor.remedies.actions import ACTIONS
from lossdoctor.remedies.choosing import Choice
from lossdoctor.remedies.ledger import Ledger
from lossdoctor.remedies.policy import Policy, Proposal
from lossdoctor.remedies.treatments import LAST_RESORT, PATIENCE, Course, Judge, Treatment, began, effect, ladder_of

__all__ = ["Transactions"]

logger = logging.getLogger(__name__)

BETTER = 0.5
"""A treatment on probation gets the same time again where the finding's peak measure has come down to this share."""


class Transactions:
    """Begins treatments, judges them and ends them.

    `rewound` is called after a rewind, when its snapshot is in place. After a kept treatment it is `quiet` for
    the policy's `cool_down`, or for a twentieth of the steps so far if that is more. `back_at` is the step by which a
    training that was rewound may be where it was before. `choice`, where there is one, says with which of a finding's
    treatments to begin; those before it are passed over.
    """

    def __init__(
        self,
        patient: Patient,
        ledger: Ledger,
        *,
        policy: Policy,
        rewound: Callable[[], None],
        choice: Choice | None = None,
    ) -> None:
        self._patient, self._ledger, self._policy = patient, ledger, policy
        self._rewound, self._choice = rewound, choice
        self._spent = 0
        self._left_out = 0
        self._quiet_until = self.back_at = -math.inf
        self._told_spent = False
        self._latest: tuple[str, tuple[tuple[str, float], ...]] = ("", ())
        self._in_vain: set[tuple[str, tuple[tuple[str, float], ...]]] = set()
        """Acts that did not help: their names, and where they left the knobs and the weights."""
        self._failed: dict[str, int] = {}
        """By rule: how many of its treatments have failed or were refused. Those are not tried again."""
        self._began_afresh = False
        """Whether the training went back to its beginning with success. It does so once."""
        self.cured: set[str] = set()
        """Rules whose finding was treated with success: what they found of the past may never end."""
        self.course: Course | None = None
        """The treatment on probation."""

    @property
    def is_quiet(self) -> bool:
        """Whether the last kept treatment is too recent for another one that is not urgent."""
        return self._ledger.step < self._quiet_until

    def begin(
        self,
        rule: str,
        reason: str,
        ladder: Sequence[Treatment],
        *,
        since: float,
        finding: Finding | None = None,
        tried: frozenset[float] = frozenset(),
    ) -> bool:
        """Apply the first treatment of a ladder that has not failed and is not refused; False if there is none."""
        reasons = [reason]
        step = self._ledger.step
        occasion = Occasion(step=step, since=since, tried=tried)
        for number in range(self._first_of(rule, ladder, occasion, finding), len(ladder)):
            is_last_resort = ladder[number].actions is LAST_RESORT
            if not is_last_resort and self._is_spent(rule):
                continue
            self._failed[rule] = number
            done = self._permitted(rule, reason, ladder[number])
            if done is None:
                done = self.apply(ladder[number], occasion)
            if isinstance(done, Refused):
                self._failed[rule] = number + 1
                reasons.append(f"({ladder[number].name}: {done.reason})")
                logger.info("step %.0f: %s: %s is refused: %s", step, rule, ladder[number].name, done.reason)
                continue
            self._spent += not is_last_resort
            changes = {name: change for one in done for name, change in one.changes.items()}
            rewound_to = {one.rewound_to for one in done if one.rewound_to is not None}
            self.course = Course(
                ladder[number],
                rule,
                finding,
                self._ledger.write(rule, ladder[number].name, " ".join(reasons), changes),
                reverts=[one.revert for one in reversed(done) if one.revert is not None],
                tried=tried | rewound_to,
            )
            if self._patient.stopped:
                self.keep("the best weights are in place")
            return True
        logger.warning("step %.0f: %s: nothing more is safe to try. %s", step, rule, " ".join(reasons[1:]))
        return False

    def _first_of(self, rule: str, ladder: Sequence[Treatment], occasion: Occasion, finding: Finding | None) -> int:
        """The rung of a ladder to begin with: the next one, or the one that a trial shows to be better."""
        following = self._failed.get(rule, 0)
        if self._choice is None or finding is None or self._spent >= self._policy.budget:
            return following
        rungs = [
            number
            for number in range(following, len(ladder))
            if not ladder[number].deeper and all(self._policy.allows(name) for name in ladder[number].names)
        ]
        chosen = self._choice.first_of(rule, ladder, rungs, occasion)
        return following if chosen is None else chosen

    def at_once(self, rule: str, reason: str, treatment: Treatment, *, since: float) -> bool:
        """Apply a treatment that needs no probation, as its effect is known; False if it is refused."""
        is_last_resort = treatment.actions is LAST_RESORT
        if not is_last_resort and self._is_spent(rule):
            return False
        done = self._permitted(rule, reason, treatment)
        if done is None:
            done = self.apply(treatment, Occasion(step=self._ledger.step, since=since))
        if isinstance(done, Refused):
            logger.warning("step %.0f: %s: %s is refused: %s", self._ledger.step, rule, treatment.name, done.reason)
            return False
        self._spent += not is_last_resort
        changes = {name: change for one in done for name, change in one.changes.items()}
        self._ledger.settle(self._ledger.write(rule, treatment.name, reason, changes), "kept", "it is in place")
        return True

    def _permitted(self, rule: str, reason: str, treatment: Treatment) -> list[Done] | Refused | None:
        """Why the policy forbids a treatment; None if it does not."""
        for name, _ in treatment.actions:
            if not self._policy.allows(name):
                return Refused(f"the policy does not allow {name}")
        if treatment.begins_afresh and self._began_afresh:
            return Refused("the training was begun afresh already")
        if self._policy.before_act is None:
            return None
        try:
            proposal = Proposal(rule, reason, self._ledger.step, treatment.actions)
            vetoed = self._policy.before_act(proposal) is False
        except Exception as error:  # whoever asks to be asked must be able to answer
            logger.warning("before_act failed: %s is left out", treatment.name, exc_info=True)
            return Refused(f"before_act failed with {type(error).__name__}")
        return Refused("vetoed by before_act") if vetoed else None

    def left_out(self, steps: int) -> None:
        """Some steps were kept from the weights because of their gradient norm."""
        self._left_out += steps
        logger.info("step %.0f: a batch with a gradient norm far above the usual was left out", self._ledger.step)

    def _is_spent(self, rule: str) -> bool:
        if self._spent < self._policy.budget:
            return False
        if not self._told_spent:
            self._told_spent = True
            logger.warning(
                "step %.0f: %s: the budget of %d treatments is spent", self._ledger.step, rule, self._policy.budget
            )
        return True

    def apply(self, treatment: Treatment, occasion: Occasion) -> list[Done] | Refused:
        """All actions of a treatment, or none: what was done is undone if one of them is refused or fails, anywhere."""
        done, refused = self._done_here(treatment, occasion)
        try:
            is_done = self._patient.agree(refused is None)
        except Exception:
            self._undo(done)
            raise
        if not is_done:
            self._undo(done)
            return refused or Refused("it was refused or failed on another rank")
        if any("weights" in one.changes for one in done):
            self._patient.spread()
        for one in done:
            if one.rewound_to is not None:
                self._patient.snapshots.drop_after(one.rewound_to)
                self.back_at = 2 * occasion.step - one.rewound_to
                self._rewound()
        return done

    @staticmethod
    def _undo(done: Sequence[Done]) -> None:
        for one in reversed(done):
            one.undo()

    def _done_here(self, treatment: Treatment, occasion: Occasion) -> tuple[list[Done], Refused | None]:
        """The actions of a treatment, in this process; what was done before a refusal is undone."""
        done: list[Done] = []
        # Knobs before weights: they are undone for nothing.
        for name, arguments in sorted(treatment.actions, key=lambda action: action[0] == "rewind"):
            result: Done | Refused = Refused(f"there is no action {name}")
            try:
                if name in ACTIONS:
                    result = ACTIONS[name](self._patient, arguments, occasion)
            except Exception as error:  # a remedy that fails must not break the training
                logger.warning("step %.0f: %s failed and is undone", occasion.step, name, exc_info=True)
                result = Refused(f"it failed with {type(error).__name__}: {error}")
            if isinstance(result, Refused):
                self._undo(done)
                return [], result
            done.append(result)
        if not self._is_new(treatment, done):
            self._undo(done)
            return [], Refused("the same was tried before, in vain")
        return done, None

    def _is_new(self, treatment: Treatment, done: Sequence[Done]) -> bool:
        """Whether an act differs from those reverted so far: at a knob's floor one is the same as the one before."""
        self._latest = (treatment.name, tuple((key, new) for one in done for key, (_, new) in one.changes.items()))
        return self._latest not in self._in_vain

    def judge(self, judge: Judge) -> Finding | None:
        """Keep the treatment of a finding if it worked; if its time is over, revert it and begin the next.

        Returns a finding that goes on though its treatment was kept: steps that were too small may still be.
        """
        course = self.course
        if course is None or course.finding is None:
            return None
        finding, verify = course.finding, course.treatment.verify
        ticks = judge.ticks(course.rule)
        if course.first_tick is None or any(knobs.is_warming_up for knobs in self._patient.knobs):
            course.first_tick = ticks  # steps of a warm-up say little of those after it
        passed = ticks - course.first_tick
        if passed < 1:  # what the judge knows is from before the treatment
            return None
        badness = judge.badness(course.rule)
        course.worst = badness if math.isnan(course.worst) else max(course.worst, badness)
        over = not judge.active(course.rule)
        holds = over if verify is None else judge.verified(course.rule, verify)
        within = course.treatment.within or PATIENCE.get(finding.clock, 1)
        found = effect(finding, verify, judge.measured(course.rule))
        if holds:
            self.keep("the finding has ended" if verify is None else f"{verify} holds", found)
            return finding if finding.category == "undertrained" and not over else None
        if passed >= max(course.deadline, within):
            if over:
                self.keep("the finding has ended", found)
                return None
            if badness <= course.worst * BETTER:  # on its way: a training that begins afresh needs its time
                course.deadline, course.worst = passed + within, badness
                return None
            what = "the finding goes on" if verify is None else f"{verify} does not hold"
            self.revert(f"{what} {passed} {finding.clock} {'tick' if passed == 1 else 'ticks'} later", found)
            self.begin(
                finding.rule,
                finding.message,
                ladder_of(finding),
                since=began(finding),
                finding=finding,
                tried=course.tried,
            )
        return None

    def keep(self, why: str, numbers: Mapping[str, tuple[float, float]] = MappingProxyType({})) -> None:
        """The treatment under way, if any, was a success."""
        if self.course is not None:
            self._quiet_until = self._ledger.step + max(self._policy.cool_down, self._ledger.step / 20)
            self._ledger.settle(self.course.record, "kept", why, numbers)
            self.cured.add(self.course.rule)
            self._began_afresh |= self.course.treatment.begins_afresh
            self.course = None

    def revert(self, why: str, numbers: Mapping[str, tuple[float, float]] = MappingProxyType({})) -> None:
        """The treatment under way, if any, was none: turn its knobs back. Weights that were rewound stay so."""
        course, self.course = self.course, None
        if course is not None:
            for turn_back in course.reverts:
                turn_back()
            self._failed[course.rule] = self._failed.get(course.rule, 0) + 1
            self._in_vain.add(self._latest)
            self._ledger.settle(course.record, "reverted" if course.reverts else "failed", why, numbers)

    def leave_with_the_best(self, rule: str, reason: str) -> None:
        """Put the best weights in place at the end of a run, if the policy allows it and to stop early."""
        if self._policy.best_at_end:
            self.at_once(rule, reason, Treatment(LAST_RESORT), since=self._ledger.step)

    def close(self) -> None:
        """Record what is on probation as such."""
        course, self.course = self.course, None
        if course is not None:
            self._ledger.settle(course.record, "pending", "the run ended before the outcome was known")

    def state_dict(self) -> dict[str, Any]:
        """What was spent and what has failed: plain numbers."""
        return {"spent": self._spent, "failed": dict(self._failed), "quiet_until": self._quiet_until}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another process has spent and tried."""
        self._spent, self._failed = int(state["spent"]), dict(state["failed"])
        self._quiet_until = float(state["quiet_until"])
