"""A recipe: one training and its label."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.pathologies.settings import Settings
from tests.pathologies.tasks import TASKS, Task

__all__ = ["AFTER_BLOWUP", "AFTER_NAN", "AFTER_STANDSTILL", "Recipe", "recipe"]

# What follows from a fault and is therefore no false alarm, ids as words.
AFTER_NAN = "non_finite_loss non_finite_gradient"
AFTER_BLOWUP = (
    "divergence exploding_gradient vanishing_gradient loss_spike not_learning plateau underfitting "
    "non_finite_loss non_finite_gradient dead_units saturated_units collapsed_output validation_stalled"
)
AFTER_STANDSTILL = "not_learning slow_learning plateau underfitting dead_units collapsed_output validation_stalled"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training of the corpus, and what a careful reader of its curves says is wrong with it.

    `expected`: the pathologies accepted as the leading cause (none for a healthy run; more than one where two names are
    equally right). `consequences`: what may also be found without being a false alarm. `since`: the first and the last
    step at which the leading finding may begin.
    """

    name: str
    task: str
    settings: Settings
    model: Mapping[str, Any] = field(default_factory=dict)
    expected: frozenset[str] = frozenset()
    consequences: frozenset[str] = frozenset()
    since: tuple[float, float] | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.expected

    def make_task(self) -> Task:
        """The task with this recipe's model."""
        return TASKS[self.task](**self.model)


def recipe(
    name: str,
    task: str,
    expected: str = "",
    consequences: str = "",
    *,
    model: Mapping[str, Any] = MappingProxyType({}),
    since: tuple[float, float] | None = None,
    **settings: Any,
) -> Recipe:
    """A recipe, with ids given as words of one string and settings as keywords."""
    causes, effects = frozenset(expected.split()), frozenset(consequences.split())
    return Recipe(name, task, Settings(**settings), dict(model), causes, effects, since)
