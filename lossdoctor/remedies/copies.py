"""Copies of nested state: tensors in dictionaries, lists and tuples, as optimizers keep them; no deepcopy."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Saved", "copied", "fresh", "leaves", "put_back", "size_of"]


class Saved(NamedTuple):
    """A copy of a tensor and the device it belongs to."""

    values: Tensor
    device: torch.device


def copied(value: Any) -> Any:
    """A copy in host memory that shares no tensor. Containers are rebuilt, other values are shared."""
    if isinstance(value, Tensor):
        tensor = value.detach()
        if tensor.is_cuda:  # pinned: the copy runs beside the training, before the next update on the same stream
            host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            return Saved(host.copy_(tensor, non_blocking=True), tensor.device)
        return Saved(tensor.clone(), tensor.device)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [copied(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def fresh(saved: Any) -> Any:
    """New values from a copy, on the devices of the originals; the copy stays untouched."""
    if isinstance(saved, Saved):
        return saved.values.to(saved.device, copy=True)
    if isinstance(saved, dict):
        return {key: fresh(item) for key, item in saved.items()}
    if isinstance(saved, (list, tuple)):
        items = [fresh(item) for item in saved]
        return items if isinstance(saved, list) else tuple(items)
    return saved


def put_back(live: Any, saved: Any) -> Any:
    """The saved value, written into the live one where that is possible: compiled code holds on to these tensors."""
    if isinstance(saved, Saved):
        if isinstance(live, Tensor) and live.shape == saved.values.shape and live.dtype == saved.values.dtype:
            return live.copy_(saved.values, non_blocking=True)
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
