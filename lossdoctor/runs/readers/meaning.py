"""From a foreign log to runs: what its columns mean, where its trainings begin, which rows are steps or evaluations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lossdoctor.errors import LogError
from lossdoctor.runs.events import Mark
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.readers.axis import Attempt, Axis, attempts, axis_of, restricted
from lossdoctor.runs.readers.blanks import with_hidden_nans
from lossdoctor.runs.readers.choice import Choice, chosen, is_of_agent, wanted
from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.names import understand
from lossdoctor.runs.readers.sums import without_running_sums
from lossdoctor.runs.tables import Column, Run, Table

__all__ = ["runs_of"]

_MEANS = frozenset(
    {"HF Trainer", "LLaMA-Factory", "Detectron2", "MMDetection", "fairseq", "Transformer-XL", "Megatron"}
)
"""Formats whose training loss is a mean (or median) over the steps since the row before."""
_PLANNED_STEPS = ("max_steps", "total_steps", "max_iters", "max_iter", "max_step", "train_iters", "num_iterations")
_PLANNED_EPOCHS = ("epochs", "num_epochs", "max_epochs", "num_train_epochs", "total_epochs", "n_epochs")
_MADE = re.compile(r"^(log|median|max)\((.*)\)$")
_MOST_STEPS = 1e12
"""Trainers without a plan write the largest integer."""
_EARLY = 10
_TOO_LARGE, _TOO_SMALL = 1.5, 0.2
"""A training loss is another quantity than the validation loss where at last it is more than so many times as large,
or begins with less than such a share of it."""


def runs_of(log: Log, mapping: Mapping[str, str] = MappingProxyType({}), *, strict: bool = True) -> list[Run]:
    """The runs in a log, ready to be judged.

    `mapping` says which column is which signal where the guess is wrong: {"val_loss": "eval/nll"}; an empty column
    leaves a signal out, "step" is the axis. Unless `strict`, columns that the log does not have are passed over. Raises
    LogError where nothing in the log can be judged.
    """
    mapping = wanted(log, mapping, strict=strict)
    log = with_hidden_nans(replace(log, series={name: series for name, series in log.series.items() if len(series.at)}))
    if axis_name := mapping.get("step"):
        log = replace(log, series={"step": log.series[axis_name], **_without(log, "step")})
    summed, log = log, without_running_sums(log)
    notes = [
        f"{name}: a sum over each epoch; its mean since the row before is used"
        for name, series in log.series.items()
        if series is not summed.series[name]
    ]
    axis = axis_of(log)
    found = attempts(log, axis)
    runs = []
    for number, attempt in enumerate(found, 1):
        inside = restricted(log, attempt)
        choices = [choice for choice in chosen(inside, mapping) if len(choice.series.at)]
        if any(choice.signal.startswith(("train_loss", "val_loss", "val_acc", "train_acc")) for choice in choices):
            name = "/".join(filter(None, (log.name, f"{number}" if len(found) > 1 else "")))
            runs.append(_run(log, axis, attempt, choices, name, notes=notes))
    if not runs:
        columns = ", ".join([name for name in log.series if not _is_axis(name)][:12]) or "none"
        raise LogError(
            f"{log.path}: no loss or accuracy is recognized in this {log.format} file (columns: {columns}); "
            "say which column is the loss with --map train_loss=COLUMN"
        )
    return runs


def _without(log: Log, name: str) -> dict[str, Series]:
    return {other: series for other, series in log.series.items() if other.lower() != name}


def _is_axis(name: str) -> bool:
    return understand(name).role in {"step", "epoch", "time"}


def _run(log: Log, axis: Axis, attempt: Attempt, choices: Sequence[Choice], name: str, *, notes: Sequence[str]) -> Run:
    step_choices, evaluation_choices = _unique(choices, "step"), _unique(choices, "evaluation")
    step_choices = _with_rate(_without_validation(step_choices, evaluation_choices), attempt.step)
    steps = _table(step_choices, attempt.step)
    clock = log.series.get("wall_time", log.series.get("_timestamp"))
    evaluations = _table(evaluation_choices, attempt.step)
    info = RunInfo(
        name=name or log.path.name,
        started=log.started,
        config=dict(log.config),
        total_steps=_planned(log.config, axis),
        losses_comparable=_comparable(steps, evaluations),
    )
    if info.started is None and clock is not None and len(clock.values):
        info.started = float(clock.values[0])
    means = axis.epochs or log.format in _MEANS or log.rows_are_means
    means = means or any(choice.signal == "train_loss" and "epoch" in choice.origin.lower() for choice in choices)
    return Run(
        name=name or log.path.name,
        path=log.path,
        info=info,
        steps=steps,
        evaluations=evaluations,
        marks=tuple(
            Mark(name="resume", step=step, time=log.started or 0.0) for step in (*log.resumed, *attempt.resumed)
        ),
        warnings=(*log.warnings, *_unjudged(log, choices)),
        rows_are_means=means,
        read_as=(*_described(log, axis, attempt, [*step_choices, *evaluation_choices], info), *notes),
    )


def _unjudged(log: Log, choices: Sequence[Choice]) -> list[str]:
    """Why the losses of a log are not judged, though it has some."""
    parts = [choice.origin for choice in choices if choice.signal.startswith("train_loss_")]
    if not parts or any(choice.signal == "train_loss" for choice in choices):
        return []
    why = (
        "those of an agent that makes its own data, as a reward was logged"
        if is_of_agent(log)
        else "those of networks that play against each other"
    )
    what = "they need not fall, and only whether they are finite is judged"
    return [f"{log.path}: the losses ({', '.join(parts)}) are {why}: {what}; --map train_loss=COLUMN has one judged"]


def _unique(choices: Sequence[Choice], clock: str) -> list[Choice]:
    """One column a signal: the last, so that the user's goes before any guess."""
    return list({choice.signal: choice for choice in choices if choice.clock == clock}.values())


