"""The rule language's vocabulary: statistics as causal block filters.

A statistic maps a block of ticks to a block of the same length. Output t depends on inputs up to t only, and what it
needs from the past it carries from block to block, as `scipy.signal.lfilter` carries `zi`. Any cut of a series into
blocks therefore gives bit-identical output, which is why live and offline diagnosis share this one implementation.
Running sums would break that law (rounding depends on the cut), so sums are taken afresh over each window, in a fixed
order, and baselines are order statistics.

Blocks are float64 of shape (ticks,) or (ticks, layers); conditions are 1, 0 and NaN for "undecided". NaN is never a
value here: it means that a statistic cannot say yet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import bottleneck as bn
import numpy as np

from lossdoctor.filters import Array, Count, Held, Lag, Moving, Running, Streak, Weighted

__all__ = ["ELEMENTWISE", "MAX_WINDOW", "VOCABULARY", "Array", "Held", "Statistic", "Streak", "Word"]

Statistic: TypeAlias = Callable[..., Array]
"""Called with one array per series argument, block after block."""

MAX_WINDOW = 1000
"""The longest window a rule may ask for; it bounds the cost of a rule from a stranger."""

_NORMAL_MAD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""

_NOISE_TICKS = 64
_START_TICKS = 3


class _Typical:
    """Median of the `window` ticks before this one: a baseline that a new value cannot move."""

    def __init__(self, window: int) -> None:
        self._lag, self._median = Lag(), Moving(window)

    def __call__(self, block: Array) -> Array:
        return self._median(self._lag(block))


class _Spread:
    """Robust standard deviation of the `window` ticks before this one: 1.4826 x the median of |x - typical(x)|.

    Rules that ask for it ask for typical(x) too: where that is known it is handed in, in every block.
    """

    def __init__(self, window: int) -> None:
        self._typical, self._deviation = _Typical(window), _Typical(window)

    def __call__(self, block: Array, typical: Array | None = None) -> Array:
        return _NORMAL_MAD * self._deviation(np.abs(block - (self._typical(block) if typical is None else typical)))


def _mean(window: int) -> Statistic:
    """Mean of the last `window` ticks."""
    return Weighted(np.full(window, 1.0 / window))


def _change(window: int) -> Statistic:
    """Rise of the least-squares line over the last `window` ticks, in units of the series; negative when it falls."""
    position = np.arange(window) - (window - 1) / 2
    return Weighted(position * (window - 1) / np.sum(position**2)) if window > 1 else Weighted(np.zeros(1))


class _Last:
    """The latest value that was observed."""

    def __init__(self) -> None:
        self._held = Held()

    def __call__(self, block: Array) -> Array:
        return self._held(block, ~np.isnan(block))


class _First:
    """The first value that was observed."""

    def __init__(self) -> None:
        self._at_first = _AtFirst()

    def __call__(self, block: Array) -> Array:
        return self._at_first(block, ~np.isnan(block))


class _Start:
    """Median of the first three values: where the series began, robust to one odd value."""

    def __init__(self) -> None:
        self._seen = Count()
        self._values = [Held() for _ in range(_START_TICKS)]
        self._settled: Array | None = None

    def __call__(self, block: Array) -> Array:
        if self._settled is not None:
            return np.broadcast_to(self._settled, block.shape)
        present = ~np.isnan(block)
        seen = self._seen(present.astype(np.float64))
        held = [value(block, present & (seen == number)) for number, value in enumerate(self._values, start=1)]
        median: Array = bn.nanmedian(np.stack(held), axis=0)
        if len(block) and np.all(seen[-1] >= _START_TICKS):
            self._settled = median[-1:].copy()
        return median


class _AtLowest:
    """`y` at the tick where `x` was lowest so far (the first of equals)."""

    def __init__(self) -> None:
        self._lowest, self._before, self._held = Running(np.fmin), Lag(), Held()

    def __call__(self, y: Array, x: Array) -> Array:
        y, x = np.broadcast_arrays(y, x)
        lowest = self._lowest(x)
        before = self._before(lowest)
        return self._held(y, ~np.isnan(x) & ~(lowest >= before))


class _AtTrough:
    """`y` at the tick where `x` was lowest since its highest value so far: the bottom of what follows the top."""

    def __init__(self) -> None:
        self._highest, self._before, self._held = Running(np.fmax), Lag(), Held()
        self._low: Array | None = None

    def __call__(self, y: Array, x: Array) -> Array:
        y, x = np.broadcast_arrays(y, x)
        if not len(x):
            return self._held(y, np.zeros(x.shape, dtype=np.bool_))
        highest = self._highest(x)
        tops = ~np.isnan(x) & ~(highest <= self._before(highest))
        columns = x.reshape(len(x), -1)
        low = np.full(columns.shape[1], np.nan) if self._low is None else self._low
        taken = np.zeros(columns.shape, dtype=np.bool_)
        for layer, top in enumerate(tops.reshape(columns.shape).T):
            starts = np.flatnonzero(top)
            for begin, end in pairwise([0, *starts[starts > 0].tolist(), len(x)]):
                carry = np.nan if top[begin] else low[layer]
                lowest = np.fmin.accumulate(np.concatenate(([carry], columns[begin:end, layer])))
                low[layer] = lowest[-1]
                taken[begin:end, layer] = ~np.isnan(columns[begin:end, layer]) & ~(lowest[1:] >= lowest[:-1])
        self._low = low
        return self._held(y, taken.reshape(x.shape))


class _AtFirst:
    """`y` at the first tick where the condition held; NaN before."""

    def __init__(self) -> None:
        self._count, self._held = Count(), Held()
        self._settled: Array | None = None

    def __call__(self, y: Array, condition: Array) -> Array:
        if self._settled is not None:
            return np.broadcast_to(self._settled, (len(y), *self._settled.shape[1:]))
        y, condition = np.broadcast_arrays(y, condition)
        count = self._count(condition)
        held = self._held(y, (condition == 1) & (count == 1))
        if len(y) and (count[-1] >= 1).all():
            self._settled = held[-1:].copy()
        return held


class _Share:
    """Share of the last `window` ticks in which the condition held; decided once the window is full."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._count, self._past, self._ticks = Count(), Lag(window), 0

    def __call__(self, condition: Array) -> Array:
        total = self._count(condition)
        past = self._past(total)
        tick = np.arange(self._ticks + 1, self._ticks + 1 + len(condition))
        self._ticks += len(condition)
        full = (tick >= self._window).reshape(-1, *(1,) * (condition.ndim - 1))
        return np.where(full, (total - np.where(np.isnan(past), 0, past)) / self._window, np.nan)


