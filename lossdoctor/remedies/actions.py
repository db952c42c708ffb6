"""The things a doctor can do to a running training, each with its inverse, its floor and its ceiling.

An action either is *done*, with what it changed and how to undo it, or *refused*, with the reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from lossdoctor.remedies.knobs import OptimizerKnobs, ignores_learning_rate
from lossdoctor.remedies.snapshots import Snapshots
from lossdoctor.runs.info import is_scale_invariant

__all__ = ["ACTIONS", "MULTIPLIER", "Action", "Done", "Occasion", "Patient", "Refused"]

FACTOR = (0.02, 4.0)
"""Floor and ceiling of what one act may multiply the learning rate by."""

MULTIPLIER = (1e-4, 10.0)
"""Floor and ceiling of the standing multiplier of the learning rate."""

SMALLEST_NORM = 1e-8
"""Floor of a clipping threshold."""


@dataclass(slots=True)
class Patient:
    """The training under treatment, as far as actions may touch it. `stopped` is what `should_stop` says."""

    knobs: Sequence[OptimizerKnobs]
    snapshots: Snapshots
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Occasion:
    """When an action is taken: now at `step`, for a fault that holds since `since`.

    `tried` are steps of snapshots that were gone back to for this fault without success.
    """

    step: float
    since: float
    tried: frozenset[float] = frozenset()


@dataclass(frozen=True, slots=True)
class Done:
    """An action took place: `changes` maps a knob to (old, new), `undo` puts everything back as it was.

    `revert`, where there is one, is the part of the inverse that still makes sense steps later: knobs, not weights.
    """

    changes: dict[str, tuple[float, float]]
    undo: Callable[[], None]
    revert: Callable[[], None] | None = None
    rewound_to: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An action did not take place."""

    reason: str


Action: TypeAlias = Callable[[Patient, Mapping[str, float], Occasion], Done | Refused]


def scale_lr(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Multiply the learning rate of all optimizers by `factor`, on top of what is in force.

    The factor is kept within 0.02 and 4, the standing multiplier within 1e-4 and 10.
    """
    factor = arguments.get("factor", math.nan)
    if not (math.isfinite(factor) and factor > 0):
        return Refused(f"{factor} is no factor for a learning rate")
    if all(ignores_learning_rate(knobs.optimizer) for knobs in patient.knobs):
        return Refused("the optimizer takes no notice of the learning rate")
    factor = min(max(factor, FACTOR[0]), FACTOR[1])
    old = [knobs.multiplier for knobs in patient.knobs]
    new = [min(max(multiplier * factor, MULTIPLIER[0]), MULTIPLIER[1]) for multiplier in old]
    if new == old:
        return Refused("the learning rate is at its floor or ceiling already")

    def undo() -> None:
        for knobs, multiplier in zip(patient.knobs, old, strict=True):
            knobs.multiplier = multiplier

    changes = {"lr_multiplier": (max(old), max(new))}
    if (rate := patient.knobs[0].learning_rate()) is not None:
        changes["learning_rate"] = (rate * old[0], rate * new[0])
    for knobs, multiplier in zip(patient.knobs, new, strict=True):
        knobs.multiplier = multiplier
    return Done(changes, undo, undo)


def tighten_clipping(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Bound the global norm of the unscaled gradients by `max_norm`, per optimizer; never looser than what is in force.

    It is no remedy for optimizers that divide the gradient's scale out. In `changes` 0 stands for no bound.
    """
    max_norm = arguments.get("max_norm", math.nan)
    if not (math.isfinite(max_norm) and max_norm > 0):
        return Refused(f"{max_norm} is no bound for a gradient norm")
    chosen = [knobs for knobs in patient.knobs if not is_scale_invariant(type(knobs.optimizer))]
    if not chosen:
        name = type(patient.knobs[0].optimizer).__name__
        return Refused(f"clipping changes nothing under {name}, which divides the gradient's scale out")
    max_norm = max(max_norm, SMALLEST_NORM)
    old = [knobs.max_norm for knobs in chosen]
    if all(bound is not None and bound <= max_norm for bound in old):
        return Refused(f"the gradient norm is bounded by {max_norm:.3g} or less already")

    def undo() -> None:
        for knobs, bound in zip(chosen, old, strict=True):
            knobs.max_norm = bound

    for knobs, bound in zip(chosen, old, strict=True):
        knobs.max_norm = max_norm if bound is None else min(bound, max_norm)
    return Done({"max_norm": (max(bound or 0.0 for bound in old), max_norm)}, undo, undo)


def rewind(patient: Patient, arguments: Mapping[str, float], occasion: Occasion) -> Done | Refused:
    """Go back to the newest verified snapshot that is older than the fault; counters, LR and data order go on.

    Where a rule knows of an earlier step at which all was well, it says so by `before`. A snapshot that was gone back
    to in vain is used again only if there is no older one.
    """
    snapshots = patient.snapshots
    since = occasion.since
    if "before" in arguments:
        since = min(since, max(arguments["before"], 1.0))  # the first snapshot is always old enough
    snapshot = snapshots.before(since, other_than=occasion.tried) or snapshots.before(since)
    if snapshot is None:
        return Refused(f"there is no verified snapshot from before step {since:.0f}")
    before = snapshots.copy(occasion.step)
    snapshots.restore(snapshot)
    changes = {"weights": (occasion.step, snapshot.step)}
    return Done(changes, lambda: snapshots.restore(before), rewound_to=snapshot.step)


def early_stop(patient: Patient, _: Mapping[str, float], occasion: Occasion) -> Done | Refused:
    """Put the best weights in place, then ask the loop to stop."""
    snapshots = patient.snapshots
    best = snapshots.best
    if best is None:
        return Refused("there are no best weights: no evaluation with a finite val_loss was reported to this process")
    before = snapshots.copy(occasion.step)

    def undo() -> None:
        patient.stopped = False
        snapshots.restore(before)

    snapshots.restore(best)
    patient.stopped = True
    return Done({"weights": (occasion.step, best.step)}, undo)


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {"scale_lr": scale_lr, "tighten_clipping": tighten_clipping, "rewind": rewind, "early_stop": early_stop}
)
"""What a prescription may ask for, besides `skip_step`, which is always in force."""
