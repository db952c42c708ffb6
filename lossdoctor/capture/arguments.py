"""What a Monitor is given, checked before anything is recorded."""

from collections.abc import Collection, Sequence

from torch import nn
from torch.optim import Optimizer

from lossdoctor.errors import UsageError

__all__ = ["check_arguments", "stepping_optimizers"]


def stepping_optimizers(given: Optimizer | Sequence[Optimizer]) -> list[Optimizer]:
    """The optimizers whose `step` really runs: wrappers that hold another optimizer are looked through."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    found = []
    for optimizer in several:
        if not isinstance(optimizer, Optimizer):
            raise UsageError(
                f"Monitor(model, optimizer): expected a torch optimizer or several, got {type(optimizer).__name__}"
            )
        inner = getattr(optimizer, "optimizer", None)
        found.append(inner if isinstance(inner, Optimizer) else optimizer)
    return found


def check_arguments(model: object, remediate: str, grad_norm_every: int | None, *, modes: Collection[str]) -> None:
    """Raise UsageError, with the remedy, for an argument of the wrong kind."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"Monitor(model, optimizer): expected a torch module first, got {type(model).__name__}")
    if remediate not in modes:
        raise UsageError(f"remediate={remediate!r}: expected one of {', '.join(modes)}")
    if grad_norm_every is not None and grad_norm_every < 1:
        raise UsageError(f"grad_norm_every={grad_norm_every}: expected a positive number of steps, or None")
