"""Copies of nested state: tensors in dictionaries, lists and tuples, as optimizers keep them; no deepcopy."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lossdoctor.remedies.keeping.holding import local

__all__ = ["Keep", "Saved", "copied", "fresh", "in_memory", "leaves", "put_back", "size_of"]

Keep: TypeAlias = Callable[[Tensor], Tensor]
"""Makes a copy that the host can read, of a tensor anywhere."""


class Saved(NamedTuple):
    """A copy of a tensor and the device it belongs to."""

    values: Tensor
    device: torch.device
    whole: Callable[[Tensor], Tensor] | None = None
    """Makes a DTensor of a shard; None where it was a plain tensor."""


def in_memory(tensor: Tensor) -> Tensor:
    """A copy in host memory."""
    if tensor.is_cuda:  # pinned: the copy runs beside the training, before the next update on the same stream
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return host.copy_(tensor, non_blocking=True)
    return tensor.clone()


def copied(value: Any, keep: Keep = in_memory) -> Any:
    """A copy that shares no tensor: `keep` makes those of tensors. Containers are rebuilt, other values are shared."""
    if isinstance(value, Tensor):
        tensor = value.detach()
        shard = local(tensor)
        return Saved(keep(shard), shard.device, None if shard is tensor else _joining(tensor))
    if isinstance(value, dict):
        return {key: copied(item, keep) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [copied(item, keep) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def fresh(saved: Any) -> Any:
    """New values from a copy, on the devices of the originals; the copy stays untouched."""
    if isinstance(saved, Saved):
        values = saved.values.to(saved.device, copy=True)
        return values if saved.whole is None else saved.whole(values)
    if isinstance(saved, dict):
        return {key: fresh(item) for key, item in saved.items()}
    if isinstance(saved, (list, tuple)):
        items = [fresh(item) for item in saved]
        return items if isinstance(saved, list) else tuple(items)
    return saved


def put_back(live: Any, saved: Any) -> Any:
    """The saved value, written into the live one where that is possible: compiled code holds on to these tensors."""
    if isinstance(saved, Saved):
        here = local(live) if isinstance(live, Tensor) else None
        if here is not None and here.shape == saved.values.shape and here.dtype == saved.values.dtype:
            here.copy_(saved.values, non_blocking=True)
            return live
        return fresh(saved)
    if isinstance(saved, dict) and isinstance(live, dict):
        for key in live.keys() - saved.keys():
            del live[key]
        for key, item in saved.items():
            live[key] = put_back(live.get(key), item)
        return live
    if isinstance(saved, list) and isinstance(live, list) and len(saved) == len(live):
        live[:] = [put_back(old, item) for old, item in zip(live, saved, strict=True)]
        return live
    return fresh(saved)


def _joining(like: Any) -> Callable[[Tensor], Tensor]:
    """What makes a shard a DTensor like this one, without keeping its values."""
    mesh, placements, shape, stride = like.device_mesh, like.placements, like.shape, like.stride()

    def join(shard: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor  # noqa: PLC0415 - only where there are any

        whole: Tensor = DTensor.from_local(shard, mesh, placements, run_check=False, shape=shape, stride=stride)
        return whole

    return join


def size_of(saved: Any) -> int:
    """Bytes of the tensors in a copy."""
    if isinstance(saved, Saved):
        return saved.values.numel() * saved.values.element_size()
    items = saved.values() if isinstance(saved, dict) else saved if isinstance(saved, (list, tuple)) else ()
    return sum(size_of(item) for item in items)


def leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
