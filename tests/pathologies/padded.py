"""Text in rows of different length, filled up to the longest: what a collate function without bucketing makes."""

import torch
from torch import Tensor
from torch.nn import functional

from tests.pathologies import data
from tests.pathologies.data import Examples

__all__ = ["fraction_right", "loss", "padded"]

_IGNORED = -100


def padded(context: int, *, shortest: float, longest: float) -> tuple[Examples, Examples, int]:
    """Training and validation rows of shape (rows, context), and the size of the alphabet, the pad code included.

    The lengths of texts are uniform between two shares of the context; what is left holds the pad code, and as target
    -100.
    """
    train, validation, alphabet = data.text(context)
    generator = torch.Generator().manual_seed(5)

    def fill(rows: Examples) -> Examples:
        lengths = (shortest + (longest - shortest) * torch.rand(len(rows), 1, generator=generator)) * context
        beyond = torch.arange(context) >= lengths
        return Examples(rows.inputs.masked_fill(beyond, alphabet), rows.targets.masked_fill(beyond, _IGNORED))

    return fill(train), fill(validation), alphabet + 1


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the tokens of (rows, context, alphabet) that are no padding."""
    return functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)


def fraction_right(scores: Tensor, targets: Tensor) -> Tensor:
    """Share of those tokens that are predicted."""
    used = targets != _IGNORED
    return (scores.argmax(-1) == targets)[used].float().mean()
