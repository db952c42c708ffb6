"""What a layer's output says: its spread, dead and saturated units, how a batch differs from BatchNorm's statistics."""

import math
from typing import Literal, TypeAlias

from torch import Tensor, nn

__all__ = ["Kind", "activation_std", "batch_norm_shift", "dead_share", "kind_of", "saturated_share"]

Kind: TypeAlias = Literal["dead", "tanh", "sigmoid", "batch_norm"]

_LEAST_POSITIONS = 16
"""A unit that is silent over fewer samples and positions than these says nothing."""
_MOST_ENTRIES = 1 << 17
"""Of larger outputs, evenly spaced entries are measured."""


def activation_std(output: Tensor) -> Tensor:
    """Standard deviation of the entries of an output, a float32 scalar; of large ones that of 131,072 or fewer.

    >>> import torch
    >>> activation_std(torch.tensor([[1.0, 1.0], [3.0, 3.0]])).item()
    1.0
    """
    return _few(output).float().std(correction=0)


def dead_share(output: Tensor, unit_dim: int) -> Tensor | None:
    """Share of the units along `unit_dim` that are positive nowhere in the batch; None for too small a batch.

    >>> import torch
    >>> dead_share(torch.tensor([[0.0, 1.0], [0.0, 0.0]]).repeat(8, 1), -1).item()
    0.5
    """
    units = output.shape[unit_dim]
    if not units or output.numel() // units < _LEAST_POSITIONS:
        return None
    others = [dim for dim in range(output.dim()) if dim != unit_dim % output.dim()]
    return (output.amax(others) <= 0).float().mean()


def saturated_share(output: Tensor, kind: Literal["tanh", "sigmoid"]) -> Tensor:
    """Share of entries where the slope is nearly gone: beyond ±0.99 of a tanh, outside 0.01..0.99 of a sigmoid.

    >>> import torch
    >>> saturated_share(torch.tensor([-1.0, 0.5, 0.9, 0.995]), "tanh").item()
    0.5
    """
    values = _few(output).float()
    if kind == "sigmoid":
        values = values * 2 - 1
    limit = 0.99 if kind == "tanh" else 0.98
    return (values.abs() > limit).float().mean()


def batch_norm_shift(
    batch: tuple[Tensor, Tensor], running: tuple[Tensor, Tensor], *, eps: float
) -> tuple[Tensor, Tensor]:
    """How far a batch is from the running statistics: (mean, variance) of both, shape (channels,).

    Returns:
        |batch mean - running mean| / sqrt(running variance + eps), and batch variance / running variance (each + eps);
        the median over the channels, a float32 scalar each.

    >>> import torch
    >>> one = torch.ones(3)
    >>> [value.item() for value in batch_norm_shift((3 * one, 4 * one), (one, one), eps=0.0)]
    [2.0, 4.0]
    """
    (mean, variance), (running_mean, running_variance) = batch, running
    below = running_variance.float() + eps
    shift = (mean.float() - running_mean.float()).abs() / below.sqrt()
    return shift.median(), ((variance.float() + eps) / below).median()


def _few(output: Tensor) -> Tensor:
    """Evenly spaced entries of a large output; of one that is not contiguous, evenly spaced samples of the batch."""
    entries, samples = output.numel(), output.shape[0] if output.dim() else 1
    every = math.ceil(entries / _MOST_ENTRIES)
    if every < 2:  # noqa: PLR2004
        return output
    if not output.is_contiguous():
        return output[:: min(samples, every)] if samples > 1 else output
    while math.gcd(every, entries) > 1:  # else it would always be the same units
        every += 1
    return output.view(-1)[::every]


def kind_of(module: nn.Module) -> Kind | None:
    """What can go wrong with a module's output; None where it is only measured, if at all."""
    if isinstance(module, nn.ReLU | nn.ReLU6):
        return "dead"
    if isinstance(module, nn.Tanh) or (type(module) is nn.Hardtanh and (module.min_val, module.max_val) == (-1, 1)):
        return "tanh"
    if isinstance(module, nn.Sigmoid | nn.Hardsigmoid):
        return "sigmoid"
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:  # noqa: SLF001 - base of all
        return "batch_norm"
    return None
