"""The parameters of an optimizer, device by device, and what was read of them around one step."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from lossdoctor.capture.measures import local

__all__ = ["PartState", "by_device"]


class PartState:
    """The parameters of one optimizer on one device, and what was read of them."""

    def __init__(self, number: int, parameters: list[Tensor]) -> None:
        self.number = number
        self.parameters = parameters
        self.sharded = any(local(parameter) is not parameter for parameter in parameters)
        self.copied_bytes = sum(local(parameter).nbytes for parameter in parameters)
        """What the copies of a sample step take."""
        self.before: list[Tensor] | None = None
        """Copies of `sampled`, the trainable parameters, at a sample step; `indexes` are their places."""
        self.sampled: list[Tensor] = []
        self.indexes: list[int] | None = None
        self.versions: list[int] = []
        """Versions of the gradients at the end of the backward pass, where norms are due."""
        self.is_read = False
        """Whether the norms of these gradients were read there."""

    def gradients(self) -> tuple[list[Tensor], list[int] | None]:
        """The gradients there are, and whose they are (None: everyone's)."""
        found = [parameter.grad for parameter in self.parameters]
        present = [gradient for gradient in found if gradient is not None]
        indexes = None
        if len(present) != len(found):
            indexes = [index for index, gradient in enumerate(found) if gradient is not None]
        return [local(gradient) for gradient in present] if self.sharded else present, indexes

    def trainable(self) -> tuple[list[Tensor], list[int] | None]:
        """The parameters that are not frozen now, and their places (None: all)."""
        if all(parameter.requires_grad for parameter in self.parameters):
            return self.parameters, None
        indexes = [index for index, parameter in enumerate(self.parameters) if parameter.requires_grad]
        return [self.parameters[index] for index in indexes], indexes

    def are_unchanged(self, gradients: list[Tensor]) -> bool:
        """Whether these gradients are as the backward pass left them.

        Never said of DTensors: a foreach operation, as clipping uses, changes them and leaves their version alone.
        """
        return not self.sharded and self.versions == [gradient._version for gradient in gradients]  # noqa: SLF001


def by_device(optimizer: Optimizer) -> list[list[Tensor]]:
    """The parameters of all groups, sorted by device."""
    found: dict[torch.device, list[Tensor]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found.setdefault(parameter.device, []).append(parameter)
    return list(found.values())
