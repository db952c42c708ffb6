"""Parameters that no process holds whole (FSDP1, FSDP2, tensor parallel): what part of a norm is this process's.

Each rank records its share of every norm, chosen so that the squares of all ranks' shares add up to the square of the
whole. A shard counts as it is. A tensor that several ranks hold alike counts on each as one part of so many: otherwise
the sum would count it as often. No rank has to ask another.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["Shards", "clip_grad_norm_"]


class Shards:
    """What is known about the shards of a model."""

    def __init__(self, flat: Mapping[int, Any], world_size: int) -> None:
        self._flat = flat
        """FSDP1's handles by the id of their flat parameter and of the parameters in it."""
        self._world_size = world_size

    @classmethod
    def of(cls, model: nn.Module) -> Self | None:
        """The shards of a model; None where every process holds all of it."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return None
        handles = list(_handles(model))
        is_sharded = any(handle.uses_sharded_strategy for handle in handles) or any(map(_is_shard, model.parameters()))
        if not is_sharded:
            return None
        flat: dict[int, Any] = {}
        for handle in handles:
            inside = getattr(handle.flat_param, "_params", None) or ()
            flat |= {id(parameter): handle for parameter in (handle.flat_param, *inside)}
        return cls(flat, torch.distributed.get_world_size())

    @property
    def are_flat(self) -> bool:
        """Whether there are flat parameters, as FSDP1 makes them."""
        return bool(self._flat)

    def shares(self, parameters: Sequence[Tensor]) -> list[float]:
        """What the norm of each parameter, as this process holds it, is multiplied by."""
        return [math.sqrt(1 / self._holders(parameter)) for parameter in parameters]

    def trigger(self, candidates: Sequence[Tensor]) -> Sequence[Tensor]:
        """The tensors whose gradients tell of a backward pass: FSDP1's original parameters never get one there."""
        return [self._flat[id(one)].flat_param if id(one) in self._flat else one for one in candidates]

    def _holders(self, parameter: Tensor) -> float:
        """How many processes hold just what this one holds of the parameter."""
        handle = self._flat.get(id(parameter))
        if handle is not None:
            together = handle.process_group.size() if handle.uses_sharded_strategy else 1
            return float(self._world_size / together)
        placements = getattr(parameter, "placements", None)
        if placements is None:
            return float(self._world_size)
        mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]  # a DTensor has both
        return float(math.prod(mesh.size(at) for at, placement in enumerate(placements) if placement.is_replicate()))


def clip_grad_norm_(model: nn.Module, max_norm: float, norm_type: float) -> Tensor:
    """Clip the gradients of a model as torch does, by the norm of all shards: FSDP1 has a function of its own."""
    inner = getattr(model, "_orig_mod", model)
    kind = _first_generation()
    if kind is not None and isinstance(inner, kind):
        norm: Tensor = inner.clip_grad_norm_(max_norm, norm_type)
        return norm
    return torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm, norm_type)


def _first_generation() -> Any:
    """FSDP1's class; None where nobody can have wrapped a model by it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # who wraps a model has imported it
    return getattr(fsdp, "FullyShardedDataParallel", None)


def _handles(model: nn.Module) -> Iterator[Any]:
    """FSDP1's handles, one for each flat parameter."""
    kind = _first_generation()
    if kind is not None:
        for module in model.modules():
            if isinstance(module, kind) and getattr(module, "_handle", None) is not None:
                yield module._handle  # noqa: SLF001 - nothing public says how a parameter is sharded


def _is_shard(parameter: Tensor) -> bool:
    placements = getattr(parameter, "placements", ())
    mesh: Any = getattr(parameter, "device_mesh", None)
    return any(not placement.is_replicate() and mesh.size(at) > 1 for at, placement in enumerate(placements))
