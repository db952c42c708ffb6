"""What single gradients cannot say: their direction from step to step, and what low precision loses of them."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["LOW_PRECISION", "SKETCH_SIZE", "Sketcher", "cosine_of", "evenly", "lost_updates", "nonzero", "stride_of"]

LOW_PRECISION = frozenset({torch.float16, torch.bfloat16})

SKETCH_SIZE = 4096
"""Numbers a gradient is projected to: the cosine of two projections is off by about 1/64."""

_TOGETHER = 1 << 20
"""Entries of small gradients that are joined before they are projected."""
_MOST_ENTRIES = 1 << 16
"""Of larger parameters, lost updates are counted in evenly spaced entries."""
_FEW_ROWS = 64


def nonzero(gradients: Sequence[Tensor]) -> list[Tensor]:
    """How many entries of each gradient are not exactly zero, a float32 scalar each.

    >>> [count.item() for count in nonzero([torch.tensor([0.0, 1.0, 2.0])])]
    [2.0]
    """
    return [torch.count_nonzero(gradient).float() for gradient in gradients]


def evenly(tensor: Tensor) -> Tensor:
    """Evenly spaced entries of a tensor, at most 65,536; all where there are no more. A view where it can be.

    >>> evenly(torch.arange(131072)).tolist()[:3]
    [0, 2, 4]
    """
    flat = tensor.detach().reshape(-1)
    return flat[:: stride_of(tensor)]


def stride_of(tensor: Tensor) -> int:
    """How many entries of a tensor each one of `evenly` stands for."""
    return max(1, -(-tensor.numel() // _MOST_ENTRIES))


def lost_updates(before: Tensor, after: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries did not change although their gradient is not zero, and how many gradients are not.

    An update below half a unit in the last place of its weight is rounded away.

    >>> before, after = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 0.9, 1.0])
    >>> [count.item() for count in lost_updates(before, after, torch.tensor([1.0, 1.0, 0.0]))]
    [1.0, 2.0]
    """
    wanted = gradient != 0
    lost = torch.count_nonzero(wanted & (before == after)).float()
    return lost, torch.count_nonzero(wanted).float()


class Sketcher:
    """A fixed random projection of gradients to `SKETCH_SIZE` numbers that keeps their inner products on average.

    A count sketch (Charikar, Chen, Farach-Colton 2002): entries at equal places of successive rows of `SKETCH_SIZE`
    entries are added up, each row with a random sign. The signs are a hash of the row's number: no generator is used.
    """

    def __init__(self) -> None:
        self._signs: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def sketch(self, gradients: Iterable[Tensor]) -> Tensor | None:
        """The projection of dense gradients that are on one device, shape (4096,), float32; None of nothing.

        >>> found = Sketcher().sketch([torch.ones(4096), 2 * torch.ones(10)])
        >>> tuple(found.shape)
        (4096,)
        """
        with torch.no_grad():
            total: Tensor | None = None
            row = 0
            for piece in _pieces(gradients):
                if total is None:
                    total = torch.zeros(SKETCH_SIZE, dtype=torch.float32, device=piece.device)
                rows, rest = divmod(piece.numel(), SKETCH_SIZE)
                signs = self._rows(row + rows + 1, piece)[row:]
                if rows:
                    block = piece[: rows * SKETCH_SIZE].view(rows, SKETCH_SIZE)
                    total += torch.mv(block.t(), signs[:rows])
                if rest:
                    start = row * 977 % (SKETCH_SIZE - rest + 1)
                    total[start : start + rest] += piece[-rest:] * signs[rows]
                row += rows + 1
            return total

    def _rows(self, count: int, like: Tensor) -> Tensor:
        """Signs of the first rows."""
        key = (like.device, like.dtype)
        known = self._signs.get(key)
        if known is None or known.numel() < count:
            known = self._signs[key] = _signs(max(2 * count, _FEW_ROWS), like.device).to(like.dtype)
        return known


def cosine_of(products: Iterable[Sequence[float]]) -> float | None:
    """Cosine of two vectors given in parts: of each part the products (a·a, a·b, b·a, b·b). None where one is zero.

    >>> cosine_of([(1.0, 1.0, 1.0, 2.0), (0.0, 0.0, 0.0, 2.0)])
    0.5
    >>> cosine_of([(0.0, 0.0, 0.0, 1.0)]) is None
    True
    """
    parts = list(products)
    own, mixed, other = (sum(part[at] for part in parts) for at in (0, 1, 3))
    below = own * other
    if not 0 < below < float("inf"):  # zero, infinite or NaN
        return None
    cosine = mixed / below**0.5
    return min(max(cosine, -1.0), 1.0) if cosine == cosine else None  # noqa: PLR0124 - NaN


def _pieces(gradients: Iterable[Tensor]) -> Iterable[Tensor]:
    """The gradients as flat tensors; small ones of one dtype are joined, as each piece costs a few kernels."""
    small: list[Tensor] = []
    joined = 0
    for gradient in gradients:
        flat = gradient.detach().reshape(-1)
        if flat.numel() >= SKETCH_SIZE:
            yield flat
        elif flat.numel():
            if small and (flat.dtype != small[0].dtype or joined > _TOGETHER):
                yield torch.cat(small)
                small, joined = [], 0
            small.append(flat)
            joined += flat.numel()
    if small:
        yield torch.cat(small)


def _signs(count: int, device: torch.device) -> Tensor:
    """Plus or minus one for each row: the lowest bit of a hash (the finalizer of MurmurHash3)."""
    mixed = torch.arange(1, count + 1, device=device, dtype=torch.int64)
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        mixed = ((mixed ^ (mixed >> 15)) * factor) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 1) * 2 - 1
