"""Layers and names."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from lossdoctor.capture.names import clean_name, layers_of


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(1))


def test_layers_are_modules_that_own_parameters_and_tied_weights_count_once():
    found = layers_of(Tied())
    assert [(layer.name, layer.type, len(layer.parameters)) for layer in found] == [
        ("Tied", "Tied", 1),
        ("embed", "Embedding", 1),
    ]


def test_a_parametrized_weight_belongs_to_the_module_that_uses_it():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    assert [(layer.name, layer.type, len(layer.parameters)) for layer in layers_of(model)] == [
        ("0", "Linear", 3),
        ("1", "Linear", 2),
    ]


def test_wrappers_leave_no_trace_in_names():
    model = torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager")
    assert [layer.name for layer in layers_of(model)] == ["0"]
    assert sorted(clean_name(name) for name, _ in model.named_parameters()) == ["0.bias", "0.weight"]


def test_a_module_of_the_users_that_is_called_module_keeps_its_name():
    model = nn.ModuleDict({"body": nn.ModuleDict({"module": nn.Linear(2, 2)})})
    assert [layer.name for layer in layers_of(model)] == ["body.module"]


def test_a_model_that_is_a_layer_has_the_name_of_its_type():
    assert [layer.name for layer in layers_of(nn.Linear(2, 2))] == ["Linear"]
