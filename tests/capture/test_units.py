"""Units that begin as copies of each other."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from lossdoctor.capture.units import units_alike


def filled(model: nn.Module, weight: float, bias: float = 0.0) -> nn.Module:
    """The model with constant weights and biases."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(weight if parameter.ndim > 1 else bias)
    return model


def mlp(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))


def linear(model: nn.Module, number: int) -> nn.Linear:
    """One layer of a Sequential."""
    assert isinstance(model, nn.Sequential)
    layer = model[number]
    assert isinstance(layer, nn.Linear)
    return layer


def test_constant_weights_make_copies_of_all_units() -> None:
    assert units_alike(filled(mlp(), 0.1).modules()) == 1.0


def test_one_of_two_hidden_layers_counts_as_half() -> None:
    model = mlp()
    filled(model[0], 0.1)
    with torch.no_grad():
        linear(model, 2).weight.copy_(torch.randn(8, 1).expand(8, 8))  # equal columns, other rows
    assert units_alike(model.modules()) == 0.5


@pytest.mark.parametrize("weight", [0.0, None])
def test_zero_and_random_weights_are_no_copies(weight: float | None) -> None:
    model = mlp() if weight is None else filled(mlp(), weight)
    assert units_alike(model.modules()) == 0.0


def test_a_constant_layer_among_random_ones_is_no_harm() -> None:
    model = mlp()
    filled(model[0], 0.1)
    assert units_alike(model.modules()) == 0.0


def test_a_constant_or_zero_last_layer_is_no_harm() -> None:
    for value in (0.0, 0.1):
        model = mlp()
        filled(model[4], value)
        assert units_alike(model.modules()) == 0.0


def test_random_biases_tell_units_apart() -> None:
    model = filled(mlp(), 0.1)
    with torch.no_grad():
        linear(model, 0).bias.normal_()
        linear(model, 2).bias.normal_()
    assert units_alike(model.modules()) == 0.0


def test_a_frozen_layer_is_as_it_was_meant_to_be() -> None:
    model = filled(mlp(), 0.1)
    model.requires_grad_(requires_grad=False)
    assert units_alike(model.modules()) == 0.0


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_looked_at(make: Callable[[int, int], nn.Module]) -> None:
    model = nn.ModuleList([make(4, 8), nn.Linear(8, 1)])
    assert units_alike(model.modules()) == 0.0
    assert units_alike(filled(model, 0.1).modules()) == 1.0


def test_convolutions_are_looked_at_and_depthwise_ones_tell_channels_apart() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    assert units_alike(filled(model, 0.1).modules()) == 1.0
    model[1] = nn.Conv2d(8, 8, 3, groups=8)
    assert units_alike(model.modules()) == 0.0


def test_structured_weights_are_no_copies() -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    for number in range(3):
        nn.init.eye_(linear(model, number).weight)
    assert units_alike(model.modules()) == 0.0


def test_nothing_is_said_of_a_single_layer_or_of_weights_that_are_not_there() -> None:
    assert units_alike([nn.Linear(3, 2)]) is None
    assert units_alike([nn.LazyLinear(3), nn.LazyLinear(2)]) is None
    assert units_alike([nn.Linear(3, 3, device="meta"), nn.Linear(3, 3, device="meta")]) is None


def test_the_look_costs_little_whatever_the_size() -> None:
    layers = [nn.Linear(1024, 1024) for _ in range(20)]
    units_alike(layers)
    began = time.perf_counter()
    units_alike(layers)
    assert time.perf_counter() - began < 0.1
