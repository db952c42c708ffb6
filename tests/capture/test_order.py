"""The order of an epoch as one number."""

import torch

from lossdoctor.capture.batch import Layout, layout_of
from lossdoctor.capture.order import EpochOrder, host_bytes


def order_of(batches, length=None):
    order = EpochOrder(length)
    found = [number for batch in batches if (number := order.add(layout_of(batch))) is not None]
    last = order.end()
    return [*found, *([] if last is None else [last])]


def epoch(order, size=16, noise=0.0):
    x = torch.arange(len(order)).float().reshape(-1, 1)[order].repeat(1, 3)
    y = (torch.arange(len(order)) % 10)[order]
    return [
        (part + noise * torch.randn_like(part), label) for part, label in zip(x.split(size), y.split(size), strict=True)
    ]


def test_equal_orders_have_equal_numbers_and_others_do_not():
    one, other = torch.randperm(512), torch.randperm(512)
    assert order_of(epoch(one)) == order_of(epoch(one))
    assert order_of(epoch(one)) != order_of(epoch(other))
    assert len(order_of(epoch(one))) == 1


def test_augmented_inputs_do_not_hide_the_order():
    order = torch.randperm(512)
    assert order_of(epoch(order, noise=1.0)) == order_of(epoch(order, noise=1.0))


def test_labels_that_are_all_equal_leave_it_to_the_inputs():
    def constant(order):
        return [(x, torch.zeros(len(x), dtype=torch.long)) for x, _ in epoch(order)]

    one, other = torch.randperm(512), torch.randperm(512)
    assert order_of(constant(one)) == order_of(constant(one))
    assert order_of(constant(one)) != order_of(constant(other))


def test_a_number_fits_float32_exactly():
    for _ in range(64):
        (number,) = order_of(epoch(torch.randperm(512)))
        assert float(torch.tensor(float(number), dtype=torch.float32)) == number


def test_a_short_epoch_is_known_at_its_last_batch_or_at_its_end():
    batches = epoch(torch.randperm(48))
    order = EpochOrder(3)
    found = [order.add(layout_of(batch)) for batch in batches]
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert order.end() is None
    assert order_of(batches) == [found[2]]


def test_one_batch_has_no_order():
    batches = epoch(torch.randperm(16))
    assert order_of(batches, length=1) == []
    assert order_of(batches) == []


def test_batches_without_tensors_in_host_memory_have_none():
    assert order_of([("a", "b")] * 20) == []
    assert order_of([(torch.zeros(4, 3, device="meta"), torch.zeros(4, device="meta"))] * 20) == []
    assert EpochOrder(None).add(Layout()) is None


def test_at_most_4_kib_of_a_batch_are_read():
    for tensor in (torch.zeros(100, 100), torch.zeros(100, 100).T, torch.zeros(3, 10**5, dtype=torch.bfloat16)):
        assert 0 < host_bytes(tensor).nbytes <= 4096
