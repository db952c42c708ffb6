"""Where in a model numbers first stopped being finite, told from the layer rows of the failing step.

The backward pass goes from the last layer to the first, and what is not finite behind a layer is not finite before it.
So a broken gradient began at the last layer that has one; a broken output at the first. Layers are numbered in recorded
order, from 0, which is the order of the forward pass as far as the order of registration tells.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from lossdoctor.runs.tables import Table

__all__ = ["ORIGINS", "origin"]

ORIGINS: Mapping[str, str] = MappingProxyType(
    {"broken_gradient_layer": "layer_grad_norm", "broken_output_layer": "layer_activation_std"}
)
"""Names of the step clock, and the layer signal that each is made of."""


def origin(name: str, layers: Table, step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The number of the layer where the signal behind `name` first was not finite, at each of the steps `step`.

    NaN where it was finite on every layer, or not measured.
    """
    found = np.full(len(step), np.nan)
    column = layers.columns.get(ORIGINS[name])
    if column is None or not len(step):
        return found
    broken = column.mask() & ~np.isfinite(column.values)
    rows = np.flatnonzero(np.logical_or.reduce(broken, axis=1))
    if not len(rows):
        return found
    numbers = np.arange(broken.shape[1])
    worst = np.where(broken[rows], numbers, -1).max(axis=1)
    first = np.where(broken[rows], numbers, len(numbers)).min(axis=1)
    at = np.searchsorted(step, layers.step[rows])
    here = (at < len(step)) & (step[np.minimum(at, len(step) - 1)] == layers.step[rows])
    found[at[here]] = (worst if name == "broken_gradient_layer" else first)[here]
    return found
