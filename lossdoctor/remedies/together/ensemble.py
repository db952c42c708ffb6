"""One training by several processes: every rank does the same thing at the same step, as rank 0 finds.

Each rank has a Remediator of its own, and all go through the same states, because they are told the same: what rank
0's judge says, at fixed steps, and whether gradients are finite. Replicas see that alike, as their gradients were
reduced before; ranks with shards add up their flags (see `exchange`). Where weights are put back, replicas are sent
those of rank 0, so that they are equal beyond doubt; of shards each rank puts back its own, of the same step.
"""

from collections.abc import Mapping, Sequence

import msgspec

from lossdoctor.findings import Finding
from lossdoctor.judging import Standing
from lossdoctor.remedies.remediator import Remediator
from lossdoctor.remedies.together.company import Company
from lossdoctor.remedies.together.exchange import LeftError
from lossdoctor.remedies.treatments import Judge

__all__ = ["Ensemble"]


class _Told(msgspec.Struct, frozen=True):
    """What rank 0 tells the others at a treatment."""

    findings: list[Finding]
    standing: dict[str, Standing]
    best: tuple[float, float] | None
    broken: bool
    """Whether a rank has left: then all stop treating, at this step."""


class _Hearsay:
    """Rank 0's judge, as the others know it."""

    def __init__(self, standing: Mapping[str, Standing]) -> None:
        self._standing = standing

    def _of(self, rule: str) -> Standing:
        return self._standing.get(rule, Standing())

    def verified(self, rule: str, verify: str) -> bool | None:
        """Whether a fix's `verify` condition holds."""
        return self._of(rule).verified.get(verify)

    def active(self, rule: str) -> bool:
        """Whether the finding is going on."""
        return self._of(rule).active

    def ticks(self, rule: str) -> int:
        """Ticks of the rule's clock."""
        return self._of(rule).ticks

    def measured(self, rule: str) -> Mapping[str, float]:
        """The rule's measures."""
        return self._of(rule).measured

    def badness(self, rule: str) -> float:
        """How bad it is, by the rule's peak measure."""
        return self._of(rule).badness

    def standing(self) -> Mapping[str, Standing]:
        """All of it."""
        return self._standing


class Ensemble:
    """Stands where a Remediator would, on every rank. Call `act` and `settle` at the same steps on all of them."""

    def __init__(self, remediator: Remediator, company: Company) -> None:
        self._remediator, self._company, self._agreement = remediator, company, company.agreement
        self._findings: list[Finding] = []
        self._best: tuple[float, float] | None = None

    @property
    def multipliers(self) -> list[float]:
        """What each optimizer's learning rate is multiplied by."""
        return self._remediator.multipliers

    def after_step(self, step: float, *, finite: bool | None) -> None:  # noqa: ARG002 - another rank's loss may be finite
        """An optimizer step is over. Gradients tell all ranks alike whether it was finite; a rank's loss does not.

        Raises LeftError where a rank has left, on all ranks with shards after the same step.
        """
        if self._company.is_over:
            raise LeftError
        self._remediator.after_step(step, finite=None)

    def evaluated(self, step: float, values: Mapping[str, float]) -> None:
        """An evaluation is over: rank 0's counts, whether or not the others made one."""
        if self._agreement.rank:
            if self._company.is_sharded:
                self._remediator.stand_by(step)
        else:
            before = self._remediator.best
            self._remediator.evaluated(step, values)
            best = self._remediator.best
            if best is not None and best != before:
                self._best = (best.step, best.value)

    def act(self, findings: Sequence[Finding], step: float) -> None:  # noqa: ARG002 - acted upon in `settle`
        """Note new findings; they are acted upon when all ranks know of them."""
        self._findings.extend(findings)

    def settle(self, judge: Judge, step: float) -> None:
        """Act upon and settle what rank 0 finds, on all ranks alike."""
        self._agreement.new_round()
        agreement = self._agreement
        told = agreement.from_first(
            lambda: _Told(self._findings, dict(judge.standing()), self._best, agreement.is_broken)
        )
        if not isinstance(told, _Told):
            told = msgspec.convert(told, _Told)
        if told.broken:
            raise LeftError
        if told.best is not None and (self._company.is_sharded or self._agreement.rank):
            self._remediator.adopt_best(*told.best)
        self._findings, self._best = [], None
        self._remediator.act(told.findings, step)
        self._remediator.settle(_Hearsay(told.standing), step)

    def close(self, *, crashed: bool = False) -> None:
        """Take out the hooks, and let the other ranks know."""
        self._agreement.leave()
        self._remediator.close(crashed=crashed)
