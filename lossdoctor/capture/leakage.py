"""Whether rows of the validation data are rows of the training data: two small samples of hashes tell.

Of each split the rows with the smallest hashes are kept. What is small does not depend on the split, so a row that is
in both is kept in both, or in neither: the share among the kept is an unbiased estimate of the share among all
(bottom-k sketch; Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches").
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lossdoctor.capture.batch import Layout

__all__ = ["RowSketch", "row_keys", "share_seen"]

_KEPT = 2000
"""Rows kept of each split."""
_LEAST = 8
"""Validation rows without which nothing is said."""
_WORDS = 512
"""Words read of a row, evenly spaced; 64-bit words where a row's size allows it."""
_CELLS = 1 << 16
"""Words read of a batch: about 0.1 ms."""
_TELLING = 16
"""Words that must differ from the one before: nearly constant rows are alike without being copies."""

_Keys = npt.NDArray[np.uint64]


def _multipliers() -> _Keys:
    """Random odd numbers, always the same and from no global generator (Steele et al. 2014, SplitMix64)."""
    state, found = 0x9E3779B97F4A7C15, []
    for _ in range(_WORDS):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
        found.append((mixed ^ (mixed >> 31)) | 1)
    return np.array(found, dtype=np.uint64)


_MULTIPLIERS = _multipliers()


class RowSketch:
    """The hashes of up to 2,000 rows of a split, chosen by their hash."""

    def __init__(self, kept: int = _KEPT) -> None:
        self.rows = 0
        """Rows seen."""
        self._kept = kept
        self._bound = np.uint64(2**64 - 1)
        self._keys: _Keys = np.empty(0, dtype=np.uint64)
        self._counts: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._new: list[_Keys] = []
        self._waiting = 0

    def add(self, keys: _Keys) -> None:
        """Take in the hashes of rows, shape (n,)."""
        self.rows += len(keys)
        keys = keys[keys <= self._bound]
        if len(keys):
            self._new.append(keys)
            self._waiting += len(keys)
            if self._waiting >= self._kept:
                self._settle()

    @property
    def repeated(self) -> float | None:
        """The share of the rows that occurred before; None of nothing."""
        self._settle()
        total = int(self._counts.sum())
        return 1.0 - len(self._keys) / total if total else None

    def below(self, bound: np.uint64) -> _Keys:
        """The different hashes kept, ascending, up to a bound."""
        self._settle()
        return self._keys[self._keys <= bound]

    @property
    def bound(self) -> np.uint64:
        """The hash up to which every row was kept."""
        self._settle()
        return self._bound

    def _settle(self) -> None:
        if not self._new:
            return
        keys = np.concatenate([self._keys, *self._new])
        counts = np.concatenate([self._counts, np.ones(len(keys) - len(self._keys), dtype=np.int64)])
        self._new, self._waiting = [], 0
        self._keys, inverse = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(inverse, counts).astype(np.int64)
        if len(self._keys) > self._kept:
            self._keys, self._counts = self._keys[: self._kept], self._counts[: self._kept]
            self._bound = self._keys[-1]


def share_seen(train: RowSketch, validation: RowSketch) -> float | None:
    """The share of different validation rows that are training rows; None where too few were seen."""
    bound = min(train.bound, validation.bound)
    rows, known = validation.below(bound), train.below(bound)
    if len(rows) < _LEAST or not len(known):
        return None
    return float(np.isin(rows, known, assume_unique=True).mean())


def row_keys(layout: Layout) -> _Keys | None:
    """A hash of each row of the input, shape (rows,); None if it is not in host memory. Constant rows are left out.

    Sum of the row's words times odd multipliers, mod 2^64 (multilinear hashing; Carter and Wegman 1979), mixed once.
    """
    part = layout.inputs if layout.inputs is not None else layout.ids
    if part is None or not part.is_cpu or part.ndim < 2 or not part.numel():  # noqa: PLR2004
        return None
    words = _token_words(part, layout.mask) if part is layout.ids else _words(part)
    if not words.shape[1]:
        return None
    telling = (words[:, 1:] != words[:, :-1]).sum(1) >= min(_TELLING, words.shape[1] // 2)
    keys: _Keys = np.dot(words, _MULTIPLIERS[: words.shape[1]])
    keys ^= keys >> np.uint64(32)
    keys *= _MULTIPLIERS[0]
    keys ^= keys >> np.uint64(29)
    found: _Keys = keys[telling]
    return found


def _words(part: Tensor) -> _Keys:
    part = part.detach()
    if part.dtype == torch.bfloat16:  # numpy does not know it
        part = part.view(torch.int16)
    size = part[0].numel() * part.element_size()
    width = next(width for width in (8, 4, 2, 1) if size % width == 0)
    step = -(-size // (width * _WORDS))
    rows = max(_CELLS * step * width // size, 1)
    flat = part[:rows].reshape(min(rows, len(part)), -1).contiguous().numpy()
    words = flat.view(f"u{width}")[:, ::step]
    return np.ascontiguousarray(words, dtype=np.uint64)


def _token_words(ids: Tensor, mask: Tensor | None) -> _Keys:
    """Token ids, with zero for padding, so that a row is the same in batches of different lengths."""
    rows = max(_CELLS // ids.shape[1], 1)
    values = ids.detach()[:rows].numpy().astype(np.int64) + 1
    if mask is not None and mask.is_cpu and mask.shape == ids.shape:
        values *= mask.detach()[:rows].numpy() != 0
    else:
        run = np.cumprod((values == values[:, -1:])[:, ::-1], axis=1)[:, ::-1]
        values[(run > 0) & (run.sum(1) > 1)[:, None]] = 0
    return values[:, :_WORDS].astype(np.uint64)
