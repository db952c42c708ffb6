"""Pure tensor functions behind the recorded numbers. None of them waits for a device."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["copies", "local", "norms", "subtract"]


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: a DTensor's shard, any other tensor itself."""
    part: Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


def norms(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """L2 norm of each tensor, a float32 scalar each (float64 where all tensors are float64).

    fp16 tensors are accumulated in float32: 300 values of 1e6 would overflow in fp16. A float32 norm itself overflows
    for values beyond 1e19, so an infinite norm is no proof of an infinite value. Sparse gradients are summed over equal
    indices first.

    >>> [norm.item() for norm in norms([torch.tensor([3.0, 4.0]), torch.ones(4, dtype=torch.float16)])]
    [5.0, 2.0]
    """
    dtype = None if tensors[0].dtype == torch.float64 else torch.float32
    try:
        found: Sequence[Tensor] = torch._foreach_norm(tensors, 2, dtype=dtype)  # type: ignore[arg-type]  # noqa: SLF001
        return found
    except (RuntimeError, NotImplementedError):  # sparse, complex, or of several dtypes
        return [_norm(tensor) for tensor in tensors]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the tensors, outside of any graph."""
    with torch.no_grad():
        return [local(tensor).detach().clone() for tensor in tensors]


def subtract(before: list[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
    """`before` minus `after`, in the memory of `before`."""
    with torch.no_grad():
        torch._foreach_sub_(before, [local(tensor).detach() for tensor in after])
    return before


def _norm(tensor: Tensor) -> Tensor:
    values = tensor.detach()
    if values.layout != torch.strided:
        values = values.coalesce().values()
    if values.is_complex():
        values = torch.view_as_real(values)
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.promote_types(torch.float32, values.dtype))
    return norm.float()
