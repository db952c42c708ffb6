"""Why a training by several processes is not treated."""

import pytest
import torch
from torch import nn

from lossdoctor.capture.ranks import why_not_treated
from lossdoctor.capture.shards import Shards


class ShardedGradScaler(torch.amp.GradScaler):
    """Named as the one of torch that looks at the shards of all ranks."""


@pytest.fixture
def flat():
    return Shards({1: object()}, 2)


def test_flat_parameters_want_a_scaler_that_asks_all_ranks(flat):
    assert "ShardedGradScaler" in why_not_treated(flat, torch.amp.GradScaler("cpu"))
    assert why_not_treated(flat, ShardedGradScaler("cpu")) == ""


def test_no_other_training_is_refused(flat):
    scaler = torch.amp.GradScaler("cpu")
    assert why_not_treated(flat, None) == ""
    assert why_not_treated(flat, torch.amp.GradScaler("cpu", enabled=False)) == ""
    assert why_not_treated(None, scaler) == ""
    assert why_not_treated(Shards({}, 2), scaler) == ""


def test_a_model_that_is_not_sharded_has_no_shards():
    assert Shards.of(nn.Linear(2, 2)) is None
