"""Rows of both splits, compared by samples of their hashes."""

import numpy as np
import pytest
import torch

from lossdoctor.capture.batch import Layout, layout_of
from lossdoctor.capture.leakage import RowSketch, row_keys, share_seen


def sketch_of(rows, size=64, **kwargs):
    sketch = RowSketch(**kwargs)
    for part in rows.split(size):
        sketch.add(row_keys(layout_of((part, None))))
    return sketch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7,), (20,), (3, 8, 8), (1, 28, 28)])
def test_small_splits_are_compared_exactly(dtype, shape):
    rows = torch.randn(300, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    train = sketch_of(rows[:200])
    assert share_seen(train, sketch_of(rows[200:], size=33)) == 0.0
    assert share_seen(train, sketch_of(rows[150:250], size=33)) == 0.5
    assert share_seen(train, sketch_of(rows[:60].flip(0), size=7)) == 1.0
    assert train.repeated == 0.0


def test_of_large_splits_the_share_is_estimated():
    rows = torch.randn(30_000, 12, generator=torch.Generator().manual_seed(1))
    train = sketch_of(rows[:24_000], size=512, kept=500)
    leaked = sketch_of(rows[23_000:27_000][torch.randperm(4000)], size=512, kept=500)
    assert share_seen(train, leaked) == pytest.approx(0.25, abs=0.12)
    assert share_seen(train, sketch_of(rows[24_000:], kept=500)) == 0.0
    assert len(train.below(train.bound)) == 500


def test_repeated_rows_are_counted():
    rows = torch.randn(100, 5)
    assert sketch_of(torch.cat([rows, rows])).repeated == 0.5
    assert RowSketch().repeated is None


def test_nearly_constant_rows_are_not_taken_for_copies():
    empty = torch.zeros(200, 5000)
    empty[:, 0] = torch.arange(200)
    assert len(row_keys(Layout(inputs=empty))) == 0


def test_token_rows_are_the_same_in_batches_of_different_lengths():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 900, (6, 12), generator=generator)
    short = torch.nn.functional.pad(ids, (0, 2))
    long = torch.nn.functional.pad(ids, (0, 9))
    keys = [row_keys(Layout(ids=padded)).tolist() for padded in (short, long)]
    assert keys[0] == keys[1]
    masked = [row_keys(Layout(ids=padded, mask=padded != 0)).tolist() for padded in (ids, long)]
    assert masked[0] == masked[1] == keys[0]
    assert len(set(keys[0])) == 6


def test_too_little_says_nothing():
    rows = torch.randn(100, 5)
    assert share_seen(sketch_of(rows), sketch_of(rows[:7])) is None
    assert share_seen(RowSketch(), sketch_of(rows)) is None


@pytest.mark.parametrize(
    "layout",
    [Layout(), Layout(inputs=torch.zeros(4)), Layout(inputs=torch.zeros(4, 3, device="meta"))],
    ids=["nothing", "no rows", "elsewhere"],
)
def test_what_has_no_rows_in_host_memory_has_no_hashes(layout):
    assert row_keys(layout) is None


def test_a_row_has_one_hash_whatever_its_memory_looks_like():
    rows = torch.randn(9, 8, 6)
    expected = row_keys(Layout(inputs=rows)).tolist()
    assert row_keys(Layout(inputs=rows.transpose(1, 2).contiguous().transpose(1, 2))).tolist() == expected
    assert row_keys(Layout(inputs=rows[4:])).tolist() == expected[4:]
    assert np.unique(expected).size == 9
