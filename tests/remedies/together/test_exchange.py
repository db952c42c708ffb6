"""Ranks with shards tell each other at every step what they see, and let go of each other at the same one."""

import threading
from contextlib import suppress

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

from lossdoctor.remedies.knobs import OptimizerKnobs
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.remedies.together.exchange import Exchange, LeftError, SharedSight
from tests.remedies.patients import NAN, network, same


class Late:
    """A device whose numbers arrive one sum late."""

    def __init__(self):
        self.flags = []

    def send(self, flag):
        self.flags.append(bool(flag))

    def arrived(self, *, wait=False):
        known, self.flags = (self.flags, []) if wait else (self.flags[:-1], self.flags[-1:])
        return known

    def forget(self):
        self.flags = []


class WithAnother(Exchange):
    """Another rank, which adds `other` to each sum."""

    def __init__(self, other=(0.0, 0.0, 0.0)):
        super().__init__(None, lambda tensors: [1.0] * len(tensors), readback=Late())
        self.other, self.sums = other, []

    def _reduce(self, numbers):
        self.sums.append(numbers.tolist())
        numbers += torch.tensor(self.other, dtype=torch.float64)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A mesh of this process alone: its DTensors are all of what they stand for."""
    store = tmp_path_factory.mktemp("store") / "file"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield distributed.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def sharded(mesh, make):
    model = fully_shard(network(), mesh=mesh)
    return model, make(model.parameters())


def local(optimizer):
    tensors = [one for group in optimizer.param_groups for one in group["params"]]
    tensors += [one for state in optimizer.state.values() for one in state.values() if isinstance(one, torch.Tensor)]
    return [getattr(one, "_local_tensor", one).detach().clone() for one in tensors]


def backward(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).sum().backward()


MAKERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_bad_gradient_of_another_rank_keeps_the_step_from_this_ones_shards(mesh, name):
    model, optimizer = sharded(mesh, MAKERS[name])
    exchange = WithAnother()
    guard = StepGuard(optimizer, waits=True, shared=SharedSight(exchange))
    OptimizerKnobs(optimizer, guard, before_step=lambda: None)
    backward(model, optimizer)
    optimizer.step()
    before = local(optimizer)
    exchange.other = (1.0, 0.0, 0.0)
    backward(model, optimizer)
    gradients = [one.grad for one in model.parameters()]
    optimizer.step()
    assert same(local(optimizer), before)
    assert all(one.grad is gradient for one, gradient in zip(model.parameters(), gradients, strict=True))
    exchange.other = (0.0, 0.0, 0.0)
    backward(model, optimizer)
    optimizer.step()
    assert not same(local(optimizer), before)
    seen = guard.collect(wait=True)
    assert (seen.skipped, seen.dirty, seen.clean) == (1, 0, 2)
    assert [one[0] for one in exchange.sums] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", MAKERS)
def test_on_a_device_a_fused_step_is_kept_back_and_any_other_is_known_to_be_dirty(mesh, name):
    model, optimizer = sharded(mesh, MAKERS[name])
    exchange = WithAnother()
    guard = StepGuard(
        optimizer, waits=True, readback=Late(), on_device=True, shared=SharedSight(exchange, on_device=True)
    )
    OptimizerKnobs(optimizer, guard, before_step=lambda: None)
    for step, bad in enumerate([0.0, 1.0, 0.0]):
        exchange.other = (bad, 0.0, 0.0)
        before = local(optimizer)
        backward(model, optimizer)
        optimizer.step()
        assert same(local(optimizer), before) == (step == 1 and name == "adamw_fused")
    seen = guard.collect(wait=True)
    assert (seen.skipped, seen.dirty) == ((1, 0) if name == "adamw_fused" else (0, 1))
    assert not hasattr(optimizer, "found_inf") or optimizer.found_inf is None


def test_this_ranks_bad_gradient_is_told_to_the_others(mesh):
    model, optimizer = sharded(mesh, MAKERS["sgd"])
    exchange = WithAnother()
    guard = StepGuard(optimizer, shared=SharedSight(exchange))
    OptimizerKnobs(optimizer, guard, before_step=lambda: None)
    backward(model, optimizer)
    next(iter(model.parameters())).grad._local_tensor[0, 0] = NAN
    before = local(optimizer)
    optimizer.step()
    assert same(local(optimizer), before)
    assert [one[0] for one in exchange.sums] == [1.0]


def test_the_norm_is_that_of_all_shards_and_replicated_ones_count_once():
    one, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([one, other], lr=1.0)
    exchange = WithAnother((0.0, 144.0 + 8.0, 0.0))
    exchange.shares = lambda tensors: [1.0, 0.5**0.5][: len(tensors)]
    sight = SharedSight(exchange)
    one.grad, other.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    sight.look(optimizer, nothing=False, norm=True)
    assert sight.norm.item() == pytest.approx((9 + 144 + 16) ** 0.5)
    optimizer.grad_scale = torch.tensor(2.0)
    sight.look(optimizer, nothing=False, norm=True)
    assert sight.norm.item() == pytest.approx(6.5)


def test_a_step_is_clipped_by_the_norm_of_all_ranks():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    guard = StepGuard(optimizer, shared=SharedSight(WithAnother((0.0, 16.0, 0.0))))
    OptimizerKnobs(optimizer, guard, before_step=lambda: None).max_norm = 1.0
    parameter.grad = torch.tensor([3.0, 0.0])
    optimizer.step()
    assert torch.allclose(parameter, torch.tensor([-0.6, 0.0]))


def test_a_rank_with_a_fault_answers_once_in_each_step_until_all_know(caplog):
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    exchange, told = WithAnother(), []
    guard = StepGuard(optimizer, shared=SharedSight(exchange))
    knobs = OptimizerKnobs(optimizer, guard, before_step=lambda: None, on_fault=lambda: told.append(True))
    knobs.multiplier = 0.5
    exchange.shares = None
    guard.largest = 1.0  # now the norm is asked for, and that fails before the others are told anything
    parameter.grad = torch.tensor([1.0, 0.0])
    optimizer.step()
    assert [one[2] for one in exchange.sums] == [1.0]
    assert exchange.is_over
    assert told
    assert len(caplog.records) == 1
    optimizer.step()
    assert len(exchange.sums) == 1
    assert torch.equal(parameter, torch.tensor([-2.0, 0.0]))


def test_a_rank_that_closed_is_waited_for_no_longer_than_until_all_know():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    exchange = WithAnother()
    knobs = OptimizerKnobs(optimizer, StepGuard(optimizer, shared=SharedSight(exchange)), before_step=lambda: None)
    knobs.multiplier = 0.5
    knobs.close()
    assert not optimizer._optimizer_step_post_hooks
    parameter.grad = torch.tensor([1.0, 0.0])
    for _ in range(3):
        optimizer.step()
    assert exchange.sums == [[0.0, 0.0, 1.0]]
    assert torch.equal(parameter, torch.tensor([-3.0, 0.0]))


class Together(Exchange):
    """Ranks in threads of one process."""

    def __init__(self, numbers, barrier):
        super().__init__(None, lambda tensors: [1.0] * len(tensors), readback=Late())
        self.numbers, self.barrier, self.sums = numbers, barrier, 0

    def _reduce(self, numbers):
        self.sums += 1
        self.numbers.append(numbers.clone())
        if self.barrier.wait(10) == 0:
            total = torch.stack(self.numbers).sum(0)
            self.numbers[:] = [total]
        self.barrier.wait(10)
        numbers.copy_(self.numbers[0])
        if self.barrier.wait(10) == 0:
            self.numbers.clear()
        self.barrier.wait(10)


@pytest.mark.parametrize("leaves_at", [1, 6, 7, 8, 9])
def test_on_a_device_all_ranks_stop_at_the_same_sum(leaves_at):
    numbers, barrier = [], threading.Barrier(2)
    ranks = [Together(numbers, barrier) for _ in range(2)]
    zero = torch.zeros(())

    def stay():
        with suppress(LeftError):
            for _ in range(40):
                ranks[0].add_up_on_device(zero, zero)

    def leave():
        for _ in range(leaves_at - 1):
            ranks[1].add_up_on_device(zero, zero)
        ranks[1].leave()
        while not ranks[1].is_over:
            with suppress(LeftError):
                ranks[1].add_up_on_device(zero, zero)

    threads = [threading.Thread(target=one) for one in (stay, leave)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert all(one.is_over for one in ranks)
    assert ranks[0].sums == ranks[1].sums
    assert leaves_at <= ranks[0].sums <= leaves_at + 8
