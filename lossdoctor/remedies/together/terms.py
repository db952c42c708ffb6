"""What has to be alike on all ranks before they are treated as one training."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lossdoctor.remedies.keeping.holding import local

if TYPE_CHECKING:
    from lossdoctor.remedies.policy import Policy

__all__ = ["Terms"]

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Terms(msgspec.Struct, frozen=True):
    """What a rank brings along: sums over what it has, and whether its parameters are sharded.

    Where nothing is sharded every rank must hold the same weights: they are replicas, and are sent from rank 0 to all
    when weights are put back. The stages of a pipeline, or shards that are plain tensors, are none.
    """

    names: int
    shapes: int
    weights: int
    rules: int
    is_sharded: bool

    @classmethod
    def of(cls, model: nn.Module, policy: "Policy", *, total_steps: int | None, is_sharded: bool) -> "Terms":
        """The terms of this rank. Reads the weights once where they are no shards."""
        named = list(model.named_parameters())
        rules = [getattr(policy, field.name) for field in fields(policy)]
        shown = [sorted(one) if isinstance(one, frozenset) else "a function" if callable(one) else one for one in rules]
        return cls(
            names=_sum_of(name for name, _ in named),
            shapes=0 if is_sharded else _sum_of(str(_shape(one)) for _, one in named),
            weights=0 if is_sharded else _bits(model.parameters()),
            rules=_sum_of(map(repr, (*shown, total_steps))),
            is_sharded=is_sharded,
        )

    @classmethod
    def differ(cls, all_of_them: Sequence["Terms"]) -> str:
        """Why these ranks cannot be treated as one training; empty if they can."""
        are_replicas = not any(one.is_sharded for one in all_of_them)
        if len({(one.names, one.shapes if are_replicas else 0) for one in all_of_them}) > 1:
            return "the ranks hold different models, as the stages of a pipeline do"
        if are_replicas and len({one.weights for one in all_of_them}) > 1:
            return "the weights differ between ranks: make the Monitor when they were spread, as DDP does when it wraps"
        if len({one.rules for one in all_of_them}) > 1:
            return "policy and total_steps are not the same on all ranks"
        return ""


def _shape(parameter: Tensor) -> tuple[int, ...]:
    return () if is_lazy(parameter) else tuple(parameter.shape)


def _sum_of(texts: Iterable[str]) -> int:
    return zlib.crc32("\n".join(texts).encode())


def _bits(parameters: Iterable[Tensor]) -> int:
    """A sum over the bits of tensors: exact, whatever the order of the addition. Waits for a device."""
    total = 0
    for parameter in parameters:
        if is_lazy(parameter) or parameter.is_meta or parameter.layout is not torch.strided or not parameter.numel():
            continue
        flat = local(parameter.detach()).reshape(-1)
        word = _WORDS.get(flat.element_size())
        if word is not None:
            total = (31 * total + int(flat.view(word).sum(dtype=torch.int64))) % (1 << 62)
    return total
