"""Snapshots: what they hold, which are kept, and what a rewind puts back."""

import logging

import pytest
import torch
from torch import nn

from lossdoctor.remedies.keeping import places
from lossdoctor.remedies.keeping import snapshots as snapshots_module
from lossdoctor.remedies.keeping.snapshots import Snapshots, is_due
from tests.remedies.patients import NAN, OPTIMIZERS, batch, network, same, values_of


def step(model, optimizer, number=1, scaler=None):
    x, y = batch(number)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


def state_of(optimizer):
    return {
        number: {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
        for number, state in enumerate(optimizer.state.values())
    }


def equal(one, other):
    return one.keys() == other.keys() and all(
        state.keys() == other[number].keys()
        and all(
            torch.equal(value, other[number][key]) if isinstance(value, torch.Tensor) else value == other[number][key]
            for key, value in state.items()
        )
        for number, state in one.items()
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rewind_restores_weights_buffers_and_optimizer_state_exactly_and_in_place(name):
    model = network(norm=True)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    snapshots = Snapshots(model, [optimizer])
    for number in range(3):
        step(model, optimizer, number)
    assert snapshots.take(3)
    weights, state = values_of(model), state_of(optimizer)
    tensors = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, torch.Tensor)]
    for number in range(3, 8):
        step(model, optimizer, number)
    snapshots.restore(snapshots.before(10))
    assert same(values_of(model), weights)
    assert equal(state_of(optimizer), state)
    now = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, torch.Tensor)]
    assert all(one is other for one, other in zip(tensors, now, strict=True))
    assert all(not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["sgd_momentum_fused", "adamw_fused", "adam"])
def test_training_goes_on_from_a_rewind_as_it_did_the_first_time(name):
    model = network()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    snapshots = Snapshots(model, [optimizer])
    snapshots.take(0)
    results = []
    for _ in range(2):
        for number in range(5):
            step(model, optimizer, number)
        results.append(values_of(model))
        snapshots.restore(snapshots.before(1))
        assert not optimizer.state
    assert same(*results)


def test_lbfgs_with_its_lists_is_restored():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    snapshots = Snapshots(model, [optimizer])
    x, y = batch(0)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    results = []
    optimizer.step(closure)
    snapshots.take(1)
    for _ in range(2):
        for _ in range(3):
            optimizer.step(closure)
        results.append(values_of(model))
        snapshots.restore(snapshots.before(9))
    assert same(*results)


def test_a_rewind_leaves_the_learning_rate_and_the_scheduler_alone():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    snapshots = Snapshots(model, [optimizer])
    snapshots.take(0)
    for number in range(3):
        step(model, optimizer, number)
        scheduler.step()
    before = optimizer.param_groups[0]["lr"], scheduler.state_dict()
    snapshots.restore(snapshots.before(9))
    assert (optimizer.param_groups[0]["lr"], scheduler.state_dict()) == before


def test_the_scaler_goes_back_too():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    snapshots = Snapshots(model, [optimizer], scaler=scaler)
    snapshots.take(0)  # before the scaler has made its tensors
    for number in range(3):
        step(model, optimizer, number, scaler)
    snapshots.take(3)
    assert scaler.get_scale() == 16
    for number in range(3):
        step(model, optimizer, number, scaler)
    assert scaler.get_scale() == 64
    snapshots.restore(snapshots.before(9))
    assert scaler.get_scale() == 16
    assert scaler._get_growth_tracker() == 1
    snapshots.restore(snapshots.before(2))
    assert scaler.get_scale() == 8
    assert scaler._get_growth_tracker() == 0


def test_objects_beside_the_model_go_back_and_their_snapshot_stays_untouched():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = torch.optim.swa_utils.AveragedModel(model)
    snapshots = Snapshots(model, [optimizer], also=[average])
    step(model, optimizer)
    average.update_parameters(model)
    snapshots.take(1)
    before = values_of(average)
    for number in range(2):
        for later in range(3):
            step(model, optimizer, later + number)
            average.update_parameters(model)
        assert not same(values_of(average), before)
        snapshots.restore(snapshots.before(9))
        assert same(values_of(average), before)


def test_a_scheduler_is_never_rewound_even_if_asked(caplog):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    snapshots = Snapshots(model, [optimizer], also=[scheduler])
    assert "scheduler is never rewound" in caplog.text
    snapshots.take(0)
    step(model, optimizer)
    scheduler.step()
    snapshots.restore(snapshots.before(9))
    assert scheduler.last_epoch == 1


