"""Tensor functions against slow, obvious references."""

import numpy as np
import pytest
import torch

from lossdoctor.capture.measures import copies, norms, subtract


def reference(tensor: torch.Tensor) -> float:
    dense = tensor.to_dense() if tensor.is_sparse else tensor
    numbers = dense.detach().resolve_conj().numpy() if dense.is_complex() else dense.detach().double().numpy()
    return float(np.sqrt((np.abs(numbers) ** 2).sum()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_agree_with_numpy_in_every_precision(dtype):
    tensors = [torch.randn(5, 7).to(dtype), torch.randn(3).to(dtype), torch.zeros(2, dtype=dtype)]
    assert [float(norm) for norm in norms(tensors)] == pytest.approx([reference(t) for t in tensors], rel=1e-6)


def test_fp16_norms_do_not_overflow():
    assert float(norms([torch.full((300,), 6e4, dtype=torch.float16)])[0]) == pytest.approx(6e4 * 300**0.5, rel=1e-3)


def test_sparse_complex_and_mixed_tensors_have_norms_too():
    sparse = torch.sparse_coo_tensor([[0, 2, 0]], torch.tensor([3.0, 4.0, -6.0]), (4,), check_invariants=True)
    tensors = [sparse, torch.tensor([3 + 4j, 0j]), torch.ones(4, dtype=torch.float64), torch.ones(9)]
    assert [float(norm) for norm in norms(tensors)] == pytest.approx([5.0, 5.0, 2.0, 3.0])
    assert {norm.dtype for norm in norms(tensors)} == {torch.float32}


def test_non_finite_values_show_in_the_norm():
    found = norms([torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")]), torch.ones(1)])
    assert [bool(torch.isfinite(norm)) for norm in found] == [False, False, True]


def test_a_difference_needs_no_graph_and_leaves_the_parameters_alone():
    parameter = torch.nn.Parameter(torch.ones(3))
    before = copies([parameter])
    with torch.no_grad():
        parameter += 2
    (change,) = subtract(before, [parameter])
    assert change.tolist() == [-2.0, -2.0, -2.0]
    assert parameter.tolist() == [3.0, 3.0, 3.0]
    assert not change.requires_grad
