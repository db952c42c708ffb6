"""What a GradScaler's state tells."""

import pytest
import torch

from lossdoctor.capture.scaler import ScalerWatch, clipped_while_scaled


@pytest.mark.parametrize("max_norm", [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0])
@pytest.mark.parametrize("scale", [2.0**k for k in (5, 10, 16, 20)])
def test_clipping_before_unscaling_is_told_from_clipping_after_it(max_norm, scale):
    norm = 37.77
    after = norm * max_norm / (norm + 1e-6)
    before = norm * scale * max_norm / (norm * scale + 1e-6) / scale
    assert clipped_while_scaled(norm, after, scale) == 0.0
    assert clipped_while_scaled(norm, before, scale) == 1.0


def test_what_cannot_be_told_stays_open():
    assert clipped_while_scaled(8.0, 0.123456, 65536.0) is None
    assert clipped_while_scaled(float("nan"), float("nan"), 65536.0) is None


def attempt(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, value: float) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    scaler.scale((parameter * value).sum()).backward()
    scaler.step(optimizer)


@pytest.mark.parametrize("looks_before_update", [False, True])
def test_a_skipped_step_is_found_once_and_no_other_is(looks_before_update):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    watch = ScalerWatch(scaler)
    fired = []
    optimizer.register_step_pre_hook(lambda *_: (fired.append(1), watch.account())[0])
    found = []
    for value in (1.0, float("inf"), 1.0, float("nan"), float("nan"), 1.0):
        attempt(scaler, optimizer, value)
        if looks_before_update:
            found.append(watch.attempted() and not fired)
            watch.settle()
            scaler.update()
        else:
            scaler.update()
            found.append(watch.attempted() and not fired)
            watch.settle()
        assert not watch.attempted()
        fired.clear()
        optimizer.zero_grad()
    assert found == [False, True, False, True, True, False]


def test_a_disabled_scaler_counts_as_none():
    assert not ScalerWatch(torch.amp.GradScaler("cpu", enabled=False)).is_enabled
    assert not ScalerWatch(None).is_enabled
    assert ScalerWatch(torch.amp.GradScaler("cpu")).is_enabled
