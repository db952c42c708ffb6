"""Finite or not, on the host and on a device."""

import pytest
import torch

from lossdoctor.remedies.finite import CudaReadback, all_finite, floating, non_finite_flag, on_host

BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_one_bad_element_among_many_is_found(value, dtype):
    tensors = [torch.ones(5), torch.ones(300, dtype=dtype), torch.ones(3, dtype=torch.bfloat16)]
    assert all_finite(tensors)
    assert not non_finite_flag(tensors)
    tensors[1][170] = value
    assert not all_finite(tensors)
    assert non_finite_flag(tensors) == 1


def test_a_norm_that_overflows_is_no_proof():
    huge = [torch.full((10,), 1e30), torch.full((9,), 6e4, dtype=torch.float16)]
    assert all_finite(huge)
    assert not non_finite_flag(huge)


def test_only_what_can_hold_a_nan_is_looked_at():
    tensors = [torch.ones(2), None, torch.ones(2, dtype=torch.int64), torch.empty(0), torch.ones(2, device="meta")]
    assert len(floating(tensors)) == 1
    assert all_finite([])
    assert on_host([])


def test_sparse_gradients_are_looked_at_by_their_values():
    table = torch.nn.Embedding(10, 3, sparse=True)
    table(torch.tensor([1, 1, 4])).sum().backward()
    (values,) = floating([table.weight.grad])
    assert values.shape == (3, 3)
    assert all_finite([values])
    table(torch.tensor([2])).mul(float("nan")).sum().backward()
    assert not all_finite(floating([table.weight.grad]))


def test_a_flag_that_could_only_be_read_by_waiting_is_dropped():
    readback = CudaReadback()
    readback.send(torch.ones(()))
    readback.send(torch.ones((), device="meta"))
    assert readback.arrived() == []
