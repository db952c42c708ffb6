"""What is said of a model's parts."""

import torch
from torch import nn

from lossdoctor.capture.modules import Inventory, in_eval, low_precision_share, precision_of, without_optimizer
from lossdoctor.capture.names import layers_of


def inventory(model: nn.Module) -> Inventory:
    return Inventory(model, layers_of(model))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1))
        self.drop = nn.Dropout(0.2)
        self.idle = nn.Dropout(0.0)
        self.norm = nn.BatchNorm1d(4, affine=False)
        self.memory = nn.LSTM(4, 4, num_layers=2, dropout=0.1)
        self.head = nn.Linear(4, 2)


def test_a_model_in_training_mode_has_nothing_in_eval():
    assert in_eval(inventory(Backbone()).modes) == ([], 5)


def test_a_forgotten_train_names_every_module_that_minds():
    names, all_of_them = in_eval(inventory(Backbone().eval()).modes)
    assert names == ["backbone.1", "backbone.2", "drop", "norm", "memory"]
    assert all_of_them == 5


def test_a_frozen_backbone_may_be_in_eval_mode():
    model = Backbone()
    model.backbone.requires_grad_(False).eval()
    assert in_eval(inventory(model).modes) == ([], 3)
    model.backbone[0].requires_grad_(True)
    assert in_eval(inventory(model).modes)[0] == ["backbone.2"]


def test_a_model_without_such_modules_has_none():
    assert in_eval(inventory(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).eval()).modes) == ([], 0)


def test_parameters_in_no_group_are_named_and_frozen_ones_are_not():
    model = Backbone()
    model.backbone.requires_grad_(False)
    parameters = inventory(torch.nn.DataParallel(model)).parameters
    optimizer = torch.optim.SGD(model.memory.parameters(), lr=0.1)
    assert without_optimizer(parameters, [optimizer]) == ["head.weight", "head.bias"]
    optimizer.add_param_group({"params": model.head.parameters()})
    assert without_optimizer(parameters, [optimizer]) == []
    assert inventory(model).frozen == 4


def test_a_tied_weight_is_one_parameter():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    assert list(inventory(model).parameters) == ["0.weight"]
    assert inventory(model).sparse_inputs == {id(model[0].weight)}


def test_activations_belong_to_the_layer_registered_before_them():
    model = nn.Sequential(nn.Tanh(), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid())
    found = [(target.kind, target.layer, target.before, target.unit_dim) for target in inventory(model).targets]
    assert found == [
        ("tanh", None, None, -1),
        (None, 0, 0, 1),
        ("batch_norm", 1, 1, 1),
        ("dead", None, 1, 1),
        (None, 2, 2, -1),
        ("sigmoid", None, 2, -1),
    ]


def test_a_parametrized_layer_is_one_layer():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3, bias=False)), nn.ReLU())
    assert [(target.layer, target.before) for target in inventory(model).targets] == [(0, 0), (None, 0)]


def test_precision_is_said_as_people_say_it():
    model = nn.Linear(4, 4)
    assert precision_of(model.parameters()) == "fp32 weights"
    assert precision_of(model.bfloat16().parameters(), autocast="") == "bf16 weights"
    assert precision_of([*model.parameters(), nn.Parameter(torch.ones(3))]) == "bf16 and fp32 weights"
    assert precision_of(nn.Linear(2, 2).parameters(), autocast="float16") == "fp32 weights, fp16 autocast"
    assert precision_of([]) == ""


def test_only_weights_that_are_trained_count_as_low_precision():
    model = nn.Sequential(nn.Linear(4, 4, bias=False).half(), nn.Linear(4, 4, bias=False))
    assert low_precision_share(model.parameters()) == 0.5
    model[0].requires_grad_(False)
    assert low_precision_share(model.parameters()) == 0.0
    assert low_precision_share(model[0].parameters()) is None
    assert precision_of(model.parameters()) == "fp32 weights"