@pytest.mark.parametrize("where", ["weight", "running statistic", "momentum"])
def test_a_snapshot_with_a_nan_is_never_kept(where):
    model = network(norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    snapshots = Snapshots(model, [optimizer])
    step(model, optimizer)
    assert snapshots.take(1)
    if where == "weight":
        model[0].weight.data[0, 0] = NAN
    elif where == "running statistic":
        model[1].running_var[0] = float("inf")
    else:
        optimizer.state[model[0].weight]["momentum_buffer"][0, 0] = NAN
    assert not snapshots.take(2)
    assert snapshots.steps == [1]
    if where != "momentum":  # the best weights are weights
        assert not snapshots.take_best(2, 0.1)
        assert snapshots.best is None


def test_a_mask_of_minus_infinity_does_not_spoil_a_snapshot():
    model = network()
    model.register_buffer("mask", torch.full((3, 3), float("-inf")))
    snapshots = Snapshots(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
    assert snapshots.take(0)


class Later:
    """A device whose flag arrives when the test says so."""

    def __init__(self):
        self.flags, self.open = [], False

    def send(self, flag):
        self.flags.append(bool(flag))

    def arrived(self):
        if not self.open:
            return []
        flags, self.flags = self.flags, []
        return flags

    def forget(self):
        self.flags = []


def test_a_snapshot_is_no_target_before_its_flag_has_arrived(monkeypatch):
    made = []

    def make():
        made.append(Later())
        return made[-1]

    model = network().to("meta")  # anything that is not host memory
    snapshots = Snapshots(model, [], readback=make)
    real = network()
    monkeypatch.setattr(snapshots_module, "floating", lambda _: [_Elsewhere(real[0].weight)])
    monkeypatch.setattr(snapshots_module, "non_finite_flag", lambda tensors: tensors[0].flag())
    assert snapshots.take(1)
    real[0].weight.data[0, 0] = NAN
    assert snapshots.take(2)
    assert snapshots.before(9) is None
    for readback in made:
        readback.open = True
    assert snapshots.before(9).step == 1
    assert snapshots.steps == [1]


class _Elsewhere:
    device = torch.device("cuda")

    def __init__(self, tensor):
        self._finite = bool(tensor.isfinite().all())

    def flag(self):
        return torch.tensor(0.0 if self._finite else 1.0)


def test_a_rewind_never_lands_on_a_snapshot_younger_than_the_fault():
    model = network()
    snapshots = Snapshots(model, [], generations=10)
    for number in (0, 5, 9, 10, 12):
        snapshots.take(number)
    assert snapshots.before(99).step == 12
    assert snapshots.before(12).step == 10
    # The weights after step 10 were first seen at work by the record of step 11.
    assert snapshots.before(11).step == 9
    assert snapshots.before(6).step == 0
    assert snapshots.before(1).step == 0
    assert snapshots.before(0) is None
    assert snapshots.before(11, other_than=frozenset({9.0, 5.0})).step == 0
    snapshots.drop_after(9)
    assert snapshots.steps == [0, 5, 9]


def test_the_first_and_the_newest_are_kept_and_ages_between_are_spread():
    model = network()
    snapshots = Snapshots(model, [], generations=5)
    for number in range(0, 1001, 10):
        snapshots.take(number)
        kept = snapshots.steps
        assert kept[0] == 0
        assert kept[-1] == number
    ages = [1000 - number for number in snapshots.steps]
    assert len(ages) == 5
    assert ages[1] >= 100
    assert ages[-2] <= 100


def test_snapshots_come_every_twentieth_of_the_steps_so_far():
    def taken(steps, total=None):
        found = [0]
        for number in range(1, steps + 1):
            if is_due(number, found[-1], total_steps=total):
                found.append(number)
        return found

    assert taken(100) == [0, 16, 32, 48, 64, 80, 96]
    assert taken(40, total=80)[:4] == [0, 4, 8, 12]
    assert len(taken(10_000)) < 150


def test_tied_weights_are_copied_once_and_expanded_constants_not_at_all():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model.register_buffer("expanded", torch.ones(1).expand(1000))
    snapshots = Snapshots(model, [])
    snapshots.take(0)
    assert snapshots.memory == 4 * (16 + 4 + 4)
    snapshots.restore(snapshots.before(1))


def test_without_memory_fewer_snapshots_are_kept_or_none(monkeypatch, caplog):
    model = network()
    size = 12 * sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(places, "available_memory", lambda: 2 * 4 * size)
    snapshots = Snapshots(model, [])
    for number in range(10):
        assert snapshots.take(number)
    assert len(snapshots.steps) == 3
    monkeypatch.setattr(places, "available_memory", lambda: size)
    with caplog.at_level(logging.WARNING):
        snapshots = Snapshots(model, [])
        assert not snapshots.take(0)
        assert not snapshots.take(1)
    assert caplog.text.count("there will be no rewind") == 1


def test_lazy_modules_are_waited_for():
    model = nn.Sequential(nn.LazyLinear(3))
    snapshots = Snapshots(model, [])
    assert not snapshots.is_ready()
    model(torch.ones(2, 4))
    assert snapshots.is_ready()


def test_the_best_weights_are_kept_apart():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snapshots = Snapshots(model, [optimizer])
    assert snapshots.take_best(3, 0.5)
    best = values_of(model)
    step(model, optimizer)
    assert snapshots.take(4)
    snapshots.drop_after(0)
    assert (snapshots.best.step, snapshots.best.value) == (3, 0.5)
    snapshots.restore(snapshots.best)
    assert same(values_of(model), best)


def test_what_fails_outside_of_us_changes_nothing():
    class Stubborn:
        def state_dict(self):
            return {}

        def load_state_dict(self, _):
            raise ValueError("no")

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snapshots = Snapshots(model, [optimizer], also=[Stubborn()])
    snapshots.take(0)
    step(model, optimizer)
    weights = values_of(model)
    with pytest.raises(ValueError, match="no"):
        snapshots.restore(snapshots.before(9))
    assert same(values_of(model), weights)
