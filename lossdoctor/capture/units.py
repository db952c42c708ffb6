"""Whether the units of a layer begin as copies of each other: they stay copies, and the layer works as one unit."""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["units_alike"]

_LOOK = 16
"""Rows and columns of a weight that are looked at: random ones differ in any two."""


def units_alike(modules: Iterable[nn.Module]) -> float | None:
    """Share of the hidden layers whose units get the same gradient at every step; None without a hidden layer.

    That is where the rows of a weight are equal and not zero, biases too, and so are the columns of the next weight:
    what comes to the units is the same, and what goes out of them. Layers that begin at zero are no such case, nor is
    a single constant layer among random ones. Layers are Linear, Conv and recurrent ones, in order of registration.

    >>> layers = [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)]
    >>> units_alike(layers)
    0.0
    >>> with torch.no_grad():
    ...     values = [one.fill_(0.1) for layer in layers for one in layer.parameters()]
    >>> units_alike(layers)
    1.0
    """
    found: dict[torch.device, list[Tensor]] = {}
    order: list[tuple[torch.device, int, bool]] = []
    for module in modules:
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.RNNBase | nn.RNNCellBase):
            continue
        own = [one for one in module.parameters(recurse=False) if _is_there(one)]
        biases = [one for one in own if one.ndim == 1]
        for weight in own:
            if weight.ndim > 1:
                flags = found.setdefault(weight.device, [])
                order.append((weight.device, len(flags), weight.requires_grad))
                flags.append(_flags(weight, biases))
    if len(order) < 2:  # noqa: PLR2004 - a hidden layer and what is behind it
        return None
    known = {device: torch.stack(flags).tolist() for device, flags in found.items()}
    answers = [(*known[device][number], is_trained) for device, number, is_trained in order]
    alike: int = sum(rows and is_trained and columns for (rows, _, is_trained), (_, columns, _) in pairwise(answers))
    return alike / (len(answers) - 1)


def _is_there(parameter: Tensor) -> bool:
    return False if is_lazy(parameter) else parameter.numel() > 0 and not parameter.is_meta


def _flags(weight: Tensor, biases: Iterable[Tensor]) -> Tensor:
    """Whether its rows are equal and not zero, and whether its columns are equal; bool, shape (2,)."""
    part = weight.detach()[:_LOOK, :_LOOK]
    rows = (part == part[:1]).all() & part.any() & torch.tensor(len(part) > 1, device=part.device)
    for bias in biases:
        some = bias.detach()[:_LOOK]
        rows = rows & (some == some[:1]).all()
    columns = (part == part[:, :1]).all() & torch.tensor(part.shape[1] > 1, device=part.device)
    return torch.stack((rows, columns))
