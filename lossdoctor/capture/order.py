"""The order of an epoch as one number: the same number again means that the same rows came in the same order."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossdoctor.capture.batch import Layout

__all__ = ["EpochOrder", "OrderRepeats", "host_bytes", "length_of"]

_BATCHES = 8
_MOST_BATCHES = 64
_LABELS = 256
"""Labels that have to be in a hash: with a few of two classes, equal hashes are chance."""
_BYTES = 4096
"""Bytes read of a batch."""


class EpochOrder:
    """Hashes the beginning of one epoch; `length` is the number of its batches, where that is known.

    Labels are hashed, or token ids where there are none: they stay what they are under augmentation. Where all of them
    are equal they tell nothing, so the inputs are hashed too.
    """

    def __init__(self, length: int | None) -> None:
        self.is_done = length == 1  # a single batch has no order
        self._length = length
        self._hash = hashlib.blake2b(digest_size=3)  # 24 bits: a float32 column holds such a number exactly
        self._batches = self._labels = 0

    def add(self, layout: Layout) -> int | None:
        """Take in the next batch. The number, once enough is known; None before and after, or if it cannot be known."""
        if self.is_done:
            return None
        named = next((part for part in (layout.labels, layout.ids, layout.inputs) if part is not None), None)
        seen = None if named is None else host_bytes(named)
        if named is None or seen is None:
            self.is_done = True
            return None
        self._hash.update(seen.tobytes())
        if layout.inputs is not None and seen.size and (seen == seen.flat[0]).all():
            inputs = host_bytes(layout.inputs)
            if inputs is not None:
                self._hash.update(inputs.tobytes())
        self._batches += 1
        self._labels += seen.size
        is_enough = self._batches >= _BATCHES and self._labels >= _LABELS
        if is_enough or self._batches in {_MOST_BATCHES, self._length}:
            self.is_done = True
            return self._number()
        return None

    def end(self) -> int | None:
        """The number of an epoch that ended before its hash was complete."""
        if self.is_done or self._batches <= 1:
            return None
        self.is_done = True
        return self._number()

    def _number(self) -> int:
        return int.from_bytes(self._hash.digest(), "big")


class OrderRepeats:
    """Counts the epochs in a row that began with the same rows in the same order, the latest among them.

    >>> repeats = OrderRepeats()
    >>> for order in (7, 7, 7, 9):
    ...     repeats.note(order)
    >>> repeats.count
    1
    """

    def __init__(self) -> None:
        self.count = 0
        """0 before the order of an epoch is known."""
        self._last: int | None = None

    def note(self, order: int) -> None:
        """Take in the number of the next epoch."""
        self.count = self.count + 1 if order == self._last else 1
        self._last = order


def host_bytes(tensor: Tensor) -> np.ndarray[Any, Any] | None:
    """The first numbers of a tensor in host memory, at most 4 KiB; None if it is elsewhere."""
    if not tensor.is_cpu or tensor.layout != torch.strided:
        return None
    tensor = tensor.detach()
    count = max(_BYTES // tensor.element_size(), 1)
    if tensor.numel() > count:
        tensor = tensor.reshape(-1)[:count] if tensor.is_contiguous() else tensor[:count].flatten()[:count]
    if tensor.dtype == torch.bfloat16:  # numpy does not know it
        tensor = tensor.view(torch.int16)
    found: np.ndarray[Any, Any] = tensor.numpy()
    return found


def length_of(loader: Any) -> int | None:
    """The number of batches of a loader; None where it does not know."""
    try:
        return len(loader)
    except Exception:  # noqa: BLE001 - a loader may be anything; many have no length
        return None
