"""Measures of gradients beside slow references."""

import math

import pytest
import torch
from torch import Tensor

from lossdoctor.capture.gradients import SKETCH_SIZE, Sketcher, cosine_of, evenly, lost_updates, nonzero, stride_of


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def projected_cosine(first: list[Tensor], second: list[Tensor]) -> float | None:
    sketcher = Sketcher()
    pair = torch.stack([sketcher.sketch(first), sketcher.sketch(second)])
    return cosine_of([(pair @ pair.t()).flatten().tolist()])


def exact_cosine(first: list[Tensor], second: list[Tensor]) -> float:
    a, b = (torch.cat([one.double().flatten() for one in tensors]) for tensors in (first, second))
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("shapes", [[(300, 400), (400,), (3, 5, 3, 3)], [(64,)] * 40, [(SKETCH_SIZE,), (5000,)]])
@pytest.mark.parametrize("mixture", [-1.0, -0.5, 0.0, 0.3, 0.9, 1.0])
def test_the_cosine_of_projections_is_that_of_the_gradients(shapes, mixture):
    first = [noise(*shape, seed=at) for at, shape in enumerate(shapes)]
    rest = math.sqrt(1 - mixture**2)
    second = [
        mixture * one + rest * noise(*shape, seed=99 + at)
        for at, (one, shape) in enumerate(zip(first, shapes, strict=True))
    ]
    assert projected_cosine(first, second) == pytest.approx(exact_cosine(first, second), abs=4 / math.sqrt(SKETCH_SIZE))


def test_a_gradient_of_which_one_part_is_far_larger_is_judged_by_that_part():
    first = [noise(200_000), 1e3 * noise(10, seed=1)]
    second = [noise(200_000, seed=2), first[1]]
    assert projected_cosine(first, second) == pytest.approx(exact_cosine(first, second), abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_cosine_of_other_dtypes_is_as_good(dtype):
    first, second = [noise(90_000).to(dtype)], [(noise(90_000) + noise(90_000, seed=1)).to(dtype)]
    assert projected_cosine(first, second) == pytest.approx(exact_cosine(first, second), abs=0.05)


def test_the_projection_is_always_the_same_and_moves_no_generator():
    state = torch.random.get_rng_state()
    one, other = (Sketcher().sketch([noise(70_000), noise(3)]) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_of_no_gradients_there_is_no_projection():
    assert Sketcher().sketch([]) is None
    assert Sketcher().sketch([torch.empty(0)]) is None


def test_a_vector_without_length_has_no_direction():
    assert projected_cosine([torch.zeros(50)], [noise(50)]) is None
    assert projected_cosine([torch.full((50,), math.nan)], [noise(50)]) is None
    assert projected_cosine([torch.full((50,), math.inf)], [noise(50)]) is None


def test_parts_of_a_gradient_are_added_up():
    assert cosine_of([(2.0, 1.0, 1.0, 1.0), (2.0, -3.0, -3.0, 3.0)]) == pytest.approx(-2 / math.sqrt(16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zeros_of_a_low_precision_gradient_are_counted(dtype):
    wide = noise(1000) * 1e-8
    narrow = wide.to(dtype)
    assert nonzero([narrow])[0].item() == sum(value != 0.0 for value in narrow.tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lost_updates_are_those_that_rounding_swallows(dtype):
    before = (1 + noise(5000).abs()).to(dtype)
    gradient = noise(5000, seed=1).to(dtype)
    gradient[::7] = 0
    after = before - 1e-3 * gradient
    lost, wanted = (count.item() for count in lost_updates(before, after, gradient))
    pairs = list(zip(before.tolist(), after.tolist(), gradient.tolist(), strict=True))
    assert wanted == sum(g != 0 for _, _, g in pairs)
    assert lost == sum(b == a and g != 0 for b, a, g in pairs)
    assert 0 < lost < wanted or dtype == torch.bfloat16


def test_large_parameters_are_represented_by_evenly_spaced_entries():
    large = torch.arange(200_000)
    assert len(evenly(large)) <= 65_536
    assert evenly(large)[1] == stride_of(large) == 4
    assert torch.equal(evenly(large.view(400, 500)), evenly(large))
    assert evenly(torch.tensor(3.0)).tolist() == [3.0]
