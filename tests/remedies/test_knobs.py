"""The learning-rate multiplier and the clipping: in force during the step, invisible outside."""

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from lossdoctor.remedies.knobs import OptimizerKnobs, ignores_learning_rate
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.runs.info import is_scale_invariant
from tests.remedies.patients import OPTIMIZERS, batch, network, same, values_of

SCHEDULERS = {
    "lambda": lambda o: schedulers.LambdaLR(o, lambda step: 0.9**step),
    "multiplicative": lambda o: schedulers.MultiplicativeLR(o, lambda _: 0.9),
    "step": lambda o: schedulers.StepLR(o, 3),
    "multi_step": lambda o: schedulers.MultiStepLR(o, [2, 5]),
    "constant": lambda o: schedulers.ConstantLR(o, total_iters=4),
    "linear": lambda o: schedulers.LinearLR(o, total_iters=5),
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.9),
    "polynomial": lambda o: schedulers.PolynomialLR(o, total_iters=20),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 10),
    "warm_restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "one_cycle": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "plateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, total_iters=3), schedulers.ExponentialLR(o, 0.9)], [3]
    ),
    "chained": lambda o: schedulers.ChainedScheduler([schedulers.ExponentialLR(o, 0.9), schedulers.StepLR(o, 2)]),
}


def knobs_on(optimizer):
    return OptimizerKnobs(optimizer, StepGuard(optimizer), before_step=lambda: None)


def rates(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def run(optimizer_name, scheduler_name, multiplier):
    """The LRs that a training sees outside of its steps, and those in force."""
    model = network()
    optimizer = OPTIMIZERS[optimizer_name](list(model.parameters()))
    if multiplier is not None:
        knobs_on(optimizer).multiplier = multiplier
    used = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(rates(o)[0]))
    scheduler = SCHEDULERS[scheduler_name](optimizer)
    seen = []
    for step in range(8):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step(1.0) if scheduler_name == "plateau" else scheduler.step()
        seen.append((rates(optimizer), scheduler.get_last_lr()))
    return seen, used


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_keeps_its_own_sequence_while_a_multiplier_is_in_force(scheduler):
    for optimizer in ("sgd_momentum_fused", "sgd_tensor_lr", "adamw_foreach"):
        seen, used = run(optimizer, scheduler, None)
        treated, reduced = run(optimizer, scheduler, 0.25)
        assert treated == seen
        assert reduced == pytest.approx([rate / 4 for rate in used], rel=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_steps_with_the_multiplied_rate_and_shows_the_nominal_one(optimizer):
    seen, used = run(optimizer, "exponential", None)
    treated, reduced = run(optimizer, "exponential", 0.5)
    assert treated == seen
    assert reduced == pytest.approx([rate / 2 for rate in used], rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_tensor_lr", "adamw", "adamw_fused_tensor_lr"])
def test_half_the_multiplier_is_half_the_learning_rate(optimizer):
    updates = []
    for factor, multiplier in ((0.5, 1.0), (1.0, 0.5)):
        model = network()
        made = OPTIMIZERS[optimizer](list(model.parameters()))
        for group in made.param_groups:
            group["lr"] = group["lr"] * factor
        knobs_on(made).multiplier = multiplier
        x, y = batch(1)
        for _ in range(3):
            made.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            made.step()
        updates.append(values_of(model))
    assert same(*updates)


def test_a_rate_tensor_that_groups_share_is_multiplied_once():
    rate = torch.tensor(0.1)
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=rate)
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    knobs_on(optimizer).multiplier = 0.5
    for parameter in (one, other):
        parameter.grad = torch.ones(2)
    optimizer.step()
    assert torch.allclose(one, torch.full((2,), 0.95))
    assert torch.allclose(other, torch.full((2,), 0.95))
    assert rate.item() == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_an_exception_inside_the_step_leaves_no_multiplier_behind(rate):
    class Failing(torch.optim.SGD):
        fails = False

        def step(self, closure=None):
            if self.fails:
                raise RuntimeError("out of memory")
            return super().step(closure)

    parameter = nn.Parameter(torch.ones(2))
    optimizer = Failing([parameter], lr=rate)
    knobs = knobs_on(optimizer)
    knobs.multiplier = 0.5
    parameter.grad = torch.ones(2)
    optimizer.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    assert rates(optimizer) == pytest.approx([0.05])
    knobs.undo()
    assert rates(optimizer) == pytest.approx([0.1])
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    optimizer.fails = False
    optimizer.step()  # the next pre-hook undoes it, too
    assert torch.allclose(parameter, torch.full((2,), 0.95))
    assert rates(optimizer) == pytest.approx([0.1])


def test_a_rate_that_was_set_during_the_step_is_not_overwritten():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    knobs_on(optimizer).multiplier = 0.5
    optimizer.register_step_pre_hook(lambda o, *_: o.param_groups[0].update(lr=0.3))
    parameter.grad = torch.ones(2)
    optimizer.step()
    assert rates(optimizer) == [0.3]


def test_a_scheduler_stepped_in_an_older_post_hook_finds_the_nominal_rate():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.register_step_post_hook(lambda o, *_: o.param_groups[0].update(lr=o.param_groups[0]["lr"] * 0.9))
    knobs_on(optimizer).multiplier = 0.5
    for _ in range(3):
        parameter.grad = torch.ones(2)
        optimizer.step()
    assert rates(optimizer) == pytest.approx([0.1 * 0.9**3])


def test_closing_removes_every_hook():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    knobs = knobs_on(optimizer)
    knobs.multiplier, knobs.max_norm = 0.5, 1e-3
    knobs.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    parameter.grad = torch.ones(2)
    optimizer.step()
    assert torch.allclose(parameter, torch.full((2,), 0.9))


def test_a_fault_of_ours_is_told_once_and_the_training_goes_on(caplog):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    knobs = OptimizerKnobs(optimizer, StepGuard(optimizer), before_step=lambda: 1 / 0)
    knobs.multiplier = 0.5
    for _ in range(2):
        parameter.grad = torch.ones(2)
        optimizer.step()
    assert torch.allclose(parameter, torch.full((2,), 0.8))
    assert len(caplog.records) == 1


# -- clipping


def test_clipping_bounds_the_global_norm_of_what_the_optimizer_uses():
    one, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=1.0)
    knobs_on(optimizer).max_norm = 1.0
    one.grad, other.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    optimizer.step()
    assert torch.allclose(one, torch.tensor([-0.6, 0.0]))
    assert torch.allclose(other, torch.tensor([0.0, -0.8]))


