"""What a learning-rate scheduler says of itself: how far it has come, and when it has run its course."""

from typing import Any

from torch.optim import lr_scheduler

__all__ = ["length_of", "note_position", "position_of", "returns"]

_MOST_INNER = 8
"""Schedulers wrapped in each other that are looked through."""


def position_of(scheduler: Any) -> float | None:
    """How often the scheduler was stepped; None where it does not say.

    Looks through wrappers that hold theirs as `scheduler` (accelerate), and into chains.
    """
    for _ in range(_MOST_INNER):
        position = getattr(scheduler, "last_epoch", None)
        if isinstance(position, int | float):
            return float(position)
        inner = getattr(scheduler, "_schedulers", None)
        scheduler = inner[0] if isinstance(inner, list) and inner else getattr(scheduler, "scheduler", None)
    return None


def length_of(scheduler: Any) -> int | None:
    """After how many of its steps the learning rate has come to its end; None for schedules without an end.

    Whether such a step is an optimizer step, a micro-batch or an epoch is up to the loop.
    """
    found: Any
    match scheduler:
        case lr_scheduler.SequentialLR():
            last = length_of(scheduler._schedulers[-1])  # noqa: SLF001 - torch has no other word for them
            return None if last is None else int(scheduler._milestones[-1]) + last  # noqa: SLF001
        case lr_scheduler.CosineAnnealingLR():
            found = scheduler.T_max
        case lr_scheduler.OneCycleLR():
            found = scheduler.total_steps
        case lr_scheduler.LinearLR() | lr_scheduler.PolynomialLR():
            found = scheduler.total_iters
        case _:
            found = None
    return int(found) if isinstance(found, int | float) and found > 0 else None


def returns(scheduler: Any) -> bool:
    """Whether the learning rate rises again if the scheduler is stepped past its end, as a plain cosine does."""
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        return returns(scheduler._schedulers[-1])  # noqa: SLF001
    return isinstance(scheduler, lr_scheduler.CosineAnnealingLR)


def note_position(values: dict[str, float], scheduler: Any, epochs: int) -> None:
    """Put the scheduler's position and the epochs begun so far among the values of a record, as far as known."""
    position = position_of(scheduler)
    if position is not None:
        values["schedule_position"] = position
    if epochs:
        values["epoch"] = float(epochs)
