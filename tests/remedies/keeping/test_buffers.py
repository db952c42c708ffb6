"""Running statistics are given back as they were before a NaN batch, and nothing else is touched."""

import torch
from torch import nn

from lossdoctor.remedies.keeping.buffers import GoodBuffers
from tests.remedies.patients import NAN, network, same, values_of


def test_nothing_is_kept_where_there_is_nothing_to_read():
    GoodBuffers(network(norm=True).to("meta")).keep()


def test_running_statistics_come_back_after_a_nan_batch():
    model = network(norm=True)
    buffers = GoodBuffers(model)
    model(torch.randn(8, 4))
    buffers.keep()
    good = values_of(model)
    model(torch.full((8, 4), NAN))
    assert not buffers.are_finite()
    buffers.keep()  # a bad one never replaces a good one
    buffers.give_back()
    assert buffers.are_finite()
    assert same(values_of(model)[:-1], good[:-1])  # but for num_batches_tracked, which counts


def test_a_mask_of_minus_infinity_is_not_a_fault():
    model = network(norm=True)
    model.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    buffers = GoodBuffers(model)
    assert buffers.are_finite()
    model(torch.full((8, 4), NAN))
    assert not buffers.are_finite()
    buffers.give_back()
    assert buffers.are_finite()
    assert model.mask[0, 1] == float("-inf")


def test_a_graph_that_is_alive_does_not_notice():
    model = network(norm=True)
    buffers = GoodBuffers(model)
    held = model(torch.randn(8, 4))
    buffers.keep()
    buffers.give_back()
    buffers._keep_on_device(buffers._live()[0])
    buffers._keep_on_device(buffers._live()[0])
    held.sum().backward()


def test_on_a_device_each_poisoned_value_comes_back_and_no_other():
    model = network(norm=True).to(torch.float64)
    model.register_buffer("mask", torch.full((3, 3), float("-inf")))
    model.register_buffer("short", torch.tensor([1.5, 2.5], dtype=torch.bfloat16))
    buffers = GoodBuffers(model)
    buffers._keep_on_device(buffers._live()[0])
    model(torch.randn(8, 4, dtype=torch.float64))
    before = values_of(model)
    mean, var = model[1].running_mean.clone(), model[1].running_var.clone()
    buffers._keep_on_device(buffers._live()[0])
    assert same(values_of(model), before)
    model[1].running_mean[2] = NAN
    model[1].running_var += 1
    buffers._keep_on_device(buffers._live()[0])
    assert torch.equal(model[1].running_mean, mean)
    assert torch.equal(model[1].running_var, var + 1)
    assert torch.isneginf(model.mask).all()


def test_large_tables_and_lazy_modules_are_left_out():
    model = nn.Sequential(nn.LazyBatchNorm1d(), nn.Linear(4, 4))
    model.register_buffer("table", torch.full((300, 300), NAN))
    assert GoodBuffers(model).are_finite()


def test_a_model_that_moved_to_another_dtype_is_copied_anew():
    model = network(norm=True)
    buffers = GoodBuffers(model)
    model.double()
    model(torch.randn(8, 4, dtype=torch.float64))
    buffers.keep()
    good = values_of(model)
    model(torch.full((8, 4), NAN, dtype=torch.float64))
    buffers.give_back()
    assert same(values_of(model)[:-1], good[:-1])