def test_a_gradient_below_the_bound_is_not_touched():
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    knobs_on(optimizer).max_norm = 10.0
    gradient = torch.tensor([0.1, 0.2, 0.3])
    parameter.grad = gradient.clone()
    optimizer.step()
    assert torch.equal(parameter, -gradient)


@pytest.mark.parametrize(("fused", "unscale"), list(itertools.product([False, True], repeat=2)))
def test_clipping_under_a_scaler_means_unscaled_gradients(fused, unscale):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0, fused=fused)
    knobs_on(optimizer).max_norm = 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((parameter * torch.tensor([30.0, 40.0])).sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert torch.allclose(parameter, torch.tensor([-0.6, -0.8]), atol=1e-5)


# -- which optimizers


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adadelta", "adafactor"])
def test_adam_like_optimizers_ignore_the_gradients_scale(name):
    assert is_scale_invariant(type(OPTIMIZERS[name]([nn.Parameter(torch.ones(2))])))


def test_a_child_of_adam_and_a_lion_ignore_the_gradients_scale_but_sgd_does_not():
    class Mine(torch.optim.AdamW):
        pass

    class Lion(torch.optim.Optimizer):
        pass

    assert is_scale_invariant(Mine)
    assert is_scale_invariant(Lion)
    assert not is_scale_invariant(torch.optim.SGD)
    assert not is_scale_invariant(torch.optim.ASGD)


def test_rprop_takes_no_notice_of_the_learning_rate():
    parameter = nn.Parameter(torch.ones(2))
    assert ignores_learning_rate(torch.optim.Rprop([parameter]))
    assert not ignores_learning_rate(torch.optim.SGD([parameter]))


# -- compiled steps


@pytest.mark.parametrize("optimizer", ["sgd_momentum_foreach", "adam_tensor_lr"])
def test_a_compiled_step_uses_the_multiplied_rate(optimizer):
    plain, compiled = [], []
    for results, wrap in ((plain, lambda f: f), (compiled, lambda f: torch.compile(f, backend="aot_eager"))):
        torch._dynamo.reset()
        model = network()
        made = OPTIMIZERS[optimizer](list(model.parameters()))
        knobs = knobs_on(made)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dynamo's own
            step = wrap(made.step)
            for number in range(4):
                knobs.multiplier = 0.5 if number >= 2 else 1.0
                x, y = batch(number)
                made.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                step()
                assert rates(made) == pytest.approx([0.1 if "sgd" in optimizer else 0.01])
        results.extend(values_of(model))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, compiled, strict=True))
