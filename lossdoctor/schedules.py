"""Learning-rate schedules in words, recognized from their values at some steps."""

import numpy as np

from lossdoctor.filters import Array

__all__ = ["describe_schedule"]

_SHAPE_TOLERANCE = 0.03
_LONG_RISE = 0.5
"""A rise that takes longer than this share of the run is no warm-up."""
_ONE_CYCLE = (0.24, 0.1)
"""The hump of a one-cycle schedule takes at least this share of the run, and begins below this share of its top."""
_JUMP = 2.0
"""A restart at least doubles the learning rate from one value to the next."""


def describe_schedule(step: Array, rate: Array) -> str:
    """A learning-rate schedule in words, from its values at some steps; empty where there are too few.

    >>> steps = np.arange(1.0, 101.0)
    >>> describe_schedule(steps, np.full(100, 1e-3))
    'constant 0.001'
    >>> describe_schedule(steps, np.minimum(steps / 20, (100 - steps) / 80) * 1e-3)
    'linear warm-up over 20 steps to 0.001, then linear decay to 0'
    """
    if len(rate) < 4:  # noqa: PLR2004 - no shape
        return ""
    peak = float(rate.max())
    if peak <= 0:
        return ""
    if rate.min() >= peak * (1 - 1e-6):
        return f"constant {peak:.3g}"
    top = int(np.argmax(rate >= peak * (1 - 1e-6)))
    if top > 1 and rate[top - 1] == rate[0]:
        return f"{rate[0]:.3g}, raised to {peak:.3g} by step {step[top]:.0f}, then {_decay(step[top:], rate[top:])}"
    rising = bool(np.all(np.diff(rate[: top + 1]) >= 0)) and top > 0
    if rising and step[top] > _LONG_RISE * step[-1]:
        rise = f"rises from {rate[0]:.3g} to {peak:.3g} by step {step[top]:.0f}"
        return rise if top == len(rate) - 1 else f"{rise}, then {_decay(step[top:], rate[top:])}"
    words = f"linear warm-up over {step[top]:.0f} steps to {peak:.3g}" if rising else f"starts at {rate[0]:.3g}"
    line = np.interp(step[: top + 1], step[[0, top]], rate[[0, top]])
    if rising and _deviation(rate[: top + 1], line) > 2 * _SHAPE_TOLERANCE:
        words = f"warm-up over {step[top]:.0f} steps to {peak:.3g}"
    longest, lowest = _ONE_CYCLE
    if rising and step[top] >= longest * step[-1] and rate[-1] <= rate[0] < lowest * peak:
        words = f"one cycle: up from {rate[0]:.3g} to {peak:.3g} at step {step[top]:.0f}"
    decay = _decay(step[top:], rate[top:])
    return f"{words}, then {decay}" if rising else f"{words}, {decay}"


def _decay(step: Array, rate: Array) -> str:
    first, last = float(rate[0]), float(rate[-1])
    if len(rate) < 3 or first == 0 or rate.min() >= first * (1 - 1e-6):  # noqa: PLR2004 - no shape
        return "constant"
    if np.any(np.diff(rate) > first * 1e-6):
        if repeats := _repeats(rate):
            return f"{repeats} between {first:.3g} and {rate.min():.3g}"
        return f"varies between {rate.min():.3g} and {first:.3g}"
    drops = np.flatnonzero(np.diff(rate) < -first * 1e-9)
    if len(drops) <= max(3, len(rate) // 5):
        return f"{len(drops)} drop{'s' if len(drops) > 1 else ''} to {last:.3g}"
    # The schedule begins to fall at the last step at its top.
    top = int(np.flatnonzero(rate >= first * (1 - 1e-6))[-1])
    step, rate = step[top:], rate[top:]
    phase = (step - step[0]) / (step[-1] - step[0])
    shapes = {
        "linear decay": first + (last - first) * phase,
        "cosine": last + (first - last) * 0.5 * (1 + np.cos(np.pi * phase)),
    }
    if last > 0:
        shapes["exponential decay"] = first * (last / first) ** phase
    name, shape = min(shapes.items(), key=lambda item: _deviation(rate, item[1]))
    return f"{name if _deviation(rate, shape) <= _SHAPE_TOLERANCE else 'decay'} to {last:.3g}"


def _repeats(rate: Array) -> str:
    """Warm restarts, or cycles up and down; empty where it is neither."""
    change = np.diff(rate)
    jumps = (change > 0) & (rate[1:] >= _JUMP * rate[:-1]) & (rate[1:] >= rate[0] / _JUMP)
    falls = np.count_nonzero(change[~jumps] < 0)
    if jumps.any() and falls >= np.count_nonzero(change[~jumps] > 0) * 4:
        number = int(np.count_nonzero(jumps))
        return f"{number} warm restart{'s' if number > 1 else ''}"
    moves = np.sign(change[change != 0])
    turns = int(np.count_nonzero(moves[1:] != moves[:-1]))
    # A schedule that was stepped past its end turns once, as does one that anneals to a higher rate for averaging.
    return f"{turns // 2 + 1} cycles" if turns >= 3 else ""  # noqa: PLR2004 - down, up, down, up


def _deviation(values: Array, shape: Array) -> float:
    span = float(np.ptp(values)) or 1.0
    return float(np.max(np.abs(values - shape))) / span
