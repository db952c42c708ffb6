"""Scales of a drawing: linear or logarithmic, robust against a few wild values, with ticks that people can read."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.reports.printable import number

__all__ = ["Scale", "fitting", "step_ticks", "ticks"]

Values = npt.NDArray[np.float64]

_THOUSANDS, _MILLION = 1e4, 1e6
"""Beside an axis, numbers from here on are written with a k, and with an exponent."""

_WIDE = 30.0
"""Ratio of a signal's usual largest to its usual smallest value from which on it is drawn on a logarithmic scale."""

_FAR = 6.0
"""Multiples of the usual spread by which a value must lie outside to be marked at the edge instead of being fitted."""

_USUAL = (0.01, 0.99)
"""Quantiles between which values are usual."""

_ROOM = 0.06
"""Empty part of the axis above and below the values."""

_MOSTLY = 0.95
"""Share of values that must be positive for a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to heights: 0 at `low`, 1 at `high`; logarithmic where that shows more."""

    low: float
    high: float
    logarithmic: bool = False

    def heights(self, values: Values) -> Values:
        """Where values lie; what is beyond the ends is moved onto them.

        >>> Scale(0.01, 100.0, logarithmic=True).heights(np.array([0.0, 1.0, 1e9]))
        array([0. , 0.5, 1. ])
        """
        low, high = self.low, self.high
        if self.logarithmic:
            values = np.log10(np.maximum(values, np.finfo(np.float64).tiny))
            low, high = math.log10(low), math.log10(high)
        # Halves first: high - low may overflow for values near the largest float.
        height: Values = np.clip((values / 2 - low / 2) / (high / 2 - low / 2), 0.0, 1.0)
        return height

    def beyond(self, values: Values) -> npt.NDArray[np.bool_]:
        """Which values are marked at an edge, as they do not fit."""
        outside: npt.NDArray[np.bool_] = (values > self.high) | (values < self.low)
        return outside


def fitting(curves: list[Values], *, logarithmic: bool | None = None, from_zero: bool = False) -> Scale:
    """The scale on which finite values of several curves are shown best; `logarithmic` forces the choice.

    >>> fitting([np.linspace(0.5, 2.0, 50)]).logarithmic, fitting([np.geomspace(1e-5, 1.0, 50)]).logarithmic
    (False, True)
    """
    known = [values for values in curves if len(values)]
    if not known:
        return Scale(0.0, 1.0)
    if logarithmic is None:
        logarithmic = any(map(_is_wide, known))
    everything = np.concatenate(known)
    logarithmic = logarithmic and bool((everything > 0).any())
    if logarithmic:
        known = [np.log10(values[values > 0]) for values in known if (values > 0).any()]
    bounds = np.array([_bounds(values) for values in known])
    low, high = float(bounds[:, 0].min()), float(bounds[:, 1].max())
    if from_zero and not logarithmic:
        low = min(low, 0.0)
    flat = high - low <= 1e-9 * max(abs(low), abs(high))
    middle = abs(high) or 1.0
    pad = (0.3 if logarithmic else 0.1 * middle) if flat else _ROOM * high - _ROOM * low
    floor = 0.0 if low >= 0 and not logarithmic else -math.inf  # what is never negative needs no negative axis
    low, high = max(low - pad, floor), high + pad
    if logarithmic:
        return Scale(10.0 ** max(low, -307.0), 10.0 ** min(high, 308.0), logarithmic=True)
    return Scale(max(low, -1.7e308), min(high, 1.7e308))


def ticks(scale: Scale, most: int = 5) -> list[tuple[float, str]]:
    """Values worth a label within the scale, with their labels; at most about `most`.

    >>> ticks(Scale(0.0, 2.4)), [label for _, label in ticks(Scale(1e-5, 1.0, logarithmic=True), 3)]
    ([(0.0, '0'), (0.5, '0.5'), (1.0, '1'), (1.5, '1.5'), (2.0, '2')], ['0.0001', '0.01', '1'])
    """
    if scale.logarithmic:
        found = _decades(scale, most)
        if len(found) > 1:
            return [(value, _label(value)) for value in found]
    return _even(scale.low, scale.high, most)


def step_ticks(first: float, last: float, most: int = 6) -> list[tuple[float, str]]:
    """Ticks of the step axis, labelled with all digits up to a million and with k and M beyond."""
    found = [value for value, _ in _even(first, last, most)]
    if last - first >= 1:
        found = [value for value in found if value == round(value)]
    return [(value, _step_label(value, last)) for value in found]


def _step_label(step: float, last: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if last >= unit * (1 if unit > 1e3 else 100) and step:  # noqa: PLR2004  99,000 is still easy to read
            return f"{number(step / unit)}{letter}"
    return f"{step:,.0f}" if step == round(step) else number(step)


def _label(value: float, digits: int = 4) -> str:
    """A number beside an axis, short.

    >>> [_label(value) for value in (0.001, 2500.0, 65536.0, 3e7)]
    ['0.001', '2500', '65.54k', '3e7']
    """
    size = abs(value)
    if _THOUSANDS <= size < _MILLION:
        return f"{number(value / 1e3, digits=digits)}k"
    if size < _MILLION:
        return number(value, digits=digits)
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def _is_wide(values: Values) -> bool:
    positive = values[values > 0]
    if len(positive) < _MOSTLY * len(values):
        return False
    low, quarter, middle, high, most = np.quantile(positive, (0.02, 0.25, 0.5, 0.98, 1.0))
    return bool(high / _WIDE > low and (high / _WIDE > quarter or middle / _WIDE > low)) or bool(most / _WIDE > middle)


def _bounds(values: Values) -> tuple[float, float]:
    """The ends of the values; of a few that lie far outside of the others, the ends of the others and a little more."""
    low, high = float(values.min()), float(values.max())
    usual_low, usual_high = (float(end) for end in np.quantile(values, _USUAL))
    spread = usual_high - usual_low
    if spread > 0 and math.isfinite(spread):
        if high > usual_high + _FAR * spread:
            high = usual_high + 0.25 * spread
        if low < usual_low - _FAR * spread:
            low = usual_low - 0.25 * spread
    return low, high


def _decades(scale: Scale, most: int) -> list[float]:
    low, high = math.log10(scale.low), math.log10(scale.high)
    begin, end = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    every = max(1, math.ceil((end - begin + 1) / most))
    begin += -begin % every
    within = [10.0**power for power in range(begin, end + 1, every)]
    if len(within) > 2 or high - low > 3:  # noqa: PLR2004  enough to read between
        return within
    parts = (1, 3) if high - low > 1.5 else (1, 2, 5)  # noqa: PLR2004  decades
    finer = [part * 10.0**power for power in range(math.floor(low), end + 1) for part in parts]
    return [value for value in finer if scale.low <= value <= scale.high][: 2 * most]


def _even(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    if not high > low or not math.isfinite(high / 2 - low / 2):
        return [(low, number(low))]
    rough = (high / most - low / most) or high
    power = 10.0 ** math.floor(math.log10(rough))
    width = next((part * power for part in (1, 2, 5, 10) if part * power >= rough * (1 - 1e-9)), 10 * power)
    begin, end = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
    found = [count * width for count in range(begin, min(end, begin + 2 * most) + 1)]
    digits = 4
    while digits < 10 and len({_label(value, digits) for value in found}) < len(found):  # noqa: PLR2004
        digits += 2
    return [(value, _label(0.0 if abs(value) < width / 2 else value, digits)) for value in found]
