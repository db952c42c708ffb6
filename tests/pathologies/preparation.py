"""Tasks whose model is changed before it is trained: how it begins, and what its gradients reach."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.pathologies.data import Task

__all__ = ["prepared"]


def prepared(
    base: Callable[..., Task],
    *,
    scale: float = 1.0,
    first_scale: float = 1.0,
    last_scale: float = 1.0,
    hidden_bias: float | None = None,
    constant: float | None = None,
    detached: str = "",
    spare: int = 0,
    **model: object,
) -> Task:
    """The task `base` with another beginning.

    Args:
        base: The factory of the task; takes `model`.
        scale: What all weight matrices are multiplied by, that of the output among them.
        first_scale: What the first weight matrix is multiplied by.
        last_scale: What the last one is multiplied by; 0 is a sound way to begin at chance.
        hidden_bias: The value of all biases but those of the output.
        constant: The value of all weights, so that the units of a layer begin alike and stay alike.
        detached: The name of a module through whose output no gradient goes.
        spare: Layers of so many units that the loss never sees.
        **model: What `base` takes.
    """
    task = base(**model)

    def build() -> nn.Module:
        built = task.build()
        matrices = [parameter for parameter in built.parameters() if parameter.dim() > 1]
        biases = [parameter for name, parameter in built.named_parameters() if name.endswith("bias")]
        with torch.no_grad():
            for matrix in matrices:
                matrix.mul_(scale)
                if constant is not None:
                    matrix.fill_(constant)
            matrices[0].mul_(first_scale)
            matrices[-1].mul_(last_scale)
            for bias in biases[:-1]:
                if hidden_bias is not None:
                    bias.fill_(hidden_bias)
        if detached:
            built.get_submodule(detached).register_forward_hook(_without_gradient)
        if spare:
            built.register_module("spare", nn.Linear(spare, spare))
            built.forward = _passing_by(built)  # a Sequential would run it
        return built

    return replace(task, build=build)


def _without_gradient(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return output.detach()


def _passing_by(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model's own forward pass, without its last module."""
    used = [module for name, module in model.named_children() if name != "spare"]

    def forward(inputs: Tensor) -> Tensor:
        for module in used:
            inputs = module(inputs)
        return inputs

    return forward
