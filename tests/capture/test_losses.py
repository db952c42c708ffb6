"""Losses that are read later must not have been changed in between."""

import torch

from lossdoctor.capture.losses import LossWatch
from lossdoctor.capture.record import Record


def test_losses_are_read_later_once_the_loop_has_let_64_of_them_be():
    watch = LossWatch()
    for _ in range(63):
        watch.watch(torch.ones(()), Record())
    assert not watch.is_patient
    watch.watch(torch.ones(()), Record())
    assert watch.is_patient
    records = [Record() for _ in range(3)]
    for number, record in enumerate(records):
        watch.keep(torch.tensor(number / 2, requires_grad=True), record)
    watch.read()
    assert [record.losses for record in records] == [[0.0], [0.5], [1.0]]


def test_a_loop_that_sums_in_place_is_never_trusted():
    watch = LossWatch()
    total = torch.ones((), requires_grad=True) * 2
    watch.watch(total, Record())
    total = total.detach()
    for _ in range(200):
        total += 1.0
        watch.watch(torch.ones(()), Record())
    assert not watch.is_patient


def test_a_loss_that_is_changed_late_is_lost_and_ends_the_trust():
    watch = LossWatch()
    for _ in range(64):
        watch.watch(torch.ones(()), Record())
    spoiled, fine = Record(), Record()
    loss = torch.ones(())
    watch.keep(loss, spoiled)
    watch.keep(torch.ones((), dtype=torch.float64), fine)
    loss *= 3
    watch.read()
    assert (spoiled.losses, fine.losses) == ([], [1.0])
    assert not watch.is_patient
