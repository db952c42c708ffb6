"""Trying candidate fixes side by side: the same weights, the same batches, one difference."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lossdoctor.errors import UsageError, nearest
from lossdoctor.monitor import Monitor
from lossdoctor.remedies.actions import ACTIONS
from lossdoctor.remedies.forks import FORK, LEAST_STEPS, Bench, Candidate, Outcome, TrainStep, Trial, side_by_side, told

__all__ = ["Candidate", "Outcome", "Trial", "trial"]


def trial(
    monitor: Monitor,
    train_step: TrainStep,
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
    if steps < LEAST_STEPS:
        raise UsageError(f"trial(steps={steps}): fewer than {LEAST_STEPS} steps tell nothing apart")
    if batches is not None and not len(batches):
        raise UsageError("trial(batches=[]): there are no batches")
    chosen = _prescribed(monitor) if candidates is None else candidates
    _check(chosen)
    given = list(range(steps)) if batches is None else [batches[number % len(batches)] for number in range(steps)]
    bench = Bench(
        model=monitor.model,
        optimizers=monitor.optimizers,
        scaler=monitor.scaler,
        schedulers=[one for one in [monitor.scheduler] if one],
        also=monitor.also,
        standing=monitor.state_dict().get("remedies", {}).get("knobs", ()),
    )
    with monitor.aside():
        return side_by_side(bench, train_step, chosen, given, evaluate=evaluate)


def _prescribed(monitor: Monitor) -> dict[str, Candidate]:
    """What the diagnosis so far prescribes and can be tried."""
    found: dict[str, Candidate] = {}
    for finding in monitor.diagnosis().findings:
        for one in finding.prescriptions:
            if one.action in FORK and not finding.resolved:
                found[told([(one.action, one.arguments)])] = ((one.action, one.arguments),)
    if not found:
        raise UsageError("trial: the diagnosis so far prescribes nothing that can be tried; give candidates")
    return found


def _check(candidates: Mapping[str, Candidate]) -> None:
    if not candidates:
        raise UsageError("trial: there are no candidates")
    for name, actions in candidates.items():
        for action, _ in actions:
            if action not in ACTIONS:
                raise UsageError(f"trial: candidate '{name}': there is no action '{action}'{nearest(action, ACTIONS)}")
            if action not in FORK:
                raise UsageError(f"trial: candidate '{name}': {action} cannot be tried from where the training stands")
