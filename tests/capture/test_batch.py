"""Batches: their layouts, and what is measured of them against slow references."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch

from lossdoctor.capture.batch import (
    INPUT_MEASURES,
    LABEL_MEASURES,
    Layout,
    input_measures,
    label_measures,
    label_signals,
    layout_of,
    padding_share,
    thinned,
)

X = torch.arange(12.0).reshape(4, 3)
Y = torch.tensor([0, 1, 1, 0])
IDS = torch.arange(20).reshape(4, 5)
MASK = torch.ones(4, 5, dtype=torch.long)


@dataclass
class Graph:
    x: torch.Tensor
    edge_index: torch.Tensor
    y: torch.Tensor


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Named(NamedTuple):
    target: torch.Tensor
    image: torch.Tensor


class Plain:
    def __init__(self) -> None:
        self.images, self.target = X, Y


@pytest.mark.parametrize(
    ("batch", "inputs", "ids", "labels"),
    [
        ((X, Y), X, None, Y),
        ([X, Y], X, None, Y),
        (X, X, None, None),
        ((X,), X, None, None),
        ((X, X), X, None, X),
        ((X, Y, torch.ones(4)), X, None, Y),
        ((X, torch.ones(4), torch.arange(4)), X, None, torch.arange(4)),
        ((IDS, MASK, Y), None, IDS, Y),
        (({"a": IDS, "b": X}, Y), X, IDS, Y),
        (([X, X + 1], Y), X, None, Y),
        (Pair(X, Y), X, None, Y),
        (Named(Y, X), X, None, Y),
        (Graph(X, torch.zeros(2, 9, dtype=torch.long), Y), X, None, Y),
        (Plain(), X, None, Y),
        *[({name: X, "label": Y}, X, None, Y) for name in ("input", "inputs", "x", "pixel_values", "images")],
        *[({"x": X, name: Y}, X, None, Y) for name in ("label", "labels", "y", "target", "targets")],
        ({"labels": Y, "whatever": X}, X, None, Y),
        ({"input_ids": IDS, "attention_mask": MASK, "labels": IDS}, None, IDS, IDS),
        ((X, {"boxes": X}), X, None, None),
        ((X, None), X, None, None),
        ((), None, None, None),
        ({}, None, None, None),
        ("text", None, None, None),
        (None, None, None, None),
        (3.5, None, None, None),
        ((["a", "b"], Y), None, None, Y),
        ((torch.empty(0, 3), torch.empty(0)), None, None, None),
        ((X.to_sparse(), Y), None, None, Y),
    ],
)
def test_the_parts_of_a_batch_are_told_apart(batch, inputs, ids, labels):
    found = layout_of(batch)
    for got, expected in ((found.inputs, inputs), (found.ids, ids), (found.labels, labels)):
        assert (got is None) == (expected is None)
        if got is not None:
            assert torch.equal(got, expected)


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    """Measures on a device take another way: it is gone with tensors that say they are not in host memory."""
    if request.param == "device":
        monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False), raising=False)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("broken", [0, 5])
def test_inputs_are_measured_as_a_slow_reference_does(dtype, broken, place):
    x = (torch.randn(16, 3, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1).to(dtype)
    x.view(-1)[:broken] = torch.tensor([math.nan, math.inf, -math.inf, math.nan, math.inf]).to(dtype)[:broken]
    numbers = [float(value) for value in x.flatten()]
    finite = [value for value in numbers if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite)
    expected = [
        mean,
        math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / len(finite)),
        min(finite),
        max(finite),
        broken / len(numbers),
    ]
    assert input_measures(x).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert len(expected) == len(INPUT_MEASURES)


def test_a_batch_without_a_finite_number_is_wholly_non_finite():
    assert input_measures(torch.full((2, 2), math.nan))[4] == 1.0


def test_of_a_large_batch_evenly_spaced_rows_are_read():
    x = torch.arange(1000.0).repeat_interleave(1000).reshape(1000, 1000)
    mean, _, low, high, _ = input_measures(x).tolist()
    assert mean == pytest.approx(499.5, rel=0.01)
    assert low == 0
    assert high > 990
    assert thinned(torch.zeros(2, 10**6), 1000).numel() <= 2000


def reference(labels, ignored=-100):
    used = [value for value in labels if value != ignored]
    counts = Counter(used)
    entropy = -sum(n / len(used) * math.log(n / len(used)) for n in counts.values())
    return min(used), max(used), entropy, len(counts), len(used) / len(labels)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_labels_are_measured_as_a_slow_reference_does(dtype, place):
    generator = torch.Generator().manual_seed(0)
    for classes in (1, 2, 10, 1000):
        labels = torch.randint(0, classes, (257,), generator=generator, dtype=dtype)
        labels[::7] = -100
        found = label_measures(labels).tolist()
        assert found[:5] == pytest.approx(reference(labels.tolist()), rel=1e-5)
        assert found[LABEL_MEASURES.index("used")] == (labels != -100).sum()


def test_the_entropy_is_relative_to_what_the_batch_could_have():
    even = label_measures(torch.arange(8)).tolist()
    assert label_signals(even, is_integer=True, classes=1000)["label_entropy"] == pytest.approx(1)
    assert label_signals(even, is_integer=True, classes=8)["label_entropy"] == pytest.approx(1)
    one = label_signals(label_measures(torch.zeros(8, dtype=torch.long)).tolist(), is_integer=True, classes=1)
    assert (one["label_entropy"], one["labels_distinct"]) == (0.0, 1.0)
    single = label_signals(label_measures(torch.tensor([3])).tolist(), is_integer=True, classes=10)
    assert "label_entropy" not in single


def test_float_labels_are_classes_only_where_all_are_0_or_1(place):
    binary = label_signals(label_measures(torch.tensor([0.0, 1.0, 1.0, 0.0])).tolist(), is_integer=False, classes=2)
    assert binary == {"label_min": 0, "label_max": 1, "labels_distinct": 2, "label_entropy": 1}
    real = label_signals(label_measures(torch.tensor([0.5, -2.0])).tolist(), is_integer=False, classes=2)
    assert real == {"label_min": -2.0, "label_max": 0.5}
    boolean = label_signals(label_measures(torch.tensor([True, False])).tolist(), is_integer=True, classes=2)
    assert boolean["label_entropy"] == 1


def test_of_labels_that_are_all_ignored_only_that_is_said(place):
    found = label_measures(torch.full((4, 3), -100)).tolist()
    assert label_signals(found, is_integer=True, classes=5) == {"supervised_share": 0.0}


def slow_padding(rows, pad):
    count = 0
    for row in rows:
        for token in reversed(row):
            if token != pad:
                break
            count += 1
    return count / sum(map(len, rows))


def test_padding_is_counted_at_the_ends_of_rows():
    generator = np.random.default_rng(0)
    rows = [[*generator.integers(5, 900, 40 - n).tolist(), *[2] * n] for n in (0, 3, 30, 12, 7, 0, 25)]
    assert padding_share(Layout(ids=torch.tensor(rows))).item() == pytest.approx(slow_padding(rows, 2))


def test_an_attention_mask_is_believed():
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]])
    assert padding_share(Layout(ids=torch.ones(2, 4, dtype=torch.long), mask=mask)).item() == 3 / 8


def test_text_without_padding_has_none():
    generator = torch.Generator().manual_seed(0)
    assert padding_share(Layout(ids=torch.randint(0, 900, (16, 64), generator=generator))).item() == 0
    flags = torch.randint(0, 2, (64, 20), generator=generator)
    assert padding_share(Layout(ids=flags)).item() < 0.1
    assert padding_share(Layout(inputs=X)) is None


def test_nothing_that_is_measured_waits_for_a_device():
    ids = torch.zeros(4, 9, dtype=torch.long, device="meta")
    for found in (
        input_measures(torch.zeros(4, 3, device="meta")),
        label_measures(torch.zeros(4, dtype=torch.long, device="meta")),
        label_measures(torch.zeros(4, device="meta")),
        padding_share(Layout(ids=ids)),
        padding_share(Layout(mask=ids)),
    ):
        assert found.is_meta
