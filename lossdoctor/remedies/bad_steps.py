"""What follows a non-finite step that was skipped: one account of each episode, and more than skipping if it lasts."""

import msgspec

from lossdoctor.findings import Prescription
from lossdoctor.remedies.action import Occasion, Patient, Refused
from lossdoctor.remedies.ledger import Ledger
from lossdoctor.remedies.skipping import Steps
from lossdoctor.remedies.transactions import Transactions
from lossdoctor.remedies.treatments import Treatment, treatments
from lossdoctor.runs.events import Intervention, Outcome

__all__ = ["BadSteps"]

QUIET = 16
"""Finite steps that end an episode."""

DEFAULT = treatments(
    [Prescription(advice="", action="rewind", applicability="safe", arguments={"factor": 0.5})], unstable=True
)
"""What is done about non-finite steps without end where no rule prescribed anything."""


class BadSteps:
    """The non-finite steps of a run, in episodes; each is one intervention with a count.

    More than `limit` without a finite step between them, or weights that are not finite, ask for a rewind with a lower
    learning rate. After `hopeless` in a row the run is asked to stop, with the best weights there are.
    """

    def __init__(
        self, patient: Patient, ledger: Ledger, transactions: Transactions, *, limit: int, hopeless: int
    ) -> None:
        self._patient, self._ledger, self._transactions = patient, ledger, transactions
        self._limit, self._hopeless = limit, hopeless
        self._record: Intervention | None = None
        self._seen = Steps()
        self._count = 0
        self._rewound = False
        self._last = 0.0
        self._since = 0.0
        self._escalate_after = limit
        self._good_steps = 0
        self.in_a_row = 0
        """Non-finite steps without a finite one between them, up to now."""
        self.prescribed: dict[str, list[Treatment]] = {}
        """By rule: what its finding prescribes after `skip_step`."""

    def bad(self, seen: Steps, *, loss: bool) -> None:
        """A non-finite step was made. `loss` says that the loss was not finite."""
        step = self._ledger.step
        if self._record is None:
            self._count, self._seen, self._rewound = 0, Steps(), False
            rule = "non_finite_loss" if loss else "non_finite_gradient"
            reason = "a step with a non-finite loss or gradient must not reach the weights"
            self._record = self._ledger.write(rule, "skip_step", reason, {"skipped_steps": (0.0, 1.0)})
        if not self.in_a_row:
            self._since = step
            self._escalate_after = self._limit
        self._last = step
        self._count += 1
        self.in_a_row += 1
        self._seen += Steps(skipped=bool(seen.skipped), dirty=bool(seen.dirty))
        sound = self._patient.snapshots.weights_are_finite()
        poisoned = bool(seen.dirty) if sound is None else not sound
        rule = self._record.rule
        if self.in_a_row >= self._hopeless:
            self._give_up(rule)
        elif poisoned and not self._rewound:
            self._rewound = self._transactions.at_once(
                rule, "Non-finite values reached the weights.", Treatment((("rewind", {}),)), since=self._since
            )
        elif poisoned:
            self._rewind(rule, "non-finite values reached the weights again")
        elif self.in_a_row > self._escalate_after:
            self._escalate_after *= 2
            self._escalate(rule)
        self._good_steps = 0

    def good(self) -> None:
        """A finite step was made."""
        self.in_a_row = 0
        self._good_steps += 1
        course = self._transactions.course
        if course is not None and course.finding is None and self._good_steps >= self._limit:
            self._transactions.keep(f"{self._good_steps} finite steps followed")
        if self._record is not None and self._ledger.step - self._last >= QUIET:
            self.close("kept", "the steps are finite again")

    def _escalate(self, rule: str) -> None:
        course = self._transactions.course
        if course is not None and course.finding is None and course.record.step >= self._since:
            self._transactions.revert("no step was finite after it either: the learning rate is not the cause")
            self._escalate_after = self._hopeless
        else:
            self._rewind(rule, f"{self.in_a_row} steps in a row were not finite")

    def _rewind(self, rule: str, why: str) -> None:
        """Skipping is not enough: go back and lower the learning rate."""
        course = self._transactions.course
        tried = course.tried if course is not None else frozenset()
        self._transactions.revert(why)
        ladder = self.prescribed.get(rule) or DEFAULT
        self._transactions.begin(rule, f"{why}.", ladder, since=self._since, tried=tried)

    def _give_up(self, rule: str) -> None:
        if self._patient.stopped:
            return
        why = f"{self.in_a_row} steps in a row were not finite"
        self._transactions.revert(why)
        occasion = Occasion(step=self._ledger.step, since=self._since)
        done = self._transactions.apply(Treatment((("early_stop", {}),)), occasion)
        if isinstance(done, Refused):  # no best weights: the last sound ones
            done = self._transactions.apply(Treatment((("rewind", {}),)), occasion)
        self._patient.stopped = True
        changes = {} if isinstance(done, Refused) else done[0].changes
        self._ledger.settle(
            self._ledger.write(rule, "early_stop", f"{why}.", changes), "kept", "the training was asked to stop"
        )
        self.close("failed", f"{why}.")

    def close(self, outcome: Outcome, why: str) -> None:
        """End the episode, if there is one, with an account of it."""
        record, self._record = self._record, None
        if record is not None:
            record = msgspec.structs.replace(record, changes={"skipped_steps": (0.0, float(self._count))})
            self._ledger.settle(record, outcome, f"{self._told()}; {why}")

    def _told(self) -> str:
        seen = self._seen
        parts = [f"{seen.skipped} kept from the weights"] if seen.skipped else []
        if seen.dirty:
            parts.append(f"{seen.dirty} reached the weights before that was known")
        if rest := self._count - seen.skipped - seen.dirty:
            parts.append(f"{rest} with a non-finite loss but finite gradients, or skipped by the GradScaler")
        return f"{self._count} non-finite {'step' if self._count == 1 else 'steps'}: {', '.join(parts)}"
