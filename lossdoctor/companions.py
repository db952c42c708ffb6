"""Companions: what a slower clock says of a step signal over its span, one number for all its values."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import bottleneck as bn
import numpy as np

from lossdoctor.filters import Array

__all__ = ["COMPANIONS"]

_SHARE = 0.9


def _p90(values: Array) -> float:
    """The same as np.percentile(values, 90), which takes ten times as long over the few values of a span."""
    at = (len(values) - 1) * _SHARE
    below = int(at)
    above = min(below + 1, len(values) - 1)
    ordered = np.partition(values, (below, above))
    low, high, weight = float(ordered[below]), float(ordered[above]), at - below
    return low + (high - low) * weight if weight < 0.5 else high - (high - low) * (1 - weight)  # noqa: PLR2004 - halfway


def _around(share: float) -> Callable[[Array], float]:
    """The level at a share of the span: the median of a tenth of its values."""

    def around(values: Array) -> float:
        at, reach = round(share * (len(values) - 1)), len(values) // 20
        return float(bn.nanmedian(values[max(at - reach, 0) : at + reach + 1]))

    return around


COMPANIONS: Mapping[str, Callable[[Array], float]] = MappingProxyType(
    {
        "median": lambda values: float(bn.nanmedian(values)),
        "mean": lambda values: float(np.add.reduce(values) / len(values)),
        "min": lambda values: float(np.minimum.reduce(values)),
        "max": lambda values: float(np.maximum.reduce(values)),
        "p90": _p90,
        "first": lambda values: float(values[0]),
        "last": lambda values: float(values[-1]),
        "count": lambda values: float(len(values)),
        "quarter": _around(0.25),
        "half": _around(0.5),
        "end": _around(1.0),
    }
)
"""What a slower clock says of a step signal over its span, from the finite observed values in order."""
