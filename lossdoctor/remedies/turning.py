"""Actions that turn a knob, each with a floor and a ceiling: learning rate, weight decay, clipping, loss scale."""

import math
from collections.abc import Mapping

from lossdoctor.remedies.action import Done, Occasion, Patient, Refused
from lossdoctor.remedies.knobs import ignores_learning_rate
from lossdoctor.runs.info import is_scale_invariant

__all__ = [
    "MULTIPLIER",
    "loosen_clipping",
    "lower_loss_scale",
    "scale_lr",
    "scale_weight_decay",
    "skip_batch",
    "tighten_clipping",
    "warm_up_again",
]

FACTOR = (1e-3, 4.0)
"""Floor and ceiling of what one act may multiply the learning rate by."""

MULTIPLIER = (1e-4, 64.0)
"""Floor and ceiling of the standing multiplier of the learning rate."""

DECAY_FACTOR = (0.01, 10.0)
"""Floor and ceiling of what one act may multiply the weight decay by."""

LARGEST_DECAY = 0.1
"""Ceiling of the weight decay itself, the upper end of the usual range; one the user set higher is not raised."""

SMALLEST_NORM = 1e-8
"""Floor of a clipping threshold."""

SMALLEST_SCALE = 1.0
"""Floor of the loss scale: below it, scaling makes gradients smaller."""

LONGEST_WARM_UP = 10_000
"""Ceiling of a warm-up, in steps."""


def scale_lr(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Multiply the learning rate of all optimizers by `factor`, on top of what is in force.

    The factor is kept within 0.001 and 4, the standing multiplier within 1e-4 and 64.
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


def scale_weight_decay(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Multiply the weight decay of all groups that have one by `factor`; groups with decay 0 keep 0.

    The factor is kept within 0.01 and 10, and the largest decay at or below 0.1.
    """
    factor = arguments.get("factor", math.nan)
    if not (math.isfinite(factor) and factor > 0):
        return Refused(f"{factor} is no factor for a weight decay")
    largest = max((knobs.weight_decay() for knobs in patient.knobs), default=0.0)
    if largest == 0:
        return Refused("no parameter group has a weight decay to multiply")
    factor = min(max(factor, DECAY_FACTOR[0]), DECAY_FACTOR[1])
    old = [knobs.decay_multiplier for knobs in patient.knobs]
    in_force = max(knobs.weight_decay() * knobs.decay_multiplier for knobs in patient.knobs)
    factor = min(factor, max(LARGEST_DECAY / in_force, 1.0))
    if factor == 1:
        return Refused(f"the weight decay is {in_force:.3g} already")

    def undo() -> None:
        for knobs, multiplier in zip(patient.knobs, old, strict=True):
            knobs.decay_multiplier = multiplier

    for knobs in patient.knobs:
        knobs.decay_multiplier *= factor
    return Done({"weight_decay": (in_force, in_force * factor)}, undo, undo)


def warm_up_again(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Let the learning rate rise from near zero to what it would be, in a line over the next `steps` steps."""
    steps = arguments.get("steps", math.nan)
    if not (math.isfinite(steps) and steps >= 1):
        return Refused(f"{steps} is no length for a warm-up")
    if any(knobs.is_warming_up for knobs in patient.knobs):
        return Refused("a warm-up is under way already")
    length = min(int(steps), LONGEST_WARM_UP)

    def undo() -> None:
        for knobs in patient.knobs:
            knobs.stop_warm_up()

    for knobs in patient.knobs:
        knobs.warm_up(length)
    return Done({"warm_up_steps": (0.0, float(length))}, undo, undo)


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


def loosen_clipping(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Raise the bound of the gradient norm to `max_norm`.

    The doctor's own, and the loop's where it clips by `monitor.clip_grad_norm_`: what the loop clips by itself is over
    when the optimizer steps.
    """
    max_norm = arguments.get("max_norm", math.nan)
    if not (math.isfinite(max_norm) and max_norm > 0):
        return Refused(f"{max_norm} is no bound for a gradient norm")
    clipping = patient.clipping
    own = [knobs.max_norm for knobs in patient.knobs]
    in_force = [bound for bound in own if bound is not None]
    if clipping.asked is not None:
        in_force.append(max(clipping.asked, clipping.at_least))
    if not in_force:
        return Refused("only monitor.clip_grad_norm_ can be loosened, and the loop does not clip by it")
    if min(in_force) >= max_norm:
        return Refused(f"the gradient norm may be {min(in_force):.3g} already")
    at_least = clipping.at_least

    def undo() -> None:
        clipping.at_least = at_least
        for knobs, bound in zip(patient.knobs, own, strict=True):
            knobs.max_norm = bound

    clipping.at_least = max(at_least, max_norm)
    for knobs, bound in zip(patient.knobs, own, strict=True):
        knobs.max_norm = None if bound is None else max(bound, max_norm)
    return Done({"max_norm": (min(in_force), max_norm)}, undo, undo)


def skip_batch(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """From now on keep batches from the weights whose gradient norm is above `max_norm`.

    A few in a row are a new normal and no bad batches: the guard then lets go. See StepGuard.
    """
    max_norm = arguments.get("max_norm", math.nan)
    if not (math.isfinite(max_norm) and max_norm > 0):
        return Refused(f"{max_norm} is no bound for a gradient norm")
    guards = [knobs.guard for knobs in patient.knobs]
    if not all(guard.can_skip_large for guard in guards):
        return Refused("on CUDA only a fused optimizer can leave a step out without waiting for the device")
    old = [guard.largest for guard in guards]
    if all(bound is not None and bound <= max_norm for bound in old):
        return Refused("batches that large are left out already")

    def undo() -> None:
        for guard, bound in zip(guards, old, strict=True):
            guard.largest = bound

    for guard, bound in zip(guards, old, strict=True):
        guard.largest = max_norm if bound is None else min(bound, max_norm)
    return Done({"largest_norm": (max(bound or 0.0 for bound in old), max_norm)}, undo, undo)


def lower_loss_scale(patient: Patient, arguments: Mapping[str, float], _: Occasion) -> Done | Refused:
    """Multiply the GradScaler's scale by `factor` below 1, not below 1.0. The scaler moves it on by itself."""
    factor = arguments.get("factor", math.nan)
    if not 0 < factor < 1:
        return Refused(f"{factor} does not lower a loss scale")
    scaler = patient.scaler
    if scaler is None:
        return Refused("there is no GradScaler")
    scale = float(scaler.get_scale())  # waits for the device: once, when it acts
    if not scale > SMALLEST_SCALE:
        return Refused(f"the loss scale is {scale:.3g} already")
    lowered = max(scale * factor, SMALLEST_SCALE)
    tensor = scaler._scale  # noqa: SLF001 - update(new_scale) replaces the tensor that a captured graph may hold
    if tensor is None:
        return Refused("there was no backward pass yet")
    tensor.fill_(lowered)

    def undo() -> None:
        tensor.fill_(scale)

    return Done({"loss_scale": (scale, lowered)}, undo)
