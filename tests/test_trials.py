"""Candidate fixes side by side."""

import math

import pytest
import torch
from torch import nn

import lossdoctor
from lossdoctor import Monitor, trial
from lossdoctor.errors import UsageError
from lossdoctor.runs.reader import read_run
from tests.remedies.patients import batch, network, same, values_of


@pytest.fixture
def sick(tmp_path):
    """A regression at a learning rate that is far too low, 20 steps into its training."""
    model = network(norm=True, dropout=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.99)
    with Monitor(model, optimizer, run_dir=tmp_path / "run", scheduler=scheduler) as monitor:

        def step(number):
            x, y = batch(number)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            monitor.step(loss)
            return loss

        for number in range(20):
            step(number)
        yield monitor, step


RAISE = {"lr x 4": [("scale_lr", {"factor": 4.0})], "lr x 0.1": [("scale_lr", {"factor": 0.1})]}


def test_the_better_candidate_is_told_from_the_worse_one(sick):
    monitor, step = sick
    found = trial(monitor, step, RAISE, steps=64)
    assert found.best.name == "lr x 4"
    verdicts = {one.name: one.verdict for one in found.outcomes}
    assert verdicts["lr x 4"] == "better"
    assert verdicts["lr x 0.1"] == "worse"
    assert found.outcomes[0].name == "as it is"
    best = found.best
    assert best.low <= best.difference <= best.high < 0
    assert "lr x 4" in str(found)
    assert "better" in str(found)


def test_a_trial_leaves_the_training_bit_for_bit_as_it_was(sick):
    monitor, step = sick
    model, optimizer = monitor.model, monitor.optimizers[0]
    before = values_of(model)
    momenta = [state["momentum_buffer"].clone() for state in optimizer.state.values()]
    gradients = [parameter.grad for parameter in model.parameters()]
    copies = [gradient.clone() for gradient in gradients]
    rate, plan, seeds = optimizer.param_groups[0]["lr"], monitor.scheduler.state_dict(), torch.get_rng_state()
    hooks = len(optimizer._optimizer_step_pre_hooks)
    trial(monitor, step, RAISE, steps=16)
    assert same(values_of(model), before)
    assert same([state["momentum_buffer"] for state in optimizer.state.values()], momenta)
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), gradients, strict=True))
    assert same(gradients, copies)
    assert optimizer.param_groups[0]["lr"] == rate
    assert monitor.scheduler.state_dict() == plan
    assert torch.equal(torch.get_rng_state(), seeds)
    assert len(optimizer._optimizer_step_pre_hooks) == hooks


def test_objects_beside_the_model_are_put_back_too(tmp_path):
    model = network()
    average, optimizer = torch.optim.swa_utils.AveragedModel(model), torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)

    def step(number):
        x, y = batch(number)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
        return loss

    with Monitor(model, optimizer, run_dir=tmp_path / "run", also=[average, scheduler]) as monitor:
        monitor.step(step(0))
        before = values_of(average)
        trial(monitor, step, RAISE, steps=16)
    assert same(values_of(average), before)
    assert scheduler.last_epoch == 1
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_the_monitor_does_not_see_what_is_tried(sick):
    monitor, step = sick
    trial(monitor, step, RAISE, steps=16)
    for number in range(20, 25):
        step(number)
    monitor.close()
    run = read_run(monitor.run_dir)
    assert run.steps.step.tolist() == list(range(1, 26))


def test_the_same_candidate_twice_gives_the_same_losses(sick):
    monitor, step = sick
    one = trial(monitor, step, {"a": RAISE["lr x 4"], "b": RAISE["lr x 4"]}, steps=16)
    _, a, b = one.outcomes
    assert a.losses.tolist() == b.losses.tolist()


def test_batches_are_used_again_and_the_evaluation_is_kept(sick):
    monitor, step = sick
    seen = []

    def watched(given):
        seen.append(given)
        return step(given)

    found = trial(monitor, watched, RAISE, steps=16, batches=[3, 4, 5], evaluate=lambda: 0.25)
    assert seen[:16] == [3, 4, 5] * 5 + [3]
    assert {one.evaluation for one in found.outcomes} == {0.25}


def test_a_candidate_that_breaks_is_said_to_be_not_finite(sick):
    monitor, step = sick
    found = trial(monitor, step, {"boom": [("scale_lr", {"factor": 4.0})] * 1}, steps=16)
    assert math.isfinite(found.outcomes[1].difference)
    count = [0]

    def breaks(number):
        count[0] += 1
        return step(number) if count[0] < 30 else torch.tensor(float("nan"))

    found = trial(monitor, breaks, RAISE, steps=16)
    assert {one.verdict for one in found.outcomes[1:]} == {"not finite"}
    assert found.best is None


def test_a_refused_action_is_named_with_its_reason(sick):
    monitor, step = sick
    found = trial(monitor, step, {"scale": [("lower_loss_scale", {"factor": 0.5})]}, steps=16)
    assert found.outcomes[1].verdict == "refused: there is no GradScaler"


@pytest.mark.parametrize(
    ("candidates", "steps", "message"),
    [
        ({}, 16, "no candidates"),
        ({"x": [("scale_rl", {"factor": 0.5})]}, 16, "did you mean 'scale_lr'"),
        ({"x": [("early_stop", {"to_step": 1.0})]}, 16, "cannot be tried"),
        (RAISE, 3, "fewer than 16"),
    ],
)
def test_what_cannot_be_tried_is_refused_with_the_remedy(sick, candidates, steps, message):
    monitor, step = sick
    with pytest.raises(UsageError, match=message):
        trial(monitor, step, candidates, steps=steps)


def test_without_candidates_the_prescriptions_are_tried(sick):
    monitor, step = sick
    with pytest.raises(UsageError, match="prescribes nothing"):
        trial(monitor, step, steps=16)


def test_the_function_stays_a_function_after_its_first_use():
    assert callable(lossdoctor.trial)
    assert callable(lossdoctor.trial)
