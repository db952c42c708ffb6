"""Choosing between the treatments of a finding by trying them, where the loop gives a step that can be tried."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from lossdoctor.remedies.action import Occasion, Patient
from lossdoctor.remedies.forks import BASELINE, FORK, Bench, Outcome, TrainStep, compared, side_by_side, told
from lossdoctor.remedies.ledger import Ledger
from lossdoctor.remedies.treatments import Treatment

__all__ = ["Choice", "Loop"]

logger = logging.getLogger(__name__)

_MOST = 3
"""Treatments that are tried side by side."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The training step that a loop offers for trying treatments.

    `train_step(number)` takes one step on a batch that is always the same for the same number, 0 and up, and returns
    its loss. While it is at work in `aside()`, nobody takes notice of it. `schedulers` are what it may step.
    """

    train_step: TrainStep
    aside: Callable[[], AbstractContextManager[None]]
    schedulers: Sequence[Any] = ()


class Choice:
    """Tries the next treatments of a finding over the same batches, and says which of them to begin with.

    That is the next one on the ladder, unless a later one is better than the training as it is *and* better than that
    one beyond doubt. Everything is put back. Each trial is an intervention with its table; a training step that
    fails is asked no more, and the ladder decides.
    """

    def __init__(
        self, loop: Loop, patient: Patient, ledger: Ledger, *, model: nn.Module, also: Sequence[Any] = (), steps: int
    ) -> None:
        self._loop, self._patient, self._ledger, self._steps = loop, patient, ledger, steps
        self._model, self._also = model, [*also]
        self._fails = False

    def _bench(self, occasion: Occasion) -> Bench:
        patient = self._patient
        return Bench(
            model=self._model,
            optimizers=[knobs.optimizer for knobs in patient.knobs],
            scaler=patient.scaler,
            schedulers=self._loop.schedulers,
            also=self._also,
            standing=[knobs.state_dict() for knobs in patient.knobs],
            snapshots=patient.snapshots,
            occasion=occasion,
        )

    def first_of(self, rule: str, ladder: Sequence[Treatment], rungs: Sequence[int], occasion: Occasion) -> int | None:
        """The rung of the ladder to begin with, of those given in order; None where there is nothing to choose."""
        tried = {number: ladder[number].actions for number in rungs if _can_be_tried(ladder[number])}
        tried = dict(list(tried.items())[:_MOST])
        if self._fails or len(tried) < 2 or next(iter(tried)) != rungs[0]:  # noqa: PLR2004 - one is no choice
            return None
        names = {number: told(actions) for number, actions in tried.items()}
        if len(set(names.values())) < len(names):
            return None
        try:
            with self._loop.aside():
                candidates = {names[number]: actions for number, actions in tried.items()}
                found = side_by_side(self._bench(occasion), self._loop.train_step, candidates, range(self._steps))
        except Exception as error:  # the loop's own code, which may do anything
            self._fails = True
            logger.warning("train_step failed; what was tried is put back, nothing is tried again", exc_info=True)
            why = f"train_step failed with {type(error).__name__}: {error}; everything was put back"
            record = self._ledger.write(rule, "trial", f"Which of {', '.join(names.values())}?", {})
            self._ledger.settle(record, "failed", why)
            return None
        outcomes = {one.name: one for one in found.outcomes}
        first = next(iter(tried))
        chosen = self._best([outcomes[names[number]] for number in tried])
        record = self._ledger.write(rule, "trial", f"{self._steps} steps each, over the same batches:\n{found}", {})
        self._ledger.settle(record, "tried", f"{chosen.name} is the treatment to begin with: {_why(chosen)}")
        return next((number for number in tried if names[number] == chosen.name), first)

    def _best(self, outcomes: Sequence[Outcome]) -> Outcome:
        """The first of the outcomes, or another that is better than both it and the training as it is."""
        first, *others = outcomes
        ahead = [one for one in others if one.verdict == "better"]
        if not first.refused:
            ahead = [one for one in ahead if compared(one, first, self._steps).verdict == "better"]
        return min(ahead, key=lambda one: one.difference, default=first)


def _can_be_tried(treatment: Treatment) -> bool:
    return all(name in (*FORK, "rewind") for name, _ in treatment.actions)


def _why(chosen: Outcome) -> str:
    return f"{chosen.verdict} than {BASELINE}" if chosen.verdict in {"better", "worse"} else chosen.verdict