class _Noise:
    """Tick-to-tick noise of a series, apart from its trend: a robust standard deviation.

    The median over the last `window` ticks of |x[t] - 2 x[t-1] + x[t-2]| / (0.6745 sqrt 6): the second difference of
    white noise has variance 6 and no line leaves a trace in it.
    """

    def __init__(self, window: int = _NOISE_TICKS) -> None:
        self._difference = Weighted(np.array([1.0, -2.0, 1.0]))
        self._median = Moving(window, enough=1)

    def __call__(self, block: Array) -> Array:
        noise: Array = _NORMAL_MAD / np.sqrt(6.0) * self._median(np.abs(self._difference(block)))
        return noise


class _Progress:
    """How far a series has come down: start - lowest, but at least three times its noise. Never negative."""

    def __init__(self) -> None:
        self._start, self._lowest, self._noise = _Start(), Running(np.fmin), _Noise()

    def __call__(self, block: Array) -> Array:
        fallen = self._start(block) - self._lowest(block)
        return np.fmax(fallen, 3 * self._noise(block))


class _Setback:
    """Share of its progress that a series has given back: (x - lowest) / progress.

    The same for a x + b with a > 0. Measured: healthy validation losses lose at most 1.2 %, overfit ones 57 % and more.
    """

    def __init__(self) -> None:
        self._lowest, self._progress = Running(np.fmin), _Progress()

    def __call__(self, block: Array) -> Array:
        progress = self._progress(block)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(progress > 0, (block - self._lowest(block)) / progress, np.nan)


