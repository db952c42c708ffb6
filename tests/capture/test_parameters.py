"""Which parameters take no part in a training."""

import math

import numpy as np
import torch
from torch import nn

from lossdoctor.capture.modules import Inventory
from lossdoctor.capture.names import layers_of
from lossdoctor.capture.parameters import ParameterWatch


def watched(groups: int = 2) -> tuple[nn.Sequential, Inventory, ParameterWatch]:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    held = [parameter for layer in model[:groups] for parameter in layer.parameters()]
    return model, Inventory(model, layers_of(model)), ParameterWatch([torch.optim.SGD(held, lr=0.1)])


def sample(model: nn.Sequential, inventory: Inventory, watch: ParameterWatch) -> list[str]:
    watch.begin(inventory)
    watch.saw(0, list(model.parameters()))
    return watch.without_gradient(inventory)


def test_a_parameter_without_a_gradient_is_named_at_the_second_sample_until_it_has_one():
    model, inventory, watch = watched()
    model[0].weight.grad = torch.ones(2, 2)
    assert sample(model, inventory, watch) == []
    assert sample(model, inventory, watch) == ["1.weight"]
    model[1].weight.grad, model[0].weight.grad = model[0].weight.grad, None
    assert sample(model, inventory, watch) == []
    assert sample(model, inventory, watch) == ["0.weight"]
    model[0].weight.requires_grad_(False)
    assert sample(model, inventory, watch) == []


def test_what_somebody_else_changes_is_in_an_optimizer_we_were_not_given():
    model, inventory, watch = watched(groups=1)
    watch.begin(inventory)
    watch.begin(inventory)
    assert watch.without_optimizer() == ["1.weight"]
    with torch.no_grad():
        model[1].weight.sub_(0.1)
    watch.begin(inventory)
    assert watch.without_optimizer() == []


def test_a_parameter_that_never_moves_needs_gradients_a_learning_rate_and_three_samples():
    model, inventory, watch = watched()
    ids = [id(parameter) for parameter in model.parameters()]
    for gradients, at_rest in (
        ([0.0, math.nan], set()),
        ([math.nan, math.inf], set()),
        ([1.0, 1.0], {ids[1]}),
        ([1.0, 1.0], set()),
    ):
        assert watch.never_moved(inventory) == []
        watch.stepped(ids, [0.0, 0.0], np.array(gradients), at_rest)
    assert watch.never_moved(inventory) == []
    watch.stepped(ids, [0.0, 0.0], np.array([1.0, 1.0]), set())
    assert watch.never_moved(inventory) == ["0.weight"]
    watch.stepped(ids, [0.0, 0.0], np.array([1.0, 1.0]), set())
    assert watch.never_moved(inventory) == ["0.weight", "1.weight"]
    watch.stepped(ids, [1e-9, 0.0], np.array([1.0, 1.0]), set())
    assert watch.never_moved(inventory) == ["1.weight"]
