"""Non-finite steps never reach weights, optimizer state or running statistics."""

import pytest
import torch

from lossdoctor.remedies.finite import Readback
from lossdoctor.remedies.skipping import StepGuard, Steps
from tests.remedies.patients import NAN, OPTIMIZERS, network, same, values_of


class Late:
    """A device whose flags arrive two steps late."""

    def __init__(self):
        self.flags = []

    def send(self, flag):
        self.flags.append(bool(flag))

    def arrived(self, *, wait=False):
        known, self.flags = (self.flags, []) if wait else (self.flags[:-2], self.flags[-2:])
        return known

    def forget(self):
        self.flags = []


def guarded(optimizer, **options):
    """The guard in an optimizer's hooks, as knobs put it there."""
    guard = StepGuard(optimizer, **options)

    def before(_, args, kwargs):
        guard.inspect(closure=len(args) > 1 or "closure" in kwargs)
        guard.block()

    def after(*_):
        guard.finished()
        guard.release()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return guard


def state_of(optimizer):
    return [
        value.clone()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]


def gradients(model, *, bad=False, value=NAN):
    for number, parameter in enumerate(model.parameters()):
        source = torch.Generator().manual_seed(number)
        parameter.grad = torch.randn(parameter.shape, generator=source)
    if bad:
        next(iter(model.parameters())).grad.view(-1)[3] = value


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_step_leaves_weights_and_state_as_they_were(name, value):
    model = network()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    guard = guarded(optimizer)
    gradients(model)
    optimizer.step()
    weights, state = values_of(model), state_of(optimizer)
    gradients(model, bad=True, value=value)
    left = [parameter.grad for parameter in model.parameters()]
    optimizer.step()
    assert same(values_of(model), weights)
    assert same(state_of(optimizer), state)
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), left, strict=True))
    assert guard.collect() == Steps(skipped=1, clean=1)
    assert guard.collect() == Steps()


@pytest.mark.parametrize("name", ["sgd_momentum_fused", "adamw_fused", "adamw"])
def test_a_bad_first_step_is_as_if_it_had_not_been(name):
    results = []
    for first_is_bad in (True, False):
        model = network()
        optimizer = OPTIMIZERS[name](list(model.parameters()))
        guarded(optimizer)
        if first_is_bad:
            gradients(model, bad=True)
            optimizer.step()
        for _ in range(3):
            gradients(model)
            optimizer.step()
        results.append(values_of(model))
    assert same(*results)


def test_what_the_scaler_skips_is_not_ours_to_count():
    for fused in (False, True):
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        guard = guarded(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        weights = values_of(model)
        scaler.scale(model(torch.ones(3, 4)).sum() * float("inf")).backward()
        scaler.step(optimizer)
        scaler.update()
        assert same(values_of(model), weights)
        assert guard.collect().skipped == 0


def test_an_exception_inside_the_step_gives_the_gradients_back():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(optimizer)
    optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    gradients(model, bad=True)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert all(parameter.grad is None for parameter in model.parameters())
    guard.release()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_gradients_of_a_closure_are_looked_at_after_the_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(optimizer)
    gradients(model)
    optimizer.step(lambda: gradients(model))
    optimizer.step(lambda: gradients(model, bad=True))
    assert guard.collect() == Steps(dirty=1, clean=1)


# -- as on CUDA, with a CPU in its place: flags that nobody waits for


def test_the_fake_device_is_a_readback():
    readback: Readback = Late()
    assert readback.arrived() == []


@pytest.mark.parametrize("name", ["sgd_momentum_fused", "adamw_fused"])
@pytest.mark.parametrize("bad_step", [0, 3])
def test_a_fused_kernel_is_told_on_the_device(name, bad_step):
    results = []
    for skips in (True, False):
        model = network()
        optimizer = OPTIMIZERS[name](list(model.parameters()))
        guard = guarded(optimizer, readback=Late(), on_device=True)
        for step in range(6):
            if step == bad_step and not skips:
                continue
            gradients(model, bad=step == bad_step)
            optimizer.step()
        assert not hasattr(optimizer, "found_inf")
        results.append(values_of(model))
        assert guard.collect().skipped == (1 if skips else 0)
        assert guard.collect() == Steps()
    assert same(*results)


def test_what_the_scaler_found_is_kept_and_its_attribute_put_back():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    late = Late()
    guard = guarded(optimizer, readback=late, on_device=True)
    weights = values_of(model)
    for theirs, bad in ((1.0, False), (0.0, True), (1.0, True)):
        gradients(model, bad=bad)
        optimizer.grad_scale, optimizer.found_inf = torch.ones(()), torch.tensor(theirs)
        mine = optimizer.found_inf
        optimizer.step()
        assert optimizer.found_inf is mine
        assert mine == theirs
        assert same(values_of(model), weights)
    late.flags += [False, False]
    assert guard.collect() == Steps(skipped=1, clean=2)


def test_without_a_fused_kernel_a_bad_step_is_reported_as_dirty_when_its_flag_arrives():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    guard = guarded(optimizer, readback=Late(), on_device=True)
    seen = []
    for step in range(6):
        gradients(model, bad=step == 1)
        optimizer.step()
        seen.append(guard.collect())
    assert [steps.dirty for steps in seen] == [0, 0, 0, 1, 0, 0]
    gradients(model, bad=True)
    optimizer.step()
    guard.forget()
    assert guard.collect() == Steps()


def test_nothing_is_read_where_there_is_nothing_to_read():
    model = network().to("meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = guarded(optimizer)
    model(torch.ones(2, 4, device="meta")).sum().backward()
    optimizer.step()
    assert guard.collect().skipped == 0
