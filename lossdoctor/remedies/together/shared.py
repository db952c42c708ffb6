"""Snapshots of one training by several processes: all of them go back to the same step, or none does.

Where parameters are sharded each process copies its own shards, and only all of them together are the weights.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch.optim import Optimizer

from lossdoctor.remedies.keeping.snapshots import Snapshot, Snapshots
from lossdoctor.remedies.together.agreement import Agreement

__all__ = ["SharedSnapshots"]


class SharedSnapshots(Snapshots):
    """What Snapshots does, decided alike on all ranks. What says "all ranks" is called on all at the same step."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        agreement: Agreement,
        is_sharded: bool,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizers, **options)
        self._agreement, self._is_sharded = agreement, is_sharded
        self._tried: float | None = None
        self._is_settled = False
        self._standing_by: dict[float, Snapshot] = {}

    def take(self, step: float) -> bool:
        """As Snapshots'; called on all ranks, of which one may find that its part is not finite."""
        self._tried = step
        self._wait()
        return super().take(step)

    def _wait(self) -> None:
        """Know of every snapshot if it is finite: which are kept must not depend on the speed of a device."""
        for snapshot in self._candidates:
            snapshot.verify(wait=True)
            self._promote()

    def _fits(self) -> bool:
        """As many generations as the rank with the least room can keep: it is asked once, by all ranks."""
        if not self._is_settled:
            self._is_settled = True
            super()._fits()
            self._room = self._agreement.least(self._room)
            self._generations = self._room or self._generations
        return self._room > 0

    def weights_are_finite(self) -> bool | None:
        """Whether the live parameters are, on all ranks; None where reading them would wait for a device."""
        finite = super().weights_are_finite()
        return finite if finite is None or not self._is_sharded else self._agreement.by_all(mine=finite)

    @property
    def newest_step(self) -> float | None:
        """The step at which the newest snapshot was tried, on all ranks; None if there is none."""
        return self._tried

    def _verified(self) -> list[Snapshot]:
        """The snapshots that all ranks have."""
        self._wait()
        common = self._agreement.common({one.step for one in self._kept})
        return [one for one in self._kept if one.step in common]

    def drop_after(self, step: float) -> None:
        """Drop snapshots younger than `step`."""
        super().drop_after(step)
        self._tried = None if self._tried is None else min(self._tried, step)

    # -- the best weights

    def stand_by(self, step: float) -> None:
        """Copy this rank's shards at an evaluation: rank 0 may find that they are the best, and says so later."""
        if self._is_sharded:
            with suppress(MemoryError):
                self._standing_by[step] = self.copy(step, optimizers=False)

    def adopt_best(self, step: float, value: float) -> bool:
        """Keep the weights of an evaluation as the best, as rank 0 has found; False if they are not finite.

        Of shards all ranks do so. Where not every rank has those of that step, as it did not report the evaluation, the
        present ones stand in for them on all.
        """
        if not self._is_sharded:
            return super().adopt_best(step, value)
        known = [*self._standing_by.values(), self._best_candidate, self._best]
        found = next((one for one in known if one is not None and one.step == step), None)
        self._standing_by = {}
        if not self._agreement.by_all(mine=found is not None):
            self.stand_by(step)
            found = self._standing_by.pop(step, None)
        is_sound = self._agreement.by_all(mine=found is not None and found.finite is not False)
        self._best, self._best_candidate = None, found if is_sound else None
        if found is not None:
            found.value = value
        return is_sound

    def best_of_all(self) -> Snapshot | None:
        """The weights of the best evaluation, where all ranks have them: shards must be of the same step."""
        if self._best_candidate is not None:
            self._best_candidate.verify(wait=True)
        best = self.best
        mine = set() if best is None else {best.step if self._is_sharded else 0.0}
        return best if self._agreement.common(mine) else None
