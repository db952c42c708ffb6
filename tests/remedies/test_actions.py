"""Actions, their inverses, floors and ceilings."""

import pytest
import torch
from torch import nn

from lossdoctor.remedies.actions import (
    MULTIPLIER,
    Done,
    Occasion,
    Patient,
    Refused,
    early_stop,
    rewind,
    scale_lr,
    tighten_clipping,
)
from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.remedies.snapshots import Snapshots
from tests.remedies.patients import NAN, network, same, values_of

NOW = Occasion(step=50, since=40)


def patient(*kinds, model=None, **options):
    model = network() if model is None else model
    optimizers = [kind(model.parameters(), **(options or {"lr": 0.1})) for kind in kinds or (torch.optim.SGD,)]
    knobs = [OptimizerKnobs(one, StepGuard(one), before_step=lambda: None) for one in optimizers]
    return Patient(knobs=knobs, snapshots=Snapshots(model, optimizers))


def multipliers(treated):
    return [knobs.multiplier for knobs in treated.knobs]


def test_scale_lr_multiplies_what_is_in_force_for_all_optimizers_and_its_inverse_takes_it_back():
    treated = patient(torch.optim.SGD, torch.optim.AdamW)
    first = scale_lr(treated, {"factor": 0.5}, NOW)
    second = scale_lr(treated, {"factor": 0.25}, NOW)
    assert multipliers(treated) == [0.125, 0.125]
    assert first.changes == {"lr_multiplier": (1.0, 0.5), "learning_rate": (0.1, 0.05)}
    second.undo()
    assert multipliers(treated) == [0.5, 0.5]
    first.revert()
    assert multipliers(treated) == [1.0, 1.0]


@pytest.mark.parametrize("factor", [0.0, -1.0, NAN, float("inf")])
def test_scale_lr_refuses_what_is_no_factor(factor):
    assert isinstance(scale_lr(patient(), {"factor": factor}, NOW), Refused)
    assert isinstance(scale_lr(patient(), {}, NOW), Refused)


def test_scale_lr_has_a_floor_and_a_ceiling():
    treated = patient()
    assert scale_lr(treated, {"factor": 1e-9}, NOW).changes["lr_multiplier"] == (1.0, 0.02)
    while isinstance(scale_lr(treated, {"factor": 0.1}, NOW), Done):
        pass
    assert multipliers(treated) == [MULTIPLIER[0]]
    treated = patient()
    assert scale_lr(treated, {"factor": 1e9}, NOW).changes["lr_multiplier"] == (1.0, 4.0)
    while isinstance(result := scale_lr(treated, {"factor": 4.0}, NOW), Done):
        pass
    assert multipliers(treated) == [MULTIPLIER[1]]
    assert "ceiling" in result.reason


def test_scale_lr_is_no_remedy_under_rprop():
    assert "no notice" in scale_lr(patient(torch.optim.Rprop), {"factor": 0.5}, NOW).reason


def test_tighten_clipping_bounds_and_never_loosens():
    treated = patient()
    first = tighten_clipping(treated, {"max_norm": 2.0}, NOW)
    assert first.changes == {"max_norm": (0.0, 2.0)}
    assert isinstance(tighten_clipping(treated, {"max_norm": 3.0}, NOW), Refused)
    second = tighten_clipping(treated, {"max_norm": 1.0}, NOW)
    assert treated.knobs[0].max_norm == 1.0
    second.revert()
    assert treated.knobs[0].max_norm == 2.0
    first.undo()
    assert treated.knobs[0].max_norm is None


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_tighten_clipping_is_no_remedy_where_the_gradients_scale_is_divided_out(kind):
    treated = patient(kind)
    assert kind.__name__ in tighten_clipping(treated, {"max_norm": 1.0}, NOW).reason
    assert treated.knobs[0].max_norm is None


def test_tighten_clipping_takes_the_optimizers_for_which_it_is_a_remedy():
    treated = patient(torch.optim.Adam, torch.optim.SGD)
    tighten_clipping(treated, {"max_norm": 1.0}, NOW)
    assert [knobs.max_norm for knobs in treated.knobs] == [None, 1.0]


@pytest.mark.parametrize("bound", [0.0, -1.0, NAN, float("inf")])
def test_tighten_clipping_refuses_what_is_no_bound(bound):
    assert isinstance(tighten_clipping(patient(), {"max_norm": bound}, NOW), Refused)


def test_rewind_goes_back_before_the_fault_and_its_inverse_returns():
    model = network()
    treated = patient(model=model)
    for step in (0, 30, 45):
        nn.init.constant_(model[0].weight, step)
        treated.snapshots.take(step)
    nn.init.constant_(model[0].weight, 50)
    done = rewind(treated, {}, NOW)
    assert done.changes == {"weights": (50, 30)}
    assert done.rewound_to == 30
    assert model[0].weight[0, 0] == 30
    done.undo()
    assert model[0].weight[0, 0] == 50


def test_rewind_goes_back_before_the_step_at_which_a_rule_saw_all_well():
    treated = patient()
    for step in (0, 10, 30):
        treated.snapshots.take(step)
    assert rewind(treated, {"before": 20.0}, NOW).rewound_to == 10
    assert rewind(treated, {"before": 45.0}, NOW).rewound_to == 30
    assert rewind(treated, {"before": 0.0}, NOW).rewound_to == 0


def test_rewind_prefers_an_older_snapshot_to_one_that_did_not_help():
    treated = patient()
    for step in (0, 10, 30):
        treated.snapshots.take(step)
    assert rewind(treated, {}, Occasion(step=50, since=40, tried=frozenset({30.0}))).rewound_to == 10
    tried = frozenset({0.0, 10.0, 30.0})
    assert rewind(treated, {}, Occasion(step=50, since=40, tried=tried)).rewound_to == 30
    assert "before step 0" in rewind(treated, {}, Occasion(step=50, since=0)).reason


def test_early_stop_has_the_best_weights_in_place_when_it_asks_to_stop():
    model = network()
    treated = patient(model=model)
    assert isinstance(early_stop(treated, {"to_step": 20}, NOW), Refused)
    treated.snapshots.take_best(20, 0.5)
    best = values_of(model)
    nn.init.zeros_(model[0].weight)
    last = values_of(model)
    done = early_stop(treated, {"to_step": 20}, NOW)
    assert treated.stopped
    assert same(values_of(model), best)
    assert done.changes == {"weights": (50, 20)}
    done.undo()
    assert not treated.stopped
    assert same(values_of(model), last)
