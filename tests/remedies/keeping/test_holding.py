"""What a process holds of a sharded model is copied and put back, gathered or not."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lossdoctor.remedies.keeping.copies import copied, fresh, put_back
from lossdoctor.remedies.keeping.holding import Holding, local
from lossdoctor.remedies.keeping.snapshots import Snapshots
from tests.remedies.patients import batch, network


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A mesh of this process alone."""
    store = tmp_path_factory.mktemp("store") / "file"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield distributed.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.fixture
def training(mesh):
    model = fully_shard(network(norm=True), mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(model, optimizer, 1)
    return model, optimizer


def step(model, optimizer, number):
    x, y = batch(number)
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()


def validate(model):
    """The outermost module keeps its parameters gathered after it."""
    model.eval()
    with torch.no_grad():
        loss = nn.functional.mse_loss(model(batch(0)[0]), batch(0)[1])
    model.train()
    return loss


def test_gathered_parameters_are_held_as_the_shards_behind_them(training):
    model, optimizer = training
    holding = Holding(model, [optimizer])
    before = [id(one) for one in holding.tensors()]
    validate(model)
    assert not any(isinstance(one, DTensor) for one in model.parameters()), "they are gathered now"
    assert [id(one) for one in holding.tensors()] == before
    assert all(type(one) is torch.Tensor for one in holding.weights())


def test_after_a_rewind_gathered_parameters_are_gathered_anew(training):
    model, optimizer = training
    snapshots = Snapshots(model, [optimizer])
    loss = validate(model)
    snapshot = snapshots.copy(1)
    for number in range(2, 6):
        step(model, optimizer, number)
    assert validate(model) != loss
    snapshots.restore(snapshot)
    assert validate(model) == loss


def test_a_moment_that_is_gone_comes_back_as_a_shard_like_the_others(training):
    model, optimizer = training
    snapshots = Snapshots(model, [optimizer])
    snapshot = snapshots.copy(1)
    one = next(iter(model.parameters()))
    was = local(optimizer.state[one]["exp_avg"]).clone()
    optimizer.state.clear()
    snapshots.restore(snapshot)
    back = optimizer.state[one]["exp_avg"]
    assert isinstance(back, DTensor)
    assert (back.shape, back.placements, back.device_mesh) == (one.shape, one.placements, one.device_mesh)
    assert torch.equal(local(back), was)
    step(model, optimizer, 2)


def test_a_copy_shares_nothing_and_goes_back_in_place(training):
    model, _ = training
    one = next(iter(model.parameters()))
    saved = copied(one)
    was = local(one).detach().clone()
    with torch.no_grad():
        local(one).add_(1)
    assert torch.equal(local(fresh(saved)), was)
    with torch.no_grad():
        assert put_back(one, saved) is one
    assert torch.equal(local(one), was)