def _without_validation(choices: list[Choice], evaluations: Sequence[Choice]) -> list[Choice]:
    """What was measured in the training only: times and rates may stand in the rows of a validation too."""
    loss = next((choice.series.at for choice in choices if choice.signal == "train_loss"), None)
    if loss is None or not evaluations:
        return choices
    others = np.setdiff1d(np.concatenate([choice.series.at for choice in evaluations]), loss)
    kept = []
    for choice in choices:
        own = ~np.isin(choice.series.at, others)
        if choice.clock == "step" and not choice.signal.startswith("train_") and own.any():
            choice = replace(choice, series=Series(choice.series.values[own], choice.series.at[own]))  # noqa: PLW2901
        kept.append(choice)
    return kept


def _with_rate(choices: list[Choice], step: npt.NDArray[np.float64]) -> list[Choice]:
    """The learning rate at the rows of the loss, where it has steps of its own: it holds until the next is logged."""
    by_signal = {choice.signal: choice for choice in choices}
    rate, loss = by_signal.get("learning_rate"), by_signal.get("train_loss")
    if rate is None or loss is None or np.isin(step[loss.series.at], step[rate.series.at]).any():
        return choices
    latest = np.searchsorted(rate.series.at, loss.series.at, "right") - 1
    known = latest >= 0
    laid = Series(rate.series.values[latest[known]], loss.series.at[known])
    return [replace(choice, series=laid) if choice is rate else choice for choice in choices]


def _table(choices: Sequence[Choice], step: npt.NDArray[np.float64]) -> Table:
    """The rows on which any of the columns was logged; rows of one step are one where no column has two of them."""
    if not choices:
        return Table()
    rows = np.unique(np.concatenate([choice.series.at for choice in choices]))
    places, steps = np.arange(len(rows)), step[rows]
    merged, which = np.unique(steps, return_inverse=True)
    at = {choice.signal: np.searchsorted(rows, choice.series.at) for choice in choices}
    if len(merged) < len(rows) and all(len(np.unique(which[own])) == len(own) for own in at.values()):
        places, steps = which, merged
    columns = {"step": Column(steps.astype(np.float64))}
    for choice in choices:
        observed = np.zeros(len(steps), dtype=np.bool_)
        values = np.full(len(steps), np.nan, dtype=np.float32)
        own = places[at[choice.signal]]
        observed[own] = True
        with np.errstate(over="ignore"):
            values[own] = choice.series.values
        columns[choice.signal] = Column(values, None if observed.all() else observed)
    return Table(columns)


def _planned(config: Mapping[str, Any], axis: Axis) -> int | None:
    """How long the training was to be, in the unit of the axis."""
    if axis.name == "row":
        return None
    for key in _PLANNED_EPOCHS if axis.epochs else _PLANNED_STEPS:
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST_STEPS:
            return int(value)
    return None


def _comparable(steps: Table, evaluations: Table) -> bool | None:
    """Whether training and validation loss seem to be the same quantity; None where it cannot be told.

    A training loss that stays far above the validation loss has something in it that the other has not (mixup, a
    penalty, dropout); one that begins far below is another loss, or was divided by something.
    """
    if "train_loss" not in steps.columns or "val_loss" not in evaluations.columns:
        return None
    train, val = steps.columns["train_loss"].values, evaluations.columns["val_loss"].values
    bounds = np.searchsorted(steps.step, evaluations.step, "right")
    ratios = []
    for begin, end, loss in zip([0, *bounds[:-1]], bounds, val, strict=True):
        span = train[begin:end][np.isfinite(train[begin:end])]
        if len(span) and np.isfinite(loss) and loss > 0 and (span > 0).all():
            ratios.append(float(np.median(span)) / float(loss))
    if len(ratios) < 3:  # noqa: PLR2004  too few to tell
        return None
    early = ratios[: max(1, len(ratios) // _EARLY)]
    late = ratios[-max(3, len(ratios) // 3) :]
    return bool(np.median(late) <= _TOO_LARGE and np.median(early) >= _TOO_SMALL)


def _columns_of(origin: str) -> list[str]:
    """The columns in the words that say what a signal was made of."""
    plain = _MADE.sub(r"\2", origin.removesuffix(" (--map)").removesuffix(" x 100").removesuffix(" / 1000"))
    return re.split(r" \+ |, ", plain)


def _described(log: Log, axis: Axis, attempt: Attempt, choices: Sequence[Choice], info: RunInfo) -> list[str]:
    """What was taken for what, a line each."""
    unit = "epochs" if axis.epochs else "rows" if axis.name == "row" else "steps"
    lines = [f"format: {log.format}", f"step: {axis.name} ({unit})"]
    for choice in choices:
        spoilt = int((~np.isfinite(choice.series.values)).sum())
        wrong = f", {spoilt} of them not finite" if spoilt else ""
        lines.append(f"{choice.signal}: {choice.origin} ({len(choice.series.at)} values{wrong})")
    if info.losses_comparable is False:
        lines.append("train_loss and val_loss: not the same quantity, by their sizes; they are not compared")
    lines += [
        f"resumed at step {step:g}: what was logged beyond is left out" for step in (*log.resumed, *attempt.resumed)
    ]
    used = {part for choice in choices for part in _columns_of(choice.origin)}
    others = [name for name in log.series if name not in used and not _is_axis(name)]
    if others:
        more = ", …" if len(others) > 20 else ""  # noqa: PLR2004  a glance
        lines.append(f"not used: {', '.join(others[:20])}{more}")
    return lines
