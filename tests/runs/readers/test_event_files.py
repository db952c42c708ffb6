"""The scanner of event files gives what TensorBoard's own gives, and survives what a crash or a stranger leaves."""

import contextlib
import math
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing import event_accumulator

from lossdoctor.runs.readers.event_files import read_scalars
from lossdoctor.runs.readers.protobuf import layout_of
from tests.runs.readers.eventfile_writer import event, event_file, framed, header, scalar_tensor, tensor_event


def by_tag(scalars):
    found = {}
    for tag, step, wall_time, value in zip(scalars.tag, scalars.step, scalars.wall_time, scalars.value, strict=True):
        found.setdefault(scalars.tags[tag], []).append((int(step), float(wall_time), float(value)))
    return found


def accumulated(path):
    reader = event_accumulator.EventAccumulator(
        str(path), size_guidance={event_accumulator.SCALARS: 0}, purge_orphaned_data=False
    )
    reader.Reload()
    return {tag: [(e.step, e.wall_time, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_scalars_are_those_of_tensorboards_own_reader(tmp_path):
    rng = np.random.default_rng(0)
    events = [
        event(
            int(step),
            1.7e9 + i,
            **{f"train__metric_{i % 7}": float(rng.normal()), "loss": float(rng.normal()) * 10.0 ** (i % 20)},
        )
        for i, step in enumerate(np.sort(rng.integers(0, 2**40, 500)))
    ]
    path = event_file(tmp_path, *events)
    assert by_tag(read_scalars(path)) == accumulated(path)


def test_what_torch_writes_is_read(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(50):
            writer.add_scalar("loss/train", 1 / (step + 1), step)
            writer.add_scalar("loss/val", 2 / (step + 1), step, new_style=True)
        writer.add_histogram("weights", np.arange(100.0), 3)
        writer.add_text("note", "hello", 3)
    (path,) = tmp_path.iterdir()
    found = by_tag(read_scalars(path))
    assert [value for _, _, value in found["loss/train"]] == [np.float32(1 / (step + 1)) for step in range(50)]
    assert [(step, value) for step, _, value in found["loss/val"]] == [
        (step, np.float32(2 / (step + 1))) for step in range(50)
    ]
    assert {*found} == {"loss/train", "loss/val"}


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (scalar_tensor(1.5), 1.5),
        (scalar_tensor(0, dtype=2, double_val=[2.25]), 2.25),
        (scalar_tensor(0, tensor_content=struct.pack("<f", 3.5)), 3.5),
        (scalar_tensor(0, dtype=2, tensor_content=struct.pack("<d", 1e300)), 1e300),
        (scalar_tensor(0, dtype=9, tensor_content=struct.pack("<q", -4)), -4.0),
        (scalar_tensor(0, dtype=14, tensor_content=b"\xc0\x3f"), 1.5),
        (scalar_tensor(0, dtype=19, tensor_content=struct.pack("<e", 0.5)), 0.5),
    ],
)
def test_scalars_of_tf2_are_read_from_tensors_of_any_kind(tmp_path, tensor, expected):
    for count in (1, 40):
        path = event_file(tmp_path, *(tensor_event(step, "epoch_loss", tensor) for step in range(count)))
        assert [value for _, _, value in by_tag(read_scalars(path))["epoch_loss"]] == [expected] * count


def test_tensors_of_several_numbers_are_no_scalars(tmp_path):
    tensor = scalar_tensor(0, tensor_content=struct.pack("<ff", 1, 2))
    assert not len(read_scalars(event_file(tmp_path, tensor_event(1, "image", tensor))).value)


def test_nan_infinity_negative_steps_and_several_values_of_an_event_are_kept(tmp_path):
    path = event_file(tmp_path, event(-1, a=math.nan, b=math.inf), *(event(s, a=1.0, b=-math.inf) for s in range(9)))
    found = by_tag(read_scalars(path))
    assert math.isnan(found["a"][0][2])
    assert [step for step, _, _ in found["a"]] == [-1, *range(9)]
    assert [value for _, _, value in found["b"]] == [math.inf] + [-math.inf] * 9


def test_order_is_that_of_the_file_whatever_the_layouts(tmp_path):
    steps = [5, 300, 2**31, 7, 70_000, 1, 0, 129]
    path = event_file(tmp_path, *(event(step, 1e9 + i, loss=float(i)) for i, step in enumerate(steps * 20)))
    found = by_tag(read_scalars(path))["loss"]
    assert [step for step, _, _ in found] == steps * 20
    assert [value for _, _, value in found] == list(range(160))


def test_a_torn_tail_loses_only_the_torn_record(tmp_path):
    path = event_file(tmp_path, *(event(step, loss=1.0) for step in range(100)))
    whole = path.read_bytes()
    one = len(event(99, loss=1.0))
    for cut in range(1, one):
        path.write_bytes(whole[:-cut])
        scalars = read_scalars(path)
        assert (len(scalars.value), scalars.damage) == (99, "")


def test_a_flipped_bit_in_a_record_loses_that_record_and_is_said(tmp_path):
    path = event_file(tmp_path, *(event(step, loss=1.0) for step in range(100)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 10] ^= 4
    path.write_bytes(data)
    scalars = read_scalars(path)
    assert 98 <= len(scalars.value) <= 99 or "no records any more" in scalars.damage
    assert scalars.damage


def test_a_flipped_bit_in_a_length_ends_reading_and_is_said(tmp_path):
    record = event(1, loss=1.0)
    broken = bytes([record[0] ^ 1]) + record[1:]
    path = event_file(tmp_path, record, record, broken, record)
    scalars = read_scalars(path)
    assert len(scalars.value) == 2
    assert scalars.damage.startswith("from byte ")


def test_a_huge_length_takes_neither_memory_nor_time(tmp_path):
    length = struct.pack("<Q", 2**62)
    from tests.runs.readers.eventfile_writer import masked

    path = event_file(tmp_path, event(1, loss=1.0), length + struct.pack("<I", masked(length)) + b"x" * 100)
    assert len(read_scalars(path).value) == 1


def test_a_large_record_is_passed_over_and_what_follows_is_read(tmp_path):
    path = event_file(tmp_path, event(1, loss=1.0), framed(b"\x00" * 33_000_000), event(2, loss=2.0))
    assert [value for _, _, value in by_tag(read_scalars(path))["loss"]] == [1.0, 2.0]


def test_records_of_ever_other_layouts_take_bounded_time(tmp_path):
    # Equal length, no two alike: what a comparison of all with all would take minutes for.
    rng = np.random.default_rng(0)
    records = [framed(b"\x7a\x1e" + rng.bytes(30)) for _ in range(20_000)]
    path = event_file(tmp_path, *records)
    began = time.perf_counter()
    read_scalars(path)
    assert time.perf_counter() - began < 5


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_can_break_the_parser(data):
    with contextlib.suppress(ValueError):
        layout_of(data)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_file_can_break_the_scanner(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "events.out.tfevents.1"
    content = bytearray(header() + b"".join(event(step, loss=float(step)) for step in range(20)))
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    scalars = read_scalars(path)
    assert len(scalars.value) <= 20
    assert np.isfinite(scalars.step).all()
