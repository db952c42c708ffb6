"""The labelled list of trainings, a file a family.

`RECIPES` grows by lines: a recipe is a task with its model, settings of the one loop, faults, and a label.
"""

from tests.pathologies.generalization import GENERALIZATION
from tests.pathologies.healthy import HEALTHY
from tests.pathologies.learning import LEARNING
from tests.pathologies.numerics import NUMERICS
from tests.pathologies.recipe import Recipe
from tests.pathologies.stability import STABILITY

__all__ = ["RECIPES", "Recipe"]

RECIPES = (*HEALTHY, *NUMERICS, *STABILITY, *LEARNING, *GENERALIZATION)
