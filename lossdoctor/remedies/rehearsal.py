"""A dry run: says what the doctor would do, and does nothing."""

import logging
from collections.abc import Callable, Mapping, Sequence

from lossdoctor.findings import Finding
from lossdoctor.remedies.ledger import Ledger
from lossdoctor.remedies.policy import Policy
from lossdoctor.remedies.treatments import Judge, is_treatable, ladder_of
from lossdoctor.runs.events import Intervention

__all__ = ["Rehearsal"]

logger = logging.getLogger(__name__)


class Rehearsal:
    """Stands where a Remediator would, with `Policy(dry_run=True)`: the training is bit-identical to one without it.

    The first treatment of each finding that the policy allows is recorded as "proposed". What would follow if it
    failed cannot be known.
    """

    def __init__(self, optimizers: int, *, record: Callable[[Intervention], None], policy: Policy) -> None:
        self._policy, self._ledger = policy, Ledger(record)
        self._told: set[tuple[str, float]] = set()
        self.multipliers = [1.0] * optimizers

    def after_step(self, step: float, *, finite: bool | None) -> None:  # noqa: ARG002 - as a Remediator's
        """Note the step."""
        self._ledger.step = step

    def evaluated(self, step: float, values: Mapping[str, float]) -> None:
        """Nothing to keep."""

    def act(self, findings: Sequence[Finding], step: float) -> None:
        """Say what would be done about new findings."""
        self._ledger.step = max(step, self._ledger.step)
        for finding in findings:
            if not is_treatable(finding) or (finding.rule, finding.since) in self._told:
                continue
            self._told.add((finding.rule, finding.since))
            ladder = ladder_of(finding)
            allowed = (one for one in ladder if all(self._policy.allows(name) for name, _ in one.actions))
            if (treatment := next(allowed, None)) is None:
                continue
            arguments = {name: (number, number) for _, numbers in treatment.actions for name, number in numbers.items()}
            record = self._ledger.write(finding.rule, treatment.name, finding.message, arguments, outcome="proposed")
            logger.info("step %.0f: a dry run: %s was not done", record.step, treatment.name)

    def settle(self, judge: Judge, step: float) -> None:
        """Nothing is on probation."""

    def close(self, *, crashed: bool = False) -> None:
        """Nothing to take out."""
