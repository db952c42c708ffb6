"""Snapshots on disk: equal to those in memory, invisible, gone with their last use, and never a danger."""

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from lossdoctor import Monitor, analyze
from lossdoctor.configuration import SNAPSHOTS
from lossdoctor.errors import UsageError
from lossdoctor.remedies import Policy
from lossdoctor.remedies.keeping import places
from lossdoctor.remedies.keeping.copies import copied, fresh, leaves
from lossdoctor.remedies.keeping.places import Place
from lossdoctor.remedies.keeping.snapshots import Snapshots, is_due
from tests.remedies.patients import same, values_of

GB = 1_000_000_000


def wide(width=128):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))


def train(model, optimizer, steps, *, first=0):
    for number in range(first, first + steps):
        source = torch.Generator().manual_seed(number)
        x = torch.randn(16, model[0].in_features, generator=source)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), x).backward()
        optimizer.step()


def everything(model, optimizer):
    return values_of(model) + [tensor.clone() for tensor in leaves(dict(optimizer.state))]


def mapped(directory: Path) -> int:
    """How many files in the directory, named or not, this process has in its memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split(maxsplit=5)[4] for line in lines if str(directory) in line})


def on_disk(directory):
    place = Place("disk", directory)
    place.settle(1, 2)
    assert place.is_disk
    return place


linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists a process' mappings")


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_rewind_from_disk_is_bit_equal_to_one_from_memory(tmp_path, optimizer):
    results = []
    for place in (Place(), Place("disk", tmp_path)):
        model = wide()
        stepper = optimizer(model.parameters(), lr=0.01)
        snapshots = Snapshots(model, [stepper], place=place)
        train(model, stepper, 3)
        assert snapshots.take(3)
        at_three = everything(model, stepper)
        train(model, stepper, 4, first=3)
        assert not same(everything(model, stepper), at_three)
        snapshots.restore(snapshots.before(9))
        assert same(everything(model, stepper), at_three)
        train(model, stepper, 4, first=3)
        results.append(everything(model, stepper))
    assert same(*results)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(300, 200),
        torch.randn(300, 200, dtype=torch.float64),
        torch.randn(300, 200).bfloat16(),
        torch.randn(300, 200).to(torch.float8_e4m3fn),
        torch.randn(300, 200).half() > 0,
        torch.arange(60_000),
        torch.randn(100, 200, dtype=torch.complex64),
        torch.randn(100, 200, dtype=torch.complex64).conj(),
        torch.randn(300, 200).t(),
        torch.randn(600, 400)[::2, ::2],
        torch.randn(70_000)[5:],
        torch.randn(4, 8, 40, 40).to(memory_format=torch.channels_last),
        torch.randn(1, 8, 90, 90).as_strided((1, 8, 90, 90), (7, 8100, 90, 1)),
        torch.randn(9000, 1).as_strided((9000, 1), (1, 77)),
        torch.eye(200).to_sparse(),
        torch.empty(0, 7),
        torch.tensor(3.5),
        torch.tensor(7),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}-{tensor.layout}",
)
def test_every_kind_of_tensor_comes_back_from_disk_as_it_was(tmp_path, tensor):
    others = [torch.randn(90, 90), torch.ones(5000)]
    with on_disk(tmp_path).keeper([others[0], tensor, others[1]]) as keep:
        saved = copied([others[0], tensor, others[1]], keep)
    ordinary = copied(tensor)
    expected = tensor.clone()
    if tensor.layout is torch.strided:
        tensor.zero_()
    back = fresh(saved)
    raw = (back[1], expected)
    if expected.dtype is torch.float8_e4m3fn:
        raw = tuple(one.view(torch.uint8) for one in raw)
    elif expected.is_sparse:
        raw = tuple(one.to_dense() for one in raw)
    assert torch.equal(*raw)
    assert (back[1].dtype, back[1].shape, back[1].layout) == (expected.dtype, expected.shape, expected.layout)
    if expected.layout is torch.strided:
        assert saved[1].values.stride() == ordinary.values.stride()
    assert torch.equal(back[0], others[0])
    assert torch.equal(back[2], others[1])


@linux
def test_a_file_has_no_name_and_its_space_is_free_with_its_generation(tmp_path):
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    snapshots = Snapshots(model, [optimizer], generations=3, place=Place("disk", tmp_path))
    for number in range(8):
        train(model, optimizer, 1)
        assert snapshots.take(number)
        assert list(tmp_path.iterdir()) == []
        assert mapped(tmp_path) == len(snapshots.steps) == min(number + 1, 3)
    assert snapshots.take_best(8, 0.5)
    assert snapshots.take_best(9, 0.4)
    assert mapped(tmp_path) == 4
    snapshots.drop_after(0)
    assert mapped(tmp_path) == 2
    del snapshots
    assert mapped(tmp_path) == 0


@linux
def test_a_recording_in_auto_leaves_no_file_of_its_snapshots(tmp_path):
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    with Monitor(model, optimizer, tmp_path / "run", remediate="auto", policy=Policy(snapshots="disk")) as monitor:
        for _ in range(40):
            train(model, optimizer, 1)
            monitor.step(1.0)
        names = {path.name for path in (tmp_path / "run").rglob("*")}
        assert mapped(tmp_path / "run") >= 2
        assert analyze(tmp_path / "run")
    assert not {name for name in names if name.startswith(("tmp", "snapshot"))}
    assert mapped(tmp_path / "run") == 0


@pytest.mark.parametrize("where", ["making the file", "writing it"])
def test_a_disk_that_fails_costs_one_warning_and_no_snapshot(tmp_path, monkeypatch, caplog, where):
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    snapshots = Snapshots(model, [optimizer], place=Place("disk", tmp_path))
    train(model, optimizer, 2)
    assert snapshots.take(2)
    at_two = everything(model, optimizer)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    train(model, optimizer, 2)
    with monkeypatch.context() as broken:
        if where == "making the file":
            broken.setattr(places.tempfile, "TemporaryFile", full)
        else:
            broken.setattr(places.os, "pwrite", full)
        assert snapshots.take(4)
        at_four = everything(model, optimizer)
        train(model, optimizer, 2)
        assert snapshots.take(6)
    assert caplog.text.count("No space left") == 1
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert not snapshots.are_on_disk
    snapshots.restore(snapshots.before(6))
    assert same(everything(model, optimizer), at_four)
    snapshots.restore(snapshots.before(4))
    assert same(everything(model, optimizer), at_two)


def test_a_disk_that_fails_without_memory_ends_the_snapshots_and_keeps_those_there_are(tmp_path, monkeypatch, caplog):
    model = wide()
    snapshots = Snapshots(model, [], place=Place("disk", tmp_path))
    assert all(snapshots.take(number) for number in range(4))
    weights = values_of(model)
    shutil.rmtree(tmp_path)
    monkeypatch.setattr(places, "available_memory", lambda: 1000)
    assert not snapshots.take(4)
    assert not snapshots.take(5)
    assert caplog.text.count("there will be no rewind") == 1
    assert snapshots.steps == [0, 1, 2, 3]
    with torch.no_grad():
        model[0].weight.zero_()
    snapshots.restore(snapshots.before(9))
    assert same(values_of(model), weights)


def free(monkeypatch, *, memory, disk):
    monkeypatch.setattr(places, "available_memory", lambda: int(memory * GB))
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(disk * GB)))


@pytest.mark.parametrize(
    ("wanted", "gigabytes", "expected"),
    [
        ("auto", (100, 1000), (5, False)),  # memory, where it holds all of them
        ("auto", (10, 1000), (5, True)),
        ("auto", (8, 9), (3, False)),  # the disk holds no more
        ("auto", (8, 10.5), (4, True)),
        ("auto", (1, 4), (0, False)),
        ("memory", (10, 1000), (4, False)),
        ("memory", (1, 1000), (0, False)),
        ("disk", (100, 1000), (5, True)),
        ("disk", (100, 8), (3, True)),
        ("disk", (100, 1), (5, False)),
    ],
)
def test_where_snapshots_go_follows_what_is_free(tmp_path, monkeypatch, caplog, wanted, gigabytes, expected):  # noqa: PLR0917
    free(monkeypatch, memory=gigabytes[0], disk=gigabytes[1])
    monkeypatch.setattr(places, "_is_in_memory", lambda _: False)
    place = Place(wanted, tmp_path)
    with caplog.at_level(logging.INFO):
        assert (place.settle(GB, 5), place.is_disk) == expected
    if expected[1]:
        assert str(tmp_path) in caplog.text
    assert "1e+03 MB each" in caplog.text or "1.0 GB each" in caplog.text


def test_files_that_are_in_memory_are_no_disk_unless_asked_for(tmp_path, monkeypatch):
    free(monkeypatch, memory=4, disk=1000)
    monkeypatch.setattr(places, "_is_in_memory", lambda _: True)
    for wanted, is_disk in (("auto", False), ("disk", True)):
        place = Place(wanted, tmp_path)
        place.settle(GB, 5)
        assert place.is_disk is is_disk


def test_without_a_directory_everything_stays_in_memory(monkeypatch):
    free(monkeypatch, memory=4, disk=1000)
    place = Place("disk")
    assert place.settle(GB, 5) == 0
    assert not place.is_disk


def test_processes_on_one_machine_share_what_is_free(tmp_path, monkeypatch):
    free(monkeypatch, memory=24, disk=0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Place("auto", tmp_path).settle(GB, 5) == 2


def test_on_disk_snapshots_come_half_as_often():
    assert [is_due(16, 0), is_due(16, 0, on_disk=True), is_due(32, 0, on_disk=True)] == [True, False, True]
    assert not is_due(1099, 1000, on_disk=True)
    assert is_due(1112, 1000, on_disk=True)


def test_a_place_that_does_not_exist_is_refused_with_a_hint():
    assert places.PLACES == SNAPSHOTS
    with pytest.raises(UsageError, match=r"disc.*disk"):
        Policy(snapshots="disc")


class Sharded(torch.Tensor):
    """As a DTensor: a tensor with a part of it here."""


@linux
def test_of_a_sharded_tensor_the_part_that_is_here_goes_to_the_file(tmp_path):
    shard = torch.randn(300, 200)
    whole = torch.empty(0).as_subclass(Sharded)
    whole._local_tensor = shard
    with on_disk(tmp_path).keeper([whole]) as keep:
        kept = keep(shard)
        more = keep(torch.ones(100_000))  # not announced: there is no room for it in the file
    assert mapped(tmp_path) == 1
    assert torch.equal(kept, shard)
    assert torch.equal(more, torch.ones(100_000))
