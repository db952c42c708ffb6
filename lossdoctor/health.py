"""Why a run is healthy: the schedule recognized, norms, losses and throughput, each with its numbers."""

import numpy as np

from lossdoctor.clocks import Ticks
from lossdoctor.statistics import Array

__all__ = ["INTERVAL_NAMES", "Health", "describe_schedule"]

INTERVAL_NAMES = frozenset(
    {"last_learning_rate", "median_train_loss", "median_grad_norm", "mean_data_wait", "mean_step_time"}
)
"""Interval signals that reasons are made from."""

_SHAPE_TOLERANCE = 0.03
_LONG_RISE = 0.5
"""A rise that takes longer than this share of the run is no warm-up."""
_NORMS_CALM = 10.0
_WAIT_SMALL = 0.1


class Health:
    """Collects, tick by tick, what the reasons of a healthy verdict are made of: a few hundred numbers for any run."""

    def __init__(self) -> None:
        self._intervals: dict[str, list[Array]] = {name: [] for name in ("step", *sorted(INTERVAL_NAMES))}
        self._evaluations: dict[str, list[Array]] = {"step": [], "val_loss": [], "val_accuracy": []}

    def observe(self, intervals: Ticks, evaluations: Ticks) -> None:
        """Take in the next ticks."""
        for store, ticks in ((self._intervals, intervals), (self._evaluations, evaluations)):
            for name, chunks in store.items():
                chunks.append(ticks.signals[name])

    def reasons(self) -> list[str]:
        """Plain sentences; only those that speak for the run."""
        intervals, _ = self._columns()
        return [
            *self.signs_of_learning(),
            *filter(
                None,
                (
                    _schedule(intervals["step"], intervals["last_learning_rate"]),
                    _norms(intervals["median_grad_norm"]),
                    _waiting(intervals["mean_data_wait"], intervals["mean_step_time"]),
                ),
            ),
        ]

    def signs_of_learning(self) -> list[str]:
        """Which losses fell, or accuracies rose, beyond their noise."""
        intervals, evaluations = self._columns()
        found = (
            _fall("training loss", intervals["median_train_loss"]),
            _validation(evaluations["step"], evaluations["val_loss"]),
            _rise("val_accuracy", evaluations["val_accuracy"]),
        )
        return [reason for reason in found if reason]

    def _columns(self) -> tuple[dict[str, Array], dict[str, Array]]:
        intervals, evaluations = (
            {name: np.concatenate(chunks) if chunks else np.empty(0) for name, chunks in store.items()}
            for store in (self._intervals, self._evaluations)
        )
        return intervals, evaluations


def _fell(values: Array) -> bool:
    """Whether the last value is lower than the first, and in a longer series by more than the values fluctuate."""
    noise = float(np.median(np.abs(np.diff(values, 2)))) if len(values) > 8 else 0.0  # noqa: PLR2004 - a median of some
    return bool(values[-1] < values[0] - 4 * noise)


def _fall(name: str, values: Array) -> str:
    values = values[~np.isnan(values)]
    if len(values) < 4 or not _fell(values):  # noqa: PLR2004 - fewer ticks are no trend
        return ""
    return f"{name} fell from {values[0]:.3g} to {values[-1]:.3g}"


def _rise(name: str, values: Array) -> str:
    values = values[~np.isnan(values)]
    if len(values) < 3 or not _fell(-values):  # noqa: PLR2004 - fewer evaluations are no trend
        return ""
    return f"{name} rose from {values[0]:.3g} to {values[-1]:.3g}"


def _validation(step: Array, values: Array) -> str:
    step, values = step[~np.isnan(values)], values[~np.isnan(values)]
    if len(values) < 3 or not _fell(values):  # noqa: PLR2004 - fewer evaluations are no trend
        return ""
    best = int(np.argmin(values))
    where = "its lowest" if best == len(values) - 1 else f"lowest {values[best]:.3g} at step {step[best]:.0f}"
    return f"val_loss fell from {values[0]:.3g} to {values[-1]:.3g} ({where})"


def _norms(values: Array) -> str:
    values = values[~np.isnan(values) & (values > 0)]
    if len(values) < 4:  # noqa: PLR2004 - fewer ticks are no trend
        return ""
    typical = float(np.median(values))
    factor = float(max(values.max() / typical, typical / values.min()))
    return f"gradient norm within {factor:.1f} x of its median {typical:.3g}" if factor <= _NORMS_CALM else ""


def _waiting(wait: Array, time: Array) -> str:
    both = ~np.isnan(wait) & ~np.isnan(time)
    if both.sum() < 4 or not time[both].sum() > 0:  # noqa: PLR2004 - fewer ticks are no trend
        return ""
    share = float(wait[both].sum() / time[both].sum())
    if share >= _WAIT_SMALL:
        return ""
    return f"waits for data {share:.1%} of the time" if share >= 0.001 else "waits for data hardly ever"  # noqa: PLR2004 - rounds to 0.0 %


def _schedule(step: Array, rate: Array) -> str:
    described = describe_schedule(step[~np.isnan(rate)], rate[~np.isnan(rate)])
    return f"LR: {described}" if described else ""


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
    decay = _decay(step[top:], rate[top:])
    return f"{words}, then {decay}" if rising else f"{words}, {decay}"


def _decay(step: Array, rate: Array) -> str:
    first, last = float(rate[0]), float(rate[-1])
    if len(rate) < 3 or first == 0 or rate.min() >= first * (1 - 1e-6):  # noqa: PLR2004 - no shape
        return "constant"
    if np.any(np.diff(rate) > first * 1e-6):
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


def _deviation(values: Array, shape: Array) -> float:
    span = float(np.ptp(values)) or 1.0
    return float(np.max(np.abs(values - shape))) / span
