"""Patterns that look wrong and are not: what a careful reader of the curves would point out and wave through."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from lossdoctor.filters import Array

__all__ = ["INTERVAL_NAMES", "patterns"]

Columns: TypeAlias = Mapping[str, Array]

INTERVAL_NAMES = frozenset(
    {
        "first_learning_rate",
        "max_grad_norm",
        "max_train_loss",
        "median_grad_norm",
        "median_train_loss",
        "min_train_loss",
        "max_skipped",
        "max_frozen_parameters",
        "first_train_loss",
    }
)
"""Interval signals that patterns are recognized by."""

_FEW = 4
"""Fewer ticks are no pattern."""
_SPIKE = 10.0
"""Times the usual gradient norm."""
_FIRST_SHARE = 0.25
"""The scaler looks for its scale in the first so many steps of a run."""
_BELOW = 0.7
"""Of the evaluations: val_loss lies below the training loss."""
_PRETRAINED = 0.6
"""Of chance: a first loss below it was learned before."""


def patterns(intervals: Columns, evaluations: Columns, facts: Mapping[str, float]) -> list[str]:
    """Plain sentences on the benign patterns of a run.

    `intervals` has "step" and `INTERVAL_NAMES`, `evaluations` has "val_loss" and "mean_train_loss", all of one length
    with NaN for null; `facts` are the numbers of the run.
    """
    found = (
        _zero_first(intervals),
        _scaler(intervals),
        _gradient_spike(intervals),
        _below_training(evaluations, facts),
        _frozen(intervals),
        _fine_tuning(intervals, facts),
    )
    return [sentence for sentence in found if sentence]


def _zero_first(intervals: Columns) -> str:
    rate = intervals["first_learning_rate"]
    rate = rate[~np.isnan(rate)]
    if len(rate) < _FEW or rate[0] != 0 or not rate.max() > 0:
        return ""
    return "the learning rate is 0 at the first update, as in every warm-up from zero"


def _scaler(intervals: Columns) -> str:
    step, skipped = intervals["step"], intervals["max_skipped"]
    when = step[skipped > 0]
    if not len(when) or when[-1] > max(_FIRST_SHARE * step[-1], 1):
        return ""
    return f"the scaler skipped steps only while it looked for its scale, up to step {when[-1]:.0f}"


def _gradient_spike(intervals: Columns) -> str:
    norm, highest, loss = intervals["median_grad_norm"], intervals["max_grad_norm"], intervals["max_train_loss"]
    seen = ~np.isnan(norm) & ~np.isnan(highest) & ~np.isnan(loss)
    if seen.sum() < 2 * _FEW:
        return ""
    step, highest, loss = intervals["step"][seen], highest[seen], loss[seen]
    usual = float(np.median(norm[seen]))
    at = int(np.argmax(highest))
    around = np.delete(loss[max(at - _FEW, 0) : at + _FEW + 1], min(at, _FEW))
    if not highest[at] > _SPIKE * usual > 0 or not loss[at] <= around.max():
        return ""
    factor = highest[at] / usual
    height = f"{highest[at]:.3g} by step {step[at]:.0f}, {factor:.0f} x the usual"
    return f"a gradient norm of {height}, left no trace in the loss"


def _below_training(evaluations: Columns, facts: Mapping[str, float]) -> str:
    val, train = evaluations["val_loss"], evaluations["mean_train_loss"]
    seen = ~np.isnan(val) & ~np.isnan(train)
    if seen.sum() < _FEW or np.mean(val[seen] < train[seen]) < _BELOW:
        return ""
    dropout = facts.get("dropout", 0.0)
    reason = f"as under dropout ({dropout:.2g})" if dropout else "as under augmentation, mixup or a mean over the epoch"
    return f"val_loss lies below the training loss, {reason}"


def _frozen(intervals: Columns) -> str:
    frozen = intervals["max_frozen_parameters"]
    frozen = frozen[~np.isnan(frozen)]
    if not len(frozen) or not frozen.max() > 0:
        return ""
    if frozen[-1] < frozen.max():
        return f"{frozen.max():.0f} parameter tensors were frozen at first and {frozen[-1]:.0f} at the end"
    return f"{frozen[-1]:.0f} parameter tensors are frozen"


def _fine_tuning(intervals: Columns, facts: Mapping[str, float]) -> str:
    first, lowest = intervals["first_train_loss"], intervals["min_train_loss"]
    first, classes = first[~np.isnan(first)], facts.get("classes", 0.0)
    if len(first) < _FEW or classes < 2 or np.nanmin(lowest) < 0:  # noqa: PLR2004 - one class is no classification
        return ""
    chance = float(np.log(classes))
    if first[0] >= _PRETRAINED * chance:
        return ""
    return f"it begins at a loss of {first[0]:.3g}, far below chance ({chance:.3g}): the model was trained before"
