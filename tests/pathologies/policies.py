"""Policies by REINFORCE: their loss is a surrogate, whose gradient means something and whose level means nothing."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tests.pathologies.data import Examples

__all__ = ["bandit", "surrogate"]

_FEATURES = 6
_TRAIN_ROWS, _VALIDATION_ROWS = 1500, 500
_SEED = 11


def bandit(arms: int, reward: float) -> tuple[Examples, Examples]:
    """Situations of six features, (rows, features), and what each arm would pay in them, (rows, arms)."""
    generator = torch.Generator().manual_seed(_SEED)
    inputs = torch.randn(_TRAIN_ROWS + _VALIDATION_ROWS, _FEATURES, generator=generator)
    pays = reward * inputs @ torch.randn(_FEATURES, arms, generator=generator)
    rows = Examples(inputs, pays)
    return rows[:_TRAIN_ROWS], rows[_TRAIN_ROWS:]


def surrogate(entropy: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """REINFORCE with the batch's mean as baseline (Williams 1992); without gradients, minus the expected reward."""
    return partial(_surrogate, entropy=entropy)


def _surrogate(scores: Tensor, rewards: Tensor, *, entropy: float) -> Tensor:
    policy = torch.distributions.Categorical(logits=scores)
    if not scores.requires_grad:
        return -(policy.probs * rewards).sum(-1).mean()
    arms = policy.sample()
    paid = rewards.gather(1, arms[:, None])[:, 0]
    return -(policy.log_prob(arms) * (paid - paid.mean())).mean() - entropy * policy.entropy().mean()
