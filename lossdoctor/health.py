"""Why a run is healthy: the schedule recognized, norms, losses, gaps and throughput, each with its numbers."""

from collections.abc import Mapping

import numpy as np

from lossdoctor import benign
from lossdoctor.clocks import Ticks
from lossdoctor.few_rows import FewRows, few_rows
from lossdoctor.schedules import describe_schedule
from lossdoctor.statistics import Array

__all__ = ["EVALUATION_NAMES", "INTERVAL_NAMES", "Health"]

INTERVAL_NAMES = benign.INTERVAL_NAMES | {
    "last_learning_rate",
    "median_train_loss",
    "median_grad_norm",
    "mean_data_wait",
    "mean_step_time",
}
"""Interval signals that reasons are made from."""

EVALUATION_NAMES = frozenset({"val_loss", "val_accuracy", "mean_train_loss"})
"""The same on the evaluation clock."""

_NORMS_CALM = 10.0
_WAIT_SMALL = 0.1
_GAP_SMALL = 0.1
_STOOD = 0.01
"""Share of its level by which a loss that "fell" has fallen; below, it stood."""
_GIVEN_BACK = 0.25
"""Share of what val_loss had gained; one that has given back more speaks for nothing."""
_LONG = 24
"""Ticks of which a quarter has a median that hardly fluctuates."""
_SURE = 2.2
"""Times the median of the second differences, which is 1.65 times the noise: four times what the difference between a
median of three and one of six or more fluctuates by."""


class Health:
    """Collects, tick by tick, what the reasons of a healthy verdict are made of: a few hundred numbers for any run.

    `facts` are the numbers of the run, read when reasons are asked for.
    """

    def __init__(self, facts: Mapping[str, float] | None = None) -> None:
        self._facts = {} if facts is None else facts
        self._intervals: dict[str, list[Array]] = {name: [] for name in ("step", *sorted(INTERVAL_NAMES))}
        self._evaluations: dict[str, list[Array]] = {name: [] for name in ("step", *sorted(EVALUATION_NAMES))}

    def observe(self, intervals: Ticks, evaluations: Ticks) -> None:
        """Take in the next ticks."""
        for store, ticks in ((self._intervals, intervals), (self._evaluations, evaluations)):
            for name, chunks in store.items():
                chunks.append(ticks.signals[name])

    def reasons(self) -> list[str]:
        """Plain sentences; only those that speak for the run."""
        intervals, evaluations = self._columns()
        return [
            *self.signs_of_learning(),
            *filter(
                None,
                (
                    _gap(evaluations["val_loss"], evaluations["mean_train_loss"]),
                    _schedule(intervals["step"], intervals["last_learning_rate"]),
                    _norms(intervals["median_grad_norm"]),
                    _waiting(intervals["mean_data_wait"], intervals["mean_step_time"]),
                ),
            ),
            *benign.patterns(intervals, evaluations, self._facts),
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

    def few_rows(self) -> FewRows | None:
        """What is plain where rows are means and too few for the rules; None where there are many."""
        return few_rows(*self._columns())

    def _columns(self) -> tuple[dict[str, Array], dict[str, Array]]:
        intervals, evaluations = (
            {name: np.concatenate(chunks) if chunks else np.empty(0) for name, chunks in store.items()}
            for store in (self._intervals, self._evaluations)
        )
        return intervals, evaluations


def _fell(values: Array) -> bool:
    """Whether the last value is lower than the first, and in a longer series by more than the values fluctuate.

    In a noisy series of some length the last quarter is lower than the first three values: a median of some fluctuates
    less.
    """
    if len(values) <= 8:  # noqa: PLR2004 - a median of some
        return bool(values[-1] < values[0])
    noise = float(np.median(np.abs(np.diff(values, 2))))
    lower = np.median(values[:3]) - np.median(values[-(len(values) // 4) :])
    return bool(values[-1] < values[0] - 4 * noise or (len(values) >= _LONG and lower > _SURE * noise))


def _course(first: float, last: float) -> str:
    """In which words a fall is told: what has hardly moved did not fall."""
    if abs(first - last) <= _STOOD * max(abs(first), abs(last)):
        return f"stood at {last:.3g}"
    return f"fell from {first:.3g} to {last:.3g}"


def _fall(name: str, values: Array) -> str:
    values = values[~np.isnan(values)]
    if len(values) < 4 or not _fell(values):  # noqa: PLR2004 - fewer ticks are no trend
        return ""
    return f"{name} {_course(values[0], values[-1])}"


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
    if values[-1] - values[best] > _GIVEN_BACK * (values[0] - values[best]):
        return ""
    where = "its lowest" if best == len(values) - 1 else f"lowest {values[best]:.3g} at step {step[best]:.0f}"
    return f"val_loss {_course(values[0], values[-1])} ({where})"


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


def _gap(val: Array, train: Array) -> str:
    both = ~np.isnan(val) & ~np.isnan(train)
    val, train = val[both], train[both]
    if len(val) < 3 or not train.max() > train[-1]:  # noqa: PLR2004 - fewer evaluations are no trend
        return ""
    share = float((val[-1] - train[-1]) / (train.max() - train[-1]))
    if not 0 <= share <= _GAP_SMALL:
        return ""
    return f"val_loss ends {share:.1%} of what training gained above the training loss"
