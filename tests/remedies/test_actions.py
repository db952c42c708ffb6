"""Actions, their inverses, floors and ceilings."""

import pytest
import torch
from torch import nn

from lossdoctor.remedies.action import Done, Occasion, Patient, Refused
from lossdoctor.remedies.keeping.snapshots import Snapshots
from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.returning import early_stop, rewind
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.remedies.turning import (
    MULTIPLIER,
    loosen_clipping,
    lower_loss_scale,
    scale_lr,
    scale_weight_decay,
    skip_batch,
    tighten_clipping,
    warm_up_again,
)
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
    assert scale_lr(treated, {"factor": 1e-9}, NOW).changes["lr_multiplier"] == (1.0, 0.001)
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


# -- weight decay, warm-up, clipping loosened, batches left out, the loss scale


def test_scale_weight_decay_honours_groups_without_decay_and_is_taken_back():
    model = network()
    weights = [one for one in model.parameters() if one.ndim > 1]
    biases = [one for one in model.parameters() if one.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    knobs = OptimizerKnobs(optimizer, StepGuard(optimizer), before_step=lambda: None)
    treated = Patient(knobs=[knobs], snapshots=Snapshots(model, [optimizer]))
    used = []
    optimizer.register_step_pre_hook(
        lambda *_: used.append([group["weight_decay"] for group in optimizer.param_groups])
    )
    done = scale_weight_decay(treated, {"factor": 3.0}, NOW)
    assert done.changes == {"weight_decay": (0.01, pytest.approx(0.03))}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert used == [[pytest.approx(0.03), 0.0]]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    done.revert()
    optimizer.step()
    assert used[1] == [0.01, 0.0]


def test_weight_decay_is_not_raised_beyond_a_tenth():
    treated = patient(torch.optim.AdamW, lr=0.1, weight_decay=0.05)
    assert scale_weight_decay(treated, {"factor": 10.0}, NOW).changes["weight_decay"] == (0.05, pytest.approx(0.1))
    assert isinstance(scale_weight_decay(treated, {"factor": 10.0}, NOW), Refused)
    above = patient(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    assert isinstance(scale_weight_decay(above, {"factor": 2.0}, NOW), Refused)
    assert scale_weight_decay(above, {"factor": 0.1}, NOW).changes["weight_decay"] == (0.5, pytest.approx(0.05))
    assert "no parameter group" in scale_weight_decay(patient(), {"factor": 3.0}, NOW).reason


def test_a_warm_up_rises_in_a_line_ends_by_itself_and_hides_from_the_scheduler():
    treated = patient(torch.optim.SGD)
    optimizer = treated.knobs[0].optimizer
    used = []
    optimizer.register_step_pre_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))
    warm_up_again(treated, {"steps": 4.0}, NOW)
    assert isinstance(warm_up_again(treated, {"steps": 4.0}, NOW), Refused)
    for _ in range(6):
        for parameter in treated.snapshots._model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 0.1
    assert used == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert not treated.knobs[0].is_warming_up


def test_a_warm_up_is_taken_back_and_multiplies_with_what_is_in_force():
    treated = patient(torch.optim.SGD)
    scale_lr(treated, {"factor": 0.5}, NOW)
    done = warm_up_again(treated, {"steps": 1.0}, NOW)
    assert treated.knobs[0].in_force == 0.25
    done.revert()
    assert treated.knobs[0].in_force == 0.5


def test_only_what_goes_through_the_monitor_is_loosened():
    treated = patient(torch.optim.SGD)
    assert "does not clip by it" in loosen_clipping(treated, {"max_norm": 5.0}, NOW).reason
    assert treated.clipping.bound(1.0) == 1.0
    done = loosen_clipping(treated, {"max_norm": 5.0}, NOW)
    assert done.changes == {"max_norm": (1.0, 5.0)}
    assert treated.clipping.bound(1.0) == 5.0
    assert treated.clipping.bound(7.0) == 7.0
    done.revert()
    assert treated.clipping.bound(1.0) == 1.0
    assert isinstance(loosen_clipping(treated, {"max_norm": 0.5}, NOW), Refused)


def test_a_batch_with_a_huge_gradient_is_left_out_until_huge_is_normal():
    treated = patient(torch.optim.SGD)
    optimizer, model = treated.knobs[0].optimizer, treated.snapshots._model
    guard = treated.knobs[0].guard

    def step(size):
        before = values_of(model)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, size)
        optimizer.step()
        assert all(parameter.grad is not None for parameter in model.parameters())
        return not same(values_of(model), before)

    done = skip_batch(treated, {"max_norm": 10.0}, NOW)
    assert step(0.01)
    assert not step(100.0)
    assert step(0.01)
    assert guard.collect().large == 1
    assert [step(100.0) for _ in range(6)] == [False] * 4 + [True] * 2
    assert guard.largest is None
    done.undo()
    assert guard.largest is None


def test_a_norm_above_the_bound_means_unscaled_gradients():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    guard = StepGuard(optimizer)
    guard.largest = 10.0
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.grad_scale = torch.tensor(1024.0)
    assert not guard.inspect(closure=False)
    optimizer.grad_scale = torch.tensor(1.0)
    assert guard.inspect(closure=False)


def test_a_fused_optimizer_on_a_device_is_told_by_its_flag():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    guard = StepGuard(optimizer, on_device=True)
    guard.largest = 10.0
    for size, found in ((0.01, 0.0), (100.0, 1.0)):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, size)
        assert not guard.inspect(closure=False)
        guard.block()
        assert float(optimizer.found_inf) == found
        guard.finished()
        guard.release()


def test_without_a_fused_optimizer_a_device_is_not_asked():
    treated = patient(torch.optim.SGD)
    treated.knobs[0].guard._on_device = True
    assert "fused" in skip_batch(treated, {"max_norm": 10.0}, NOW).reason


def test_the_loss_scale_is_lowered_and_not_below_one():
    treated = patient(torch.optim.SGD)
    assert "no GradScaler" in lower_loss_scale(treated, {"factor": 0.5}, NOW).reason
    scaler = treated.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    assert "no backward pass" in lower_loss_scale(treated, {"factor": 0.5}, NOW).reason
    scaler.scale(torch.ones(()))
    done = lower_loss_scale(treated, {"factor": 0.25}, NOW)
    assert done.changes == {"loss_scale": (64.0, 16.0)}
    assert scaler.get_scale() == 16.0
    done.undo()
    assert scaler.get_scale() == 64.0
    assert lower_loss_scale(treated, {"factor": 1e-9}, NOW).changes["loss_scale"] == (64.0, 1.0)
    assert isinstance(lower_loss_scale(treated, {"factor": 0.5}, NOW), Refused)
    assert isinstance(lower_loss_scale(treated, {"factor": 2.0}, NOW), Refused)
