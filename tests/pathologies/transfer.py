"""Networks that already know something: fine-tuning all of one, or low-rank adapters beside frozen weights.

What is trained before is a function of fixed seeds, is trained once a process, and leaves torch's generator alone.
"""

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from tests.pathologies import data
from tests.pathologies.data import Examples
from tests.pathologies.models import CharTransformer, cnn

__all__ = ["CONTEXT", "adapted_language_model", "digits_to_tune_on", "prose_to_tune_on", "tuned_network"]

CONTEXT = 32
_KNOWN_DIGITS = 5
_PRETRAINING_STEPS = 300


class LowRank(nn.Module):
    """What is added to a frozen weight: a product of two thin matrices, 0 at first (Hu et al. 2021)."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.gain = 16 / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer uses."""
        return weight + self.gain * self.up @ self.down


def digits_to_tune_on() -> tuple[Examples, Examples]:
    """The digits that the network has not seen, 5 to 9, as classes 0 to 4."""
    return tuple(  # type: ignore[return-value]
        Examples(
            part.inputs[part.targets >= _KNOWN_DIGITS], part.targets[part.targets >= _KNOWN_DIGITS] - _KNOWN_DIGITS
        )
        for part in data.digits()
    )


def tuned_network(*, frozen_stem: bool = False) -> nn.Module:
    """A network that knows the digits 0 to 4, with a fresh last layer; with `frozen_stem` the rest stays as it is."""
    model = copy.deepcopy(_known_digits())
    last = model[-1]
    if frozen_stem:
        model.requires_grad_(requires_grad=False)
    model[-1] = nn.Linear(last.in_features, last.out_features)
    return model


def prose_to_tune_on() -> tuple[Examples, Examples, int]:
    """Prose in which the twelve commonest characters changed places, and the size of the alphabet."""
    train, validation, alphabet = data.text(CONTEXT)
    common = train.inputs.flatten().bincount(minlength=alphabet).argsort(descending=True, stable=True)[:12]
    cipher = torch.arange(alphabet)
    cipher[common] = common.roll(1)
    changed = [Examples(cipher[part.inputs], cipher[part.targets]) for part in (train, validation)]
    return changed[0], changed[1], alphabet


def adapted_language_model(*, rank: int = 4) -> nn.Module:
    """A language model of the prose as it was, with adapters in its feed-forward layers."""
    model = copy.deepcopy(_known_prose()).requires_grad_(requires_grad=False)
    for block in model.blocks.layers:
        for layer in (block.linear1, block.linear2):
            parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape, rank))
    return model


@cache
def _known_digits() -> nn.Module:
    train, _ = data.digits()
    known = train[train.targets < _KNOWN_DIGITS]
    with torch.random.fork_rng():
        torch.manual_seed(40)
        model = cnn(norm="batch")
        model[-1] = nn.Linear(model[-1].in_features, _KNOWN_DIGITS)
        return _pretrained(model, known, batch_size=64)


@cache
def _known_prose() -> nn.Module:
    train, _, alphabet = data.text(CONTEXT)
    with torch.random.fork_rng():
        torch.manual_seed(41)
        return _pretrained(CharTransformer(alphabet, CONTEXT), train, batch_size=16)


def _pretrained(model: nn.Module, rows: Examples, *, batch_size: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(_PRETRAINING_STEPS):
        batch = rows[torch.randint(len(rows), (batch_size,))]
        optimizer.zero_grad()
        scores = model(batch.inputs)
        functional.cross_entropy(scores.flatten(0, -2), batch.targets.flatten()).backward()
        optimizer.step()
    return model
