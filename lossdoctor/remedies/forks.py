"""Trying treatments side by side: the same weights, the same batches, one difference."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from lossdoctor.remedies.action import Occasion, Patient, Refused
from lossdoctor.remedies.actions import ACTIONS
from lossdoctor.remedies.aside import Aside
from lossdoctor.remedies.keeping.snapshots import Snapshots
from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.skipping import StepGuard

__all__ = [
    "BASELINE",
    "FORK",
    "LEAST_STEPS",
    "Bench",
    "Candidate",
    "Outcome",
    "TrainStep",
    "Trial",
    "compared",
    "side_by_side",
    "told",
]

Floats = npt.NDArray[np.float64]
Candidate: TypeAlias = Sequence[tuple[str, Mapping[str, float]]]
"""Actions that are taken together, each with its numbers: [("scale_lr", {"factor": 0.3})]."""
TrainStep: TypeAlias = Callable[[Any], Tensor | float]
"""Takes one training step on what it is given and returns its loss."""

FORK = ("scale_lr", "warm_up_again", "scale_weight_decay", "tighten_clipping", "skip_batch", "lower_loss_scale")
"""Actions that make sense from where the training stands; a rewind or a stop does not."""
BASELINE = "as it is"
LEAST_STEPS = 16
"""Fewer steps tell nothing apart."""
_PIECES = 8
"""The second half is cut into so many pieces whose means are taken for independent."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is tried out on: everything that a few steps may change, and what a treatment may need.

    `standing` are the states of the knobs in force, one for each optimizer; none where none are. `snapshots` are those
    that a rewind may go back to, `occasion` says from which fault.
    """

    model: nn.Module
    optimizers: Sequence[Optimizer]
    scaler: GradScaler | None = None
    schedulers: Sequence[Any] = ()
    also: Sequence[Any] = ()
    standing: Sequence[Mapping[str, Any]] = ()
    snapshots: Snapshots | None = None
    occasion: Occasion = field(default_factory=lambda: Occasion(step=0.0, since=0.0))


def side_by_side(
    bench: Bench,
    train_step: TrainStep,
    candidates: Mapping[str, Candidate],
    given: Sequence[Any],
    *,
    evaluate: Callable[[], float] | None = None,
) -> Trial:
    """Train for `given`, one step for each of them, as it is and with each candidate, and put everything back.

    Each begins from the present weights, optimizer state and random numbers. The difference of the losses is paired
    step by step; its interval is Student's over the means of eight pieces, since neighbouring losses are not
    independent.
    """
    aside = Aside(bench.model, bench.optimizers, scaler=bench.scaler, schedulers=bench.schedulers, also=bench.also)

    def run(name: str, actions: Candidate) -> Outcome:
        aside.restore()
        with contextlib.ExitStack() as inner:
            refused = _apply(bench, actions, inner)
            if refused is not None:
                return Outcome(name, np.empty(0), refused=refused.reason)
            losses = _losses(train_step, given)
            return Outcome(name, losses, evaluation=None if evaluate is None else float(evaluate()))

    with aside.held():
        baseline = run(BASELINE, ())
        outcomes = [compared(run(name, actions), baseline, len(given)) for name, actions in candidates.items()]
    order = sorted(outcomes, key=lambda one: (math.isnan(one.difference), one.difference))
    return Trial((baseline, *order))


def told(actions: Candidate) -> str:
    """A candidate in words.

    >>> told([("rewind", {}), ("scale_lr", {"factor": 0.3})])
    'rewind + scale_lr (factor 0.3)'
    """
    parts = []
    for name, arguments in actions:
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in arguments.items())
        parts.append(f"{name} ({numbers})" if numbers else name)
    return " + ".join(parts)


def _apply(bench: Bench, actions: Candidate, stack: contextlib.ExitStack) -> Refused | None:
    """Turn knobs of our own, from where those in force stand, until the stack is closed."""
    knobs = [OptimizerKnobs(one, StepGuard(one, skips=False), before_step=lambda: None) for one in bench.optimizers]
    for one in knobs:
        stack.callback(one.close)
    for one, state in zip(knobs, bench.standing, strict=False):
        one.load_state_dict(state)
    snapshots = bench.snapshots or Snapshots(bench.model, bench.optimizers)
    patient = Patient(knobs=knobs, snapshots=snapshots, scaler=bench.scaler)
    for action, arguments in sorted(actions, key=lambda one: one[0] == "rewind"):
        done = ACTIONS[action](patient, arguments, bench.occasion)
        if isinstance(done, Refused):
            return done
    return None


def _losses(train_step: TrainStep, given: Sequence[Any]) -> Floats:
    losses: list[float] = []
    for batch in given:
        value = train_step(batch)
        losses.append(float(value.detach() if isinstance(value, Tensor) else value))
        if not math.isfinite(losses[-1]):
            return np.array(losses[:-1])
    return np.array(losses)


def compared(one: Outcome, other: Outcome, steps: int) -> Outcome:
    """The first outcome with its difference to the other; one that broke off is beaten by one that did not."""
    if one.refused or len(one.losses) < steps:
        return one
    if len(other.losses) < steps:
        return Outcome(one.name, one.losses, -math.inf, -math.inf, -math.inf, one.evaluation)
    from scipy.stats import t  # noqa: PLC0415 - heavy, and not needed before

    half = (one.losses - other.losses)[steps // 2 :]
    pieces = np.array([piece.mean() for piece in np.array_split(half, _PIECES)])
    middle = float(half.mean())
    reach = float(t.ppf(0.975, _PIECES - 1) * pieces.std(ddof=1) / math.sqrt(_PIECES))
    return Outcome(one.name, one.losses, middle, middle - reach, middle + reach, one.evaluation)
