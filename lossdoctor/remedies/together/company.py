"""The processes that train one model, treated as one training: what each of them needs for that."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lossdoctor.remedies.action import Patient
from lossdoctor.remedies.policy import Policy, Proposal
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.remedies.together.agreement import Agreement
from lossdoctor.remedies.together.exchange import Exchange, SharedSight
from lossdoctor.remedies.together.shared import SharedSnapshots
from lossdoctor.remedies.together.terms import Terms

__all__ = ["Company"]

logger = logging.getLogger(__name__)


class Company:
    """All ranks. Where parameters are sharded none knows all gradients or all weights, and there is an `exchange`."""

    def __init__(self, agreement: Agreement, exchange: Exchange | None = None) -> None:
        self.agreement, self._exchange = agreement, exchange

    @classmethod
    def gather(
        cls,
        model: nn.Module,
        policy: Policy,
        *,
        shares: Callable[[Sequence[Tensor]], list[float]],
        is_sharded: bool,
        total_steps: int | None,
    ) -> "tuple[Company | None, str]":
        """All ranks, each of which calls this; or why they cannot be treated together."""
        terms = Terms.of(model, policy, total_steps=total_steps, is_sharded=is_sharded)
        agreement, why_not, any_sharded = Agreement.join(terms)
        if agreement is None:
            return None, why_not
        return cls(agreement, Exchange.open(model, shares) if any_sharded else None), ""

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds a part of the model."""
        return self._exchange is not None

    @property
    def is_over(self) -> bool:
        """Whether a rank has left, and all ranks with shards know of it."""
        return self._exchange is not None and self._exchange.is_over

    def asked_once(self, policy: Policy) -> Policy:
        """The policy, with a question before each act that only rank 0 is asked."""
        if policy.before_act is None:
            return policy
        return replace(policy, before_act=_by_the_first(policy.before_act, self.agreement))

    def snapshots(self, model: nn.Module, optimizers: Sequence[Optimizer], **options: Any) -> SharedSnapshots:
        """Snapshots of the same steps on all ranks."""
        return SharedSnapshots(model, optimizers, agreement=self.agreement, is_sharded=self.is_sharded, **options)

    def guard(self, optimizer: Optimizer, *, skips: bool) -> StepGuard:
        """A guard that keeps the same steps from the weights on all ranks."""
        shared = None if self._exchange is None else SharedSight(self._exchange)
        return StepGuard(optimizer, skips=skips, waits=True, shared=shared)

    def enter(self, patient: Patient, model: nn.Module) -> None:
        """Let the same acts be done to the patient of each rank.

        Replicas are made equal when weights were put back. Shards are not: each rank has put back its own.
        """
        patient.agree = lambda done: self.agreement.by_all(mine=done)
        if not self.is_sharded:
            patient.spread = partial(self.agreement.spread, model)

    def are_all_sound(self, step: float, *, mine: bool) -> bool:
        """Whether the weights are sound on all ranks at this step. Of replicas each knows that of all."""
        return self.agreement.by_all_at(step, mine=mine) if self.is_sharded else mine


def _by_the_first(ask: Callable[[Proposal], bool | None], agreement: Agreement) -> Callable[[Proposal], bool]:
    """A question that only rank 0 is asked, and whose answer holds for all. One that fails there is a veto."""

    def answer(proposal: Proposal) -> bool:
        try:
            return ask(proposal) is not False
        except Exception:
            logger.warning("before_act failed", exc_info=True)
            return False

    return lambda proposal: bool(agreement.from_first(lambda: answer(proposal)))
