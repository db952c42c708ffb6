"""The recordings as a tracker would have logged them: fewer rows, no norms, no layers, nothing known of the model.

Each way of logging takes a run and gives the run that a reader of such a log would see.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from lossdoctor.runs import Run, RunInfo
from lossdoctor.runs.tables import Column, Table

__all__ = ["LOGS", "thin"]

_NUMBERS = ("train_loss", "learning_rate", "train_accuracy")
_RESULTS = ("step", "val_loss", "val_accuracy")


def thin(
    run: Run,
    *,
    every: int = 1,
    means: bool = False,
    numbers: tuple[str, ...] = _NUMBERS,
    results: tuple[str, ...] = _RESULTS,
) -> Run:
    """The run as logged at every `every`-th step, or at its evaluations (0); `means` are over the steps since the last.

    `numbers` and `results` are the columns of training and evaluation that are logged. NaN stays NaN.
    """
    step = run.steps.step
    if every:
        rows = np.flatnonzero(step % every == 0)
    else:
        rows = np.unique(np.searchsorted(step, run.evaluations.step, "right") - 1)
        rows = rows[rows >= 0]
    columns = {"step": Column(step[rows])}
    for name in numbers:
        if name in run.steps.columns:
            columns[name] = _mean(run.steps.columns[name], rows) if means else _picked(run.steps.columns[name], rows)
    evaluations = Table({name: column for name, column in run.evaluations.columns.items() if name in results})
    return Run(
        name=run.name,
        path=run.path,
        info=RunInfo(name=run.name),
        steps=Table(columns),
        evaluations=evaluations if len(evaluations.columns) > 1 else Table(),
        rows_are_means=means,
    )


def _picked(column: Column, rows: np.ndarray) -> Column:
    return replace(
        column, values=column.values[rows], observed=None if column.observed is None else column.mask()[rows]
    )


def _mean(column: Column, rows: np.ndarray) -> Column:
    """The mean of what was observed in the rows up to each of `rows`, since the one before; NaN if any of it is."""
    begins = np.concatenate(([0], rows[:-1] + 1)) if len(rows) else rows
    observed = column.mask()
    values = np.full(len(rows), np.nan, dtype=column.values.dtype)
    for place, (begin, end) in enumerate(zip(begins, rows + 1, strict=True)):
        seen = column.values[begin:end][observed[begin:end]]
        if len(seen):
            with np.errstate(invalid="ignore", over="ignore"):
                values[place] = seen.mean()
    return Column(
        values, np.array([observed[b:e].any() for b, e in zip(begins, rows + 1, strict=True)], dtype=np.bool_)
    )


LOGS: Mapping[str, Callable[[Run], Run]] = MappingProxyType(
    {
        "every step, no norms": thin,
        "every 10th step": lambda run: thin(run, every=10),
        "every 50th step, loss only": lambda run: thin(run, every=50, numbers=("train_loss",)),
        "means of 10 steps": lambda run: thin(run, every=10, means=True, numbers=("train_loss", "learning_rate")),
        "a row an epoch": lambda run: thin(run, every=0, means=True, numbers=("train_loss",)),
        "a row an epoch, accuracy only": lambda run: thin(
            run, every=0, means=True, numbers=("train_accuracy",), results=("step", "val_accuracy")
        ),
    }
)
"""Ways of logging, by their names in the table."""
