"""What a log of few rows tells where each row is a mean over an epoch: whether it plainly shows that all is well.

Such rows have hardly any noise, so a few of them show what takes a hundred single steps. Falls are judged by the order
of the values (Kendall's rank correlation with time), which knows no units and no outliers. Only what is plain counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lossdoctor.filters import Array

__all__ = ["FewRows", "few_rows"]

_FEWEST = 5
"""Rows: of four in falling order one in 24 is so by chance, of five one in 120."""
_FEWEST_EVALUATIONS = 3
_MOST = 200
"""Rows or evaluations from which on a log is none of few rows: every pair of them is looked at."""
_TREND = 2.2
"""Standard deviations of Kendall's S: five values in falling order have 2.204, six with two out of order 1.88."""
_LEAST = 0.045
"""Share of the first loss that has to be gained: two trainings that rested at ln 2 gained 0.013 and 0.033 in 18 epochs,
the slowest sound one, a fine-tuning, 0.058 in five."""
_LOWEST = 0.25
"""Share of the rows whose training loss may be lower than the last."""
_ROSE = 0.4
"""Share of its range, the first row left aside, by which the training loss may rise on the way: 0.27 in a sound log at
most, 0.65 where gradients were never cleared."""
_GUESSES = (2, 10, 100, 1000)
_AT_GUESS = 0.01
"""Share of ln C: a loss that ends so near, for two rows, may be that of guessing among C."""
_NEAR = 0.15
"""Share of what the validation gained, the worst evaluation left aside, that it may have lost again since its best."""
_FALLING = 0.35
"""The same where the validation falls over the whole log: small validation sets swing."""
_TURNED = 3
"""Evaluations since the best, most of them in rising order: it has turned."""
_RISING = 0.6
"""Kendall's tau of evaluations that rise."""
_RIGHT = 0.9
"""An accuracy that needs not rise."""
_GROWN = 1.25
"""Times its first value: an accuracy that has risen in whichever order; those of models at chance came to 1.2."""
_PERCENT = 1.5
"""Accuracies above it are in percent."""


@dataclass(frozen=True, slots=True)
class FewRows:
    """What a short log tells: `rows` in words ("8 epochs"), and what keeps it from being plain; empty where it is."""

    rows: str
    missing: str


def few_rows(intervals: Mapping[str, Array], evaluations: Mapping[str, Array]) -> FewRows | None:
    """Judge a short log; None where it is not short.

    `intervals` has "step" and "median_train_loss", `evaluations` "step", "val_loss" and "val_accuracy"; NaN for null.
    """
    step, train = _known(intervals, "median_train_loss")
    if max(len(train), len(evaluations["step"])) > _MOST:
        return None
    rows = f"{len(train)} {'epoch' if _counted(step) else 'row'}{'' if len(train) == 1 else 's'}"
    return FewRows(rows, _training(step, train) or _validation(evaluations))


def _known(columns: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    seen = ~np.isnan(columns[name])
    return columns["step"][seen], columns[name][seen]


def _counted(step: Array) -> bool:
    """Whether the rows are numbered one by one, as epochs are."""
    return bool(len(step)) and step[0] in {0, 1} and bool((np.diff(step) == 1).all())


def _training(step: Array, train: Array) -> str:
    """Why the training loss does not plainly fall."""
    if len(train) < _FEWEST:
        return f"with fewer than {_FEWEST} nothing is plain"
    best, later = int(np.argmin(train)), train[1:]
    rose = float((later - np.minimum.accumulate(later)).max())
    if (
        _order(train) > -_TREND
        or np.mean(train < train[-1]) > _LOWEST
        or rose > _ROSE * float(later.max() - later.min())
    ):
        return (
            f"the training loss does not plainly fall: {train[0]:.4g} at first, "
            f"{train[best]:.4g} at step {step[best]:g}, {train[-1]:.4g} at the end"
        )
    if train[0] - train[-1] < _LEAST * max(abs(train[0]), abs(train[-1])):
        return f"the training loss came down by little, from {train[0]:.4g} to {train[-1]:.4g}"
    for number in _GUESSES:
        if (np.abs(train[-2:] - np.log(number)) < _AT_GUESS * np.log(number)).all():
            return f"the training loss ended at {train[-1]:.4g}, near that of guessing among {number}"
    return ""


def _validation(evaluations: Mapping[str, Array]) -> str:
    """Why the validation does not plainly go along; it need not where there is none."""
    step, loss = _known(evaluations, "val_loss")
    at, accuracy = _known(evaluations, "val_accuracy")
    if len(loss):
        return _stays("val_loss", step, loss, 1) or _accuracy(accuracy)
    return _accuracy(accuracy) or _stays("val_accuracy", at, accuracy, -1)


def _accuracy(values: Array) -> str:
    """Why an accuracy is not plainly better than at first."""
    if not len(values):
        return ""
    right = float(values[-1]) / (100 if values.max() > _PERCENT else 1)
    if right >= _RIGHT or values[-1] >= _GROWN * values[0] > 0 or _order(values) >= _TREND:
        return ""
    return f"val_accuracy does not plainly rise: {values[0]:.4g} at first, {values[-1]:.4g} at the end"


def _stays(name: str, step: Array, values: Array, sign: int) -> str:
    """Why a measure is not at its best, the lowest for `sign` 1 and the highest for -1, nor plainly on its way."""
    if not len(values):
        return ""
    if len(values) < _FEWEST_EVALUATIONS:
        return f"{name} was measured {len(values)} times, and {_FEWEST_EVALUATIONS} are needed"
    losses = sign * values
    best = int(np.argmin(losses))
    gained, lost = float(np.sort(losses)[-2] - losses[best]), float(losses[-1] - losses[best])
    falls = _order(losses) <= -_TREND and not _rises(losses[best:])
    if lost <= (_FALLING if falls else _NEAR) * gained:
        return ""
    return f"{name} ended at {values[-1]:.4g}, and was at its best, {values[best]:.4g}, at step {step[best]:g}"


def _rises(values: Array) -> bool:
    pairs = len(values) * (len(values) - 1) / 2
    return len(values) > _TURNED and _concordance(values) >= _RISING * pairs


def _concordance(values: Array) -> float:
    """Kendall's S: pairs in rising order less those in falling order."""
    return float(np.sign(values[np.newaxis, :] - values[:, np.newaxis])[np.triu_indices(len(values), 1)].sum())


def _order(values: Array) -> float:
    """How far the values are in rising order, in standard deviations of values in any order; below 0 they fall."""
    count, pairs = len(values), _concordance(values)
    deviation = (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    return float(np.sign(pairs) * max(abs(pairs) - 1, 0) / deviation)
