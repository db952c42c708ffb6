"""The learning-rate range test."""

import numpy as np
import pytest
import torch
from torch import nn

from lossdoctor import Monitor, find_lr
from lossdoctor.errors import UsageError
from lossdoctor.runs.reader import read_run
from tests.pathologies.tasks import TASKS
from tests.remedies.patients import OPTIMIZERS, batch, network, same, values_of


def regression(optimizer="sgd", **options):
    model = network(**options)
    made = OPTIMIZERS[optimizer](list(model.parameters()))
    number = [0]

    def step():
        number[0] += 1
        x, y = batch(number[0])
        made.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        made.step()
        return loss

    return model, made, step


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn"])
@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1e-3), 5e-4, 2e-2),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 3e-3, 0.3),
    ],
)
def test_the_suggested_rate_is_one_that_trains_well(name, make, low, high):
    task = TASKS[name]()
    torch.manual_seed(0)
    model = task.build()
    rows = list(zip(task.train.inputs, task.train.targets, strict=True))
    loader = torch.utils.data.DataLoader(rows, batch_size=32, shuffle=True)
    found = find_lr(model, make(model.parameters()), loss_fn=lambda m, b: task.loss(m(b[0]), b[1]), loader=loader)
    assert low < found.suggestion < high
    assert found.lowest / 10 <= found.suggestion <= found.lowest / 3
    assert found.tenth == found.lowest / 10
    assert found.stopped == "diverged"
    assert found.before_rise >= found.lowest


@pytest.mark.parametrize("optimizer", ["sgd_tensor_lr", "adamw_fused", "adamw", "rmsprop", "nadam"])
def test_everything_is_put_back_bit_for_bit(optimizer):
    model, made, step = regression(optimizer, norm=True, dropout=0.2)
    for _ in range(3):
        step()
    before, seeds = values_of(model), torch.get_rng_state()
    state = [{k: v.clone() if torch.is_tensor(v) else v for k, v in one.items()} for one in made.state.values()]
    rate = float(made.param_groups[0]["lr"])
    find_lr(model, made, step, steps=40)
    assert same(values_of(model), before)
    assert torch.equal(torch.get_rng_state(), seeds)
    assert float(made.param_groups[0]["lr"]) == rate
    for now, then in zip(made.state.values(), state, strict=True):
        assert all(torch.equal(now[k], v) if torch.is_tensor(v) else now[k] == v for k, v in then.items())


def test_it_is_put_back_after_an_exception_too():
    model, made, step = regression()
    before = values_of(model)
    taken = []

    def fails():
        taken.append(step())
        if len(taken) == 20:
            raise ZeroDivisionError
        return taken[-1]

    with pytest.raises(ZeroDivisionError):
        find_lr(model, made, fails)
    assert same(values_of(model), before)
    assert made.param_groups[0]["lr"] == 0.1


def test_a_monitor_does_not_see_the_sweep(tmp_path):
    model, made, step = regression()
    with Monitor(model, made, run_dir=tmp_path / "run", remediate="auto") as monitor:
        found = find_lr(model, made, step, highest=1e6)
        for _ in range(10):
            monitor.step(step())
    run = read_run(tmp_path / "run")
    assert found.stopped in {"diverged", "not finite"}
    assert run.steps.step.tolist() == list(range(1, 11))
    assert run.interventions == ()


def test_groups_keep_their_proportions():
    model = network()
    first, *rest = model.parameters()
    made = torch.optim.SGD([{"params": [first], "lr": 0.01}, {"params": rest, "lr": 0.1}])
    seen = []
    made.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in made.param_groups]))
    x, y = batch(1)

    find_lr(
        model,
        made,
        loss_fn=lambda m, b: nn.functional.mse_loss(m(b[0]), b[1]),
        loader=[(x, y)],
        lowest=1e-4,
        highest=1e-2,
        steps=20,
    )
    assert np.allclose([one / other for one, other in seen], 0.1)
    assert seen[0][1] == pytest.approx(1e-4)
    assert seen[-1][1] == pytest.approx(1e-2)


def test_a_loss_that_does_not_fall_gives_no_suggestion_and_says_so():
    model, made, _ = regression()
    found = find_lr(model, made, lambda: 2.3)
    assert found.suggestion is None
    assert "brought the loss down" in str(found)


def test_a_loss_times_a_plus_b_gives_the_same_rates():
    falls = np.concatenate([np.full(60, 2.0), np.linspace(2.0, 1.0, 30), np.linspace(1.0, 9.0, 10)])
    source = np.random.default_rng(0)
    losses = falls + source.normal(0, 0.02, len(falls))
    results = []
    for a, b in ((1.0, 0.0), (7.0, -20.0)):
        model, made, _ = regression()
        values = iter(a * losses + b)
        results.append(find_lr(model, made, lambda values=values: float(next(values))))
    assert results[0].suggestion is not None
    assert results[0].steepest == results[1].steepest
    assert results[0].suggestion == results[1].suggestion
    assert results[0].before_rise == results[1].before_rise


def test_one_bad_batch_does_not_end_the_sweep():
    task = TASKS["digits_mlp"]()
    rows = list(zip(task.train.inputs, task.train.targets, strict=True))
    found = []
    for factor in (1.0, 100.0):
        torch.manual_seed(0)
        model = task.build()
        count = [0]

        def loss(model, given, count=count, factor=factor):
            count[0] += 1
            return task.loss(model(given[0]), given[1]) * (factor if count[0] == 40 else 1.0)

        loader = torch.utils.data.DataLoader(rows, batch_size=32, shuffle=True)
        found.append(find_lr(model, torch.optim.AdamW(model.parameters()), loss_fn=loss, loader=loader))
    plain, spiked = found
    assert len(spiked.losses) == pytest.approx(len(plain.losses), abs=4)
    assert 0.5 < spiked.suggestion / plain.suggestion < 2


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_never_taken_for_a_fall(seed):
    model, made, _ = regression()
    source = np.random.default_rng(seed)
    assert find_lr(model, made, lambda: float(source.normal(2.3, 0.1))).suggestion is None


def test_the_plot_is_written(tmp_path):
    model, made, step = regression()
    find_lr(model, made, step).plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either train_step"),
        ({"train_step": lambda: 0.0, "lowest": 1.0, "highest": 0.1}, "0 < lowest < highest"),
        ({"train_step": lambda: 0.0, "steps": 3}, "fewer than 8"),
        ({"loss_fn": lambda m, b: 0.0, "loader": []}, "no batches"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(options, message):
    model, made, _ = regression()
    with pytest.raises(UsageError, match=message):
        find_lr(model, made, **options)
