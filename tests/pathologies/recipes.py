"""The labelled list of trainings, a file a family.

`RECIPES` grows by lines: a recipe is a task with its model, settings of the one loop, faults, and a label.
"""

from tests.pathologies.climbs import CLIMBS
from tests.pathologies.endings import ENDINGS
from tests.pathologies.gaps import GAPS
from tests.pathologies.generalization import GENERALIZATION
from tests.pathologies.healthy import HEALTHY
from tests.pathologies.healthy_architectures import HEALTHY_ARCHITECTURES
from tests.pathologies.healthy_settings import HEALTHY_SETTINGS
from tests.pathologies.instability import INSTABILITY
from tests.pathologies.learning import LEARNING
from tests.pathologies.lookalikes import LOOKALIKES
from tests.pathologies.numerics import NUMERICS
from tests.pathologies.recipe import Recipe
from tests.pathologies.schedules import SCHEDULES
from tests.pathologies.sparse import SPARSE
from tests.pathologies.stability import STABILITY
from tests.pathologies.standstill import STANDSTILL
from tests.pathologies.standstill_healthy import STANDSTILL_HEALTHY
from tests.pathologies.throughput import THROUGHPUT
from tests.pathologies.wiring import WIRING
from tests.pathologies.wiring_healthy import WIRING_HEALTHY
from tests.pathologies.wrong_data import WRONG_DATA

__all__ = ["RECIPES", "Recipe"]

RECIPES = (
    *HEALTHY,
    *HEALTHY_ARCHITECTURES,
    *HEALTHY_SETTINGS,
    *NUMERICS,
    *STABILITY,
    *INSTABILITY,
    *LEARNING,
    *LOOKALIKES,
    *GENERALIZATION,
    *GAPS,
    *SCHEDULES,
    *STANDSTILL,
    *STANDSTILL_HEALTHY,
    *THROUGHPUT,
    *WIRING,
    *WRONG_DATA,
    *WIRING_HEALTHY,
    *ENDINGS,
    *CLIMBS,
    *SPARSE,
)
