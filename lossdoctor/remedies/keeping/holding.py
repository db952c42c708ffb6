"""What this process holds of a model: shards by their local part, whatever state the model is in.

A sharded module gathers its parameters for a forward pass, and the outermost one keeps them until a backward pass: what
`model.parameters()` gives after a validation is then a copy that is thrown away. What lasts is the shard behind it.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Holding", "local"]


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: a DTensor's shard, any other tensor itself."""
    part: Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


class Holding:
    """The parameters and buffers of a model and its optimizers, as this process holds them."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self._model, self._optimizers = model, list(optimizers)

    def tensors(self) -> Iterator[Tensor]:
        """Parameters and buffers, each once; not what shares memory with itself (expanded constants)."""
        seen: set[int] = set()
        behind = self._behind()
        groups = (group["params"] for optimizer in self._optimizers for group in optimizer.param_groups)
        for found in (*self._model.parameters(), *self._model.buffers(), *(one for group in groups for one in group)):
            tensor = behind.get(id(found), found)
            stacked = any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
            if id(tensor) not in seen and not stacked:
                seen.add(id(tensor))
                yield tensor

    def weights(self) -> list[Tensor]:
        """The local parts of the model's parameters."""
        behind = self._behind()
        found = {id(one): one for one in (behind.get(id(one), one) for one in self._model.parameters())}
        return [local(one) for one in found.values()]

    def zero_gradients(self) -> None:
        """Make the gradients zero that there are."""
        groups = (group["params"] for optimizer in self._optimizers for group in optimizer.param_groups)
        for parameter in (*self._model.parameters(), *(one for group in groups for one in group)):
            if parameter.grad is not None:
                local(parameter.grad).zero_()

    def gather_anew(self) -> None:
        """Let modules that still have their parameters gathered do so anew before the next forward pass.

        Call it on all ranks before shards are written to: what was gathered from them would be used once more.
        """
        for wrapper in _first_generation(self._model):
            handle = wrapper._handle  # noqa: SLF001 - nothing public reshards without gathering first
            was_used = getattr(handle.flat_param, "_full_param_padded", None) is not None
            if handle.uses_sharded_strategy and was_used and not handle.needs_unshard():
                from torch.distributed.fsdp._runtime_utils import _reshard  # noqa: PLC0415 - only where FSDP is used

                _reshard(wrapper, handle, True)  # noqa: FBT003 - not by name in every torch
        for module in _second_generation(self._model):
            module.reshard()

    def _behind(self) -> dict[int, Tensor]:
        """By the id of a parameter as the model or an optimizer has it: the tensor that lasts."""
        found: dict[int, Tensor] = {}
        for wrapper in _first_generation(self._model):
            handle = wrapper._handle  # noqa: SLF001 - as above
            if handle.uses_sharded_strategy:
                flat = handle.flat_param
                for parameter in (flat, *(getattr(flat, "_params", None) or ())):
                    found[id(parameter)] = flat._local_shard  # noqa: SLF001 - as above
        for module in _second_generation(self._model):
            for one in _parameters_of(module):
                gathered = getattr(one, "_unsharded_param", None)
                if gathered is not None:
                    found[id(gathered)] = one.sharded_param
        return found


def _first_generation(model: nn.Module) -> Iterator[Any]:
    """The FullyShardedDataParallel wrappers that have parameters of their own."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # who wraps a model has imported it
    kind = getattr(fsdp, "FullyShardedDataParallel", None)
    if kind is not None:
        for module in model.modules():
            if isinstance(module, kind) and getattr(module, "_handle", None) is not None:
                yield module


def _second_generation(model: nn.Module) -> Iterator[Any]:
    """The modules that `fully_shard` was called on."""
    for module in model.modules():
        if callable(getattr(module, "_get_fsdp_state", None)) and callable(getattr(module, "reshard", None)):
            yield module


def _parameters_of(module: Any) -> Iterable[Any]:
    """What `fully_shard` keeps of each parameter of a module; the attribute's name is not the same in every torch."""
    state = module._get_fsdp_state()  # noqa: SLF001 - the only way to a shard while its parameter is gathered
    groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
    return (one for group in groups if group is not None for one in group.fsdp_params)
