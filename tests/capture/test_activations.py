"""Measures of activations beside slow references."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lossdoctor.capture.activations import activation_std, batch_norm_shift, dead_share, kind_of, saturated_share


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_spread_is_that_of_all_entries(dtype):
    output = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert activation_std(output).item() == pytest.approx(output.double().numpy().std(), rel=1e-5)
    assert activation_std(output).dtype == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_spread_of_a_large_output_is_about_that_of_all_of_it(layout):
    units = torch.arange(1.0, 65.0)[:, None, None]
    output = units * torch.randn(64, 64, 16, 16, generator=torch.Generator().manual_seed(1))
    assert activation_std(output.to(memory_format=layout)).item() == pytest.approx(output.numpy().std(), rel=0.02)


@pytest.mark.parametrize(("shape", "dim"), [((32, 9), -1), ((4, 6, 5, 5), 1), ((4, 6, 9), 2), ((4, 6, 9), 1)])
def test_a_dead_unit_is_positive_nowhere(shape, dim):
    output = torch.relu(torch.randn(shape, generator=torch.Generator().manual_seed(2)))
    output.movedim(dim, 0)[[1, 3]] = 0.0
    units = np.moveaxis(output.numpy(), dim, 0).reshape(shape[dim], -1)
    expected = sum(all(value <= 0 for value in unit) for unit in units) / len(units)
    assert expected >= 2 / len(units)
    assert dead_share(output, dim).item() == pytest.approx(expected)


def test_a_small_batch_says_nothing_about_dead_units():
    assert dead_share(torch.zeros(15, 8), -1) is None
    assert dead_share(torch.zeros(16, 8), -1).item() == 1.0


def test_a_unit_that_is_nan_is_not_dead():
    assert dead_share(torch.full((16, 2), math.nan), -1).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saturated_outputs_are_counted(dtype):
    values = torch.linspace(-6, 6, 401).to(dtype)
    for kind, output in (("tanh", torch.tanh(values)), ("sigmoid", torch.sigmoid(values))):
        plain = output.double().tolist()
        pinned = [abs(v) > 0.99 if kind == "tanh" else not 0.01 <= v <= 0.99 for v in plain]
        assert saturated_share(output, kind).item() == pytest.approx(sum(pinned) / len(pinned), abs=1e-6)


def test_the_shift_of_a_batch_is_the_median_over_channels():
    generator = torch.Generator().manual_seed(3)
    mean, running = (torch.randn(9, generator=generator) for _ in range(2))
    variance, running_variance = (torch.rand(9, generator=generator) + 0.1 for _ in range(2))
    shift, ratio = batch_norm_shift((mean, variance), (running, running_variance), eps=1e-3)
    columns = zip(mean.tolist(), running.tolist(), running_variance.tolist(), strict=True)
    expected = [abs(m - r) / math.sqrt(v + 1e-3) for m, r, v in columns]
    assert shift.item() == pytest.approx(np.median(expected), rel=1e-5)
    assert ratio.item() == pytest.approx(np.median(((variance + 1e-3) / (running_variance + 1e-3)).numpy()), rel=1e-5)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.ReLU(), "dead"),
        (nn.ReLU6(), "dead"),
        (nn.LeakyReLU(), None),
        (nn.GELU(), None),
        (nn.Tanh(), "tanh"),
        (nn.Hardtanh(), "tanh"),
        (nn.Hardtanh(-2, 2), None),
        (nn.Sigmoid(), "sigmoid"),
        (nn.BatchNorm2d(3), "batch_norm"),
        (nn.BatchNorm2d(3, track_running_stats=False), None),
        (nn.LayerNorm(3), None),
    ],
    ids=repr,
)
def test_a_module_is_known_by_what_can_go_wrong_with_it(module, kind):
    assert kind_of(module) == kind
