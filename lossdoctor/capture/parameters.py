"""Parameters that do not take part: without a gradient, in no optimizer, or never moved."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.optim import Optimizer

from lossdoctor.capture.modules import Inventory, without_optimizer

__all__ = ["ParameterWatch"]

_SAMPLES_WITHOUT = 2
"""Sample steps in a row without a gradient: one may be left out of a single batch (an expert, a dropped layer)."""
_SAMPLES_STILL = 3
"""Sample steps at which a parameter had a gradient and did not move."""
_OUTSIDE = -1


class ParameterWatch:
    """Remembers, over sample steps, which parameters of a model do not take part in its training."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self._without: dict[int, dict[int, int]] = {}
        """By optimizer: for how many sample steps in a row a parameter had no gradient, by id."""
        self._outside: dict[str, Tensor] = {}
        self._forgotten: list[str] = []
        self._versions: dict[int, int] = {}
        self._moved: set[int] = set()
        self._still: dict[int, int] = {}
        self.samples = 0
        """Sample steps so far."""

    def begin(self, inventory: Inventory) -> None:
        """A sample step begins."""
        self.samples += 1
        names = without_optimizer(inventory.parameters, self._optimizers)
        self._outside = {name: inventory.parameters[name] for name in names}
        # What is changed in place between sample steps is in the hands of an optimizer that we were not given.
        versions = {id(one): one._version for one in self._outside.values()}  # noqa: SLF001
        known, self._versions = self._versions, versions
        self._forgotten = [
            name for name, one in self._outside.items() if known.get(id(one), versions[id(one)]) == versions[id(one)]
        ]

    def saw(self, number: int, parameters: Iterable[Tensor]) -> None:
        """The gradients of an optimizer's parameters are complete."""
        self._count(number, parameters)
        self._count(_OUTSIDE, self._outside.values())

    def _count(self, number: int, parameters: Iterable[Tensor]) -> None:
        known = self._without.get(number, {})
        self._without[number] = {
            id(one): known.get(id(one), 0) + 1
            for one in parameters
            if one.grad is None and one.requires_grad and one.numel()
        }

    def stepped(
        self, ids: Sequence[int], updates: Sequence[float], gradients: npt.NDArray[np.float64], at_rest: set[int]
    ) -> None:
        """An optimizer's step is over: norms of the updates and the gradients (NaN for none) of its parameters.

        `at_rest` are the ids of those whose learning rate is 0.
        """
        changes = np.asarray(updates, dtype=np.float64)
        still = np.flatnonzero((changes == 0) & (gradients > 0) & np.isfinite(gradients)).tolist()
        self._moved.update(ids[at] for at in np.flatnonzero(changes != 0).tolist())
        for at in still:
            if ids[at] not in at_rest:
                self._still[ids[at]] = self._still.get(ids[at], 0) + 1

    # -- the lists

    def without_gradient(self, inventory: Inventory) -> list[str]:
        """Parameters that require a gradient and had none at the last sample steps."""
        return inventory.named(
            one for seen in self._without.values() for one, times in seen.items() if times >= _SAMPLES_WITHOUT
        )

    def without_optimizer(self) -> list[str]:
        """Parameters that require a gradient, are in no group, and were not changed by anyone else."""
        return self._forgotten

    def never_moved(self, inventory: Inventory) -> list[str]:
        """Parameters that never changed at a sample step although they had gradients and a learning rate."""
        still = (one for one, times in self._still.items() if times >= _SAMPLES_STILL and one not in self._moved)
        return inventory.named(still)
