"""Trying candidate fixes side by side: the same weights, the same batches, one difference."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lossdoctor.errors import UsageError, nearest
from lossdoctor.findings import Prescription
from lossdoctor.monitor import Monitor
from lossdoctor.remedies.action import Occasion, Patient, Refused
from lossdoctor.remedies.actions import ACTIONS
from lossdoctor.remedies.aside import Aside
from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.remedies.snapshots import Snapshots

__all__ = ["Candidate", "Outcome", "Trial", "trial"]

Floats = npt.NDArray[np.float64]
Candidate: TypeAlias = Sequence[tuple[str, Mapping[str, float]]]
"""Actions that are taken together, each with its numbers: [("scale_lr", {"factor": 0.3})]."""

BASELINE = "as it is"
_FORK = ("scale_lr", "warm_up_again", "scale_weight_decay", "tighten_clipping", "skip_batch", "lower_loss_scale")
"""Actions that make sense from where the training stands; a rewind or a stop does not."""
_PIECES = 8
"""The second half is cut into so many pieces whose means are taken for independent."""
_LEAST = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one candidate.

    `losses` are (steps,), shorter where one was not finite. `difference` is the mean of its loss minus that of the
    training as it is, over the second half of the same batches; `low` and `high` are its 95 % interval. `evaluation` is
    what `evaluate` returned at the end. `refused` says why the candidate could not be tried.
    """

    name: str
    losses: Floats
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    evaluation: float | None = None
    refused: str = ""

    @property
    def verdict(self) -> str:
        """Whether it is "better" or "worse", or "no difference" can be told; else why nothing can."""
        if self.refused:
            return f"refused: {self.refused}"
        if math.isnan(self.difference):
            return "not finite"
        return "better" if self.high < 0 else "worse" if self.low > 0 else "no difference"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcomes, the baseline first, then the best by its difference."""

    outcomes: tuple[Outcome, ...]

    @property
    def best(self) -> Outcome | None:
        """The candidate that is better than the training as it is beyond doubt, and best of those; None without one."""
        better = [one for one in self.outcomes if one.verdict == "better"]
        return min(better, key=lambda one: one.difference, default=None)

    def __str__(self) -> str:
        """A table."""
        rows = [("candidate", "last loss", "difference", "95 % interval", "verdict")]
        for one in self.outcomes:
            tail = one.losses[-max(len(one.losses) // 8, 1) :]
            last = f"{float(np.mean(tail)):.4g}" if len(tail) else ""
            known = not math.isnan(one.difference) and one.name != BASELINE
            difference = f"{one.difference:+.3g}" if known else ""
            interval = f"{one.low:+.3g} .. {one.high:+.3g}" if known else ""
            rows.append((one.name, last, difference, interval, "" if one.name == BASELINE else one.verdict))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join(lines)


def trial(
    monitor: Monitor,
    train_step: Callable[[Any], Tensor | float],
    candidates: Mapping[str, Candidate] | None = None,
    *,
    steps: int = 64,
    batches: Sequence[Any] | None = None,
    evaluate: Callable[[], float] | None = None,
) -> Trial:
    """Run candidate fixes from the present state over the same batches, and put everything back.

    Each candidate, and the training as it is, starts from the same weights, optimizer state and random numbers. The
    difference of the losses is paired batch by batch; its interval is Student's over the means of eight pieces, since
    neighbouring losses are not independent.

    Args:
        monitor: The training's Monitor. It does not see what is tried.
        train_step: `train_step(batch)` takes one training step and returns its loss; without `batches` it is given the
            number of the step, from 0, and must use the same batch for the same number.
        candidates: By name, actions that are taken together; default: what the diagnosis so far prescribes.
        steps: Steps for each candidate, at least 16; with `batches` one step for each of them, begun anew at the end.
        batches: The batches to train on.
        evaluate: Called after each candidate's steps, with its weights in place; its number is kept.

    Raises:
        UsageError: There is no candidate, an action does not exist or cannot be tried, or `steps` is too small.
    """
    if steps < _LEAST:
        raise UsageError(f"trial(steps={steps}): fewer than {_LEAST} steps tell nothing apart")
    if batches is not None and not len(batches):
        raise UsageError("trial(batches=[]): there are no batches")
    chosen = _prescribed(monitor) if candidates is None else candidates
    _check(chosen)
    given = list(range(steps)) if batches is None else [batches[number % len(batches)] for number in range(steps)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(monitor.aside())
        aside = Aside(
            monitor.model,
            monitor.optimizers,
            scaler=monitor.scaler,
            schedulers=[one for one in [monitor.scheduler] if one],
        )
        stack.enter_context(aside.held())

        def run(name: str, actions: Candidate) -> Outcome:
            aside.restore()
            with contextlib.ExitStack() as inner:
                refused = _apply(monitor, actions, inner)
                if refused is not None:
                    return Outcome(name, np.empty(0), refused=refused.reason)
                losses = _losses(train_step, given)
                return Outcome(name, losses, evaluation=None if evaluate is None else float(evaluate()))

        baseline = run(BASELINE, ())
        outcomes = [_compared(run(name, actions), baseline.losses, steps) for name, actions in chosen.items()]
    order = sorted(outcomes, key=lambda one: (math.isnan(one.difference), one.difference))
    return Trial((baseline, *order))


def _prescribed(monitor: Monitor) -> dict[str, Candidate]:
    """What the diagnosis so far prescribes and can be tried."""
    found: dict[str, Candidate] = {}
    for finding in monitor.diagnosis().findings:
        for one in finding.prescriptions:
            if one.action in _FORK and not finding.resolved:
                found[_name(one)] = ((one.action, one.arguments),)
    if not found:
        raise UsageError("trial: the diagnosis so far prescribes nothing that can be tried; give candidates")
    return found


def _name(one: Prescription) -> str:
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in one.arguments.items())
    return f"{one.action} ({numbers})" if numbers else f"{one.action}"


def _check(candidates: Mapping[str, Candidate]) -> None:
    if not candidates:
        raise UsageError("trial: there are no candidates")
    for name, actions in candidates.items():
        for action, _ in actions:
            if action not in ACTIONS:
                raise UsageError(f"trial: candidate '{name}': there is no action '{action}'{nearest(action, ACTIONS)}")
            if action not in _FORK:
                raise UsageError(f"trial: candidate '{name}': {action} cannot be tried from where the training stands")


def _apply(monitor: Monitor, actions: Candidate, stack: contextlib.ExitStack) -> Refused | None:
    """Turn knobs of our own, beside those that a doctor may have turned, until the stack is closed."""
    knobs = [OptimizerKnobs(one, StepGuard(one, skips=False), before_step=lambda: None) for one in monitor.optimizers]
    for one in knobs:
        stack.callback(one.close)
    patient = Patient(knobs=knobs, snapshots=Snapshots(monitor.model, monitor.optimizers), scaler=monitor.scaler)
    for action, arguments in actions:
        done = ACTIONS[action](patient, arguments, Occasion(step=0.0, since=0.0))
        if isinstance(done, Refused):
            return done
    return None


def _losses(train_step: Callable[[Any], Tensor | float], given: Sequence[Any]) -> Floats:
    losses: list[float] = []
    for batch in given:
        value = train_step(batch)
        losses.append(float(value.detach() if isinstance(value, Tensor) else value))
        if not math.isfinite(losses[-1]):
            return np.array(losses[:-1])
    return np.array(losses)


def _compared(one: Outcome, baseline: Floats, steps: int) -> Outcome:
    """The same outcome with its difference to the baseline; a baseline that broke off is beaten by what did not."""
    if one.refused or len(one.losses) < steps:
        return one
    if len(baseline) < steps:
        return Outcome(one.name, one.losses, -math.inf, -math.inf, -math.inf, one.evaluation)
    from scipy.stats import t  # noqa: PLC0415 - heavy, and not needed before

    half = (one.losses - baseline)[steps // 2 :]
    pieces = np.array([piece.mean() for piece in np.array_split(half, _PIECES)])
    middle = float(half.mean())
    reach = float(t.ppf(0.975, _PIECES - 1) * pieces.std(ddof=1) / math.sqrt(_PIECES))
    return Outcome(one.name, one.losses, middle, middle - reach, middle + reach, one.evaluation)
