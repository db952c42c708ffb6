"""What schedulers say of themselves, and what is recorded of it."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lossdoctor import Monitor
from lossdoctor.capture.scheduler import length_of, note_position, position_of, returns
from lossdoctor.runs.info import facts
from lossdoctor.runs.reader import read_run


def optimizer():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


def warmup_and_cosine(one):
    parts = [lr_scheduler.LinearLR(one, total_iters=5), lr_scheduler.CosineAnnealingLR(one, T_max=20)]
    return lr_scheduler.SequentialLR(one, parts, milestones=[5])


@pytest.mark.parametrize(
    ("make", "length"),
    [
        (lambda one: lr_scheduler.CosineAnnealingLR(one, T_max=30), 30),
        (lambda one: lr_scheduler.OneCycleLR(one, max_lr=0.1, total_steps=40), 40),
        (lambda one: lr_scheduler.LinearLR(one, total_iters=7), 7),
        (lambda one: lr_scheduler.PolynomialLR(one, total_iters=9), 9),
        (warmup_and_cosine, 25),
        (lambda one: lr_scheduler.StepLR(one, step_size=10), None),
        (lambda one: lr_scheduler.LambdaLR(one, lambda _: 1.0), None),
        (lambda one: lr_scheduler.CosineAnnealingWarmRestarts(one, T_0=10), None),
        (lambda _: None, None),
    ],
)
def test_a_schedule_with_an_end_says_where_it_is(make, length):
    assert length_of(make(optimizer())) == length


def test_only_a_plain_cosine_comes_back():
    assert returns(lr_scheduler.CosineAnnealingLR(optimizer(), T_max=30))
    assert returns(warmup_and_cosine(optimizer()))
    assert not returns(lr_scheduler.CosineAnnealingWarmRestarts(optimizer(), T_0=10))
    assert not returns(lr_scheduler.OneCycleLR(optimizer(), max_lr=0.1, total_steps=40))
    assert not returns(None)


class Wrapped:
    def __init__(self, scheduler):
        self.scheduler = scheduler


def test_the_position_is_found_in_chains_and_behind_wrappers():
    one = optimizer()
    chain = lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(one, total_iters=4), lr_scheduler.ExponentialLR(one, gamma=0.9)], optimizer=one
    )
    for scheduler in (chain, Wrapped(Wrapped(lr_scheduler.StepLR(optimizer(), step_size=3)))):
        assert position_of(scheduler) == 0
    one.step()
    chain.step()
    assert position_of(chain) == 1
    assert position_of(None) is None
    assert position_of(object()) is None
    endless = Wrapped(None)
    endless.scheduler = endless
    assert position_of(endless) is None


def test_nothing_is_noted_of_what_is_not_there():
    values = {}
    note_position(values, None, 0)
    assert values == {}


@pytest.mark.parametrize("stepped", ["each batch", "never"])
def test_position_epochs_and_length_are_recorded(tmp_path, stepped):
    model = nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.CosineAnnealingLR(sgd, T_max=12)
    batches = [torch.ones(4, 3)] * 4
    with Monitor(model, sgd, run_dir=tmp_path / "run", scheduler=scheduler, remediate="off") as monitor:
        for _ in range(3):
            for x in monitor.batches(batches):
                loss = model(x).square().mean()
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                if stepped == "each batch":
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        scheduler.step()
                monitor.step(loss)
    run = read_run(tmp_path / "run")
    known = facts(run.info)
    assert (known["schedule_length"], known["schedule_returns"], known["schedule_reacts"]) == (12, 1, 0)
    columns = run.steps.columns
    sampled = columns["schedule_position"].mask()
    assert sampled.any()
    expected = run.steps.step[sampled] - 1 if stepped == "each batch" else 0 * run.steps.step[sampled]
    assert columns["schedule_position"].values[sampled].tolist() == expected.tolist()
    assert columns["epoch"].values[sampled].tolist() == (1 + (run.steps.step[sampled] - 1) // 4).tolist()