def _across(reduce: Callable[..., Array]) -> Statistic:
    def across(block: Array) -> Array:
        if block.ndim == 1:
            return block
        reduced: Array = reduce(block, axis=1) if block.size else np.full(len(block), np.nan)
        return reduced.reshape(len(block), 1)

    return across


def _highest_across(rows: Array, axis: int) -> Array:
    highest: Array = np.fmax.reduce(rows, axis=axis)
    return highest


def _last_across(rows: Array, axis: int) -> Array:
    last: Array = np.take(rows, [-1], axis=axis)
    return last


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the rule language: how many series it takes, whether a window follows, and what makes its filter.

    `beside` is another word of the same series and window; its values are a further argument of the filter.
    """

    make: Callable[..., Statistic]
    meaning: str
    series: int = 1
    window: bool = False
    default_window: int | None = None
    beside: str = ""


VOCABULARY: Mapping[str, Word] = MappingProxyType(
    {
        "last": Word(_Last, "the latest observed value"),
        "first": Word(_First, "the first observed value"),
        "start": Word(_Start, "the median of the first three values"),
        "lowest": Word(lambda: Running(np.fmin), "the lowest value so far"),
        "highest": Word(lambda: Running(np.fmax), "the highest value so far"),
        "at_lowest": Word(_AtLowest, "at_lowest(y, x): y where x was lowest so far", series=2),
        "at_trough": Word(_AtTrough, "at_trough(y, x): y where x was lowest since its highest so far", series=2),
        "at_first": Word(_AtFirst, "at_first(y, condition): y where the condition first held", series=2),
        "typical": Word(_Typical, "typical(x, w): median of the w ticks before this one", window=True),
        "spread": Word(
            _Spread,
            "spread(x, w): robust standard deviation of the w ticks before this one",
            window=True,
            beside="typical",
        ),
        "recent_low": Word(
            lambda window: Moving(window, enough=1, of=bn.move_min),
            "recent_low(x, w): the lowest of the last w ticks",
            window=True,
        ),
        "median": Word(Moving, "median(x, w): median of the last w ticks", window=True),
        "mean": Word(_mean, "mean(x, w): mean of the last w ticks", window=True),
        "change": Word(_change, "change(x, w): rise of the fitted line over the last w ticks", window=True),
        "noise": Word(
            _Noise,
            "noise(x, w): tick-to-tick noise of the last w ticks, by default 64, apart from the trend",
            window=True,
            default_window=_NOISE_TICKS,
        ),
        "progress": Word(_Progress, "how far the series has come down from its start"),
        "setback": Word(_Setback, "share of its progress that the series has given back"),
        "before": Word(Lag, "before(x, n): the value n ticks ago, by default 1", window=True, default_window=1),
        "share": Word(_Share, "share(condition, w): share of the last w ticks in which it held", window=True),
        "streak": Word(Streak, "ticks in a row in which the condition held"),
        "count": Word(Count, "ticks so far in which the condition held"),
        "across_median": Word(lambda: _across(bn.nanmedian), "the median over the layers at this tick"),
        "across_last": Word(lambda: _across(_last_across), "the value of the last layer at this tick"),
        "across_max": Word(lambda: _across(_highest_across), "the highest value over the layers at this tick"),
    }
)
"""Statistics with state, by the name rules use."""


ELEMENTWISE: Mapping[str, tuple[Callable[..., Any], int]] = MappingProxyType(
    {
        "abs": (np.abs, 1),
        "log": (np.log, 1),
        "sqrt": (np.sqrt, 1),
        "round": (np.round, 1),
        "min": (np.minimum, 2),
        "max": (np.maximum, 2),
    }
)
"""Functions of the values at one tick, with the number of their arguments (`min` and `max` take two or more)."""
