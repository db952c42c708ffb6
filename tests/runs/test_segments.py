"""lossdoctor.runs.segments."""

import numpy as np
import pyarrow as pa
import pytest

from lossdoctor.runs import segments as module
from lossdoctor.runs.segments import SegmentWriter, adopt, decode
from lossdoctor.runs.stacking import stack
from tests.runs.recordings import rows, table


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "steps"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def read(path):
    return stack(decode(path.read_bytes()).tables)


def test_null_nan_and_infinity_are_three_things(directory):
    written = table(step=[1, 2, 3, 4], x=[None, float("nan"), float("inf"), 1.5])
    writer = SegmentWriter(directory, 0)
    writer.append(written)
    writer.close()
    x = read(directory / "00000.arrow").columns["x"]
    assert x.observed.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(x.values, np.float32([np.nan, np.nan, np.inf, 1.5]))


def test_other_programs_read_a_segment_as_arrow(directory):
    writer = SegmentWriter(directory, 0)
    writer.append(table(step=[2**53 - 1], time=[1.75e9 + 2**-10], x=[None], g=[[1, None]]))
    writer.close()
    read = pa.ipc.open_stream((directory / "00000.arrow").read_bytes()).read_all()
    assert read.to_pylist() == [{"step": 2**53 - 1, "time": 1.75e9 + 2**-10, "x": None, "g": [1, None]}]
    assert [str(kind) for kind in read.schema.types[:3]] == ["double", "double", "float"]
    assert read.schema.types[3] == pa.list_(pa.float32(), 2)


def test_a_number_beyond_float32_is_infinite_without_a_warning(directory):
    writer = SegmentWriter(directory, 0)
    big = module.Column(np.array([1e300]))
    writer.append(module.Table({"step": module.Column(np.array([1.0])), "x": big}))
    assert read(directory / "00000.open.arrow").columns["x"].values == np.inf


def test_what_lies_under_a_null_is_not_stored(directory):
    hidden = module.Column(np.float32([7, 8]), np.array([True, False]))
    writer = SegmentWriter(directory, 0)
    writer.append(module.Table({"step": module.Column(np.array([1.0, 2.0])), "x": hidden}))
    np.testing.assert_array_equal(read(directory / "00000.open.arrow").columns["x"].values, np.float32([7, np.nan]))


def test_a_full_segment_is_closed_and_the_next_begun(directory):
    writer = SegmentWriter(directory, 3)
    for first in range(1, 10_001, 1_000):
        writer.append(rows(first, first + 999).steps)
    assert names(directory) == ["00003.arrow", "00004.arrow", "00005.open.arrow"]
    assert len(decode((directory / "00003.arrow").read_bytes()).tables) == 1
    writer.close()
    stacked = stack([read(directory / name) for name in names(directory)])
    assert stacked.step.tolist() == list(range(1, 10_001))
    assert len(read(directory / "00003.arrow")) == 4_096


def test_many_rows_at_once_are_cut_into_full_segments(directory):
    writer = SegmentWriter(directory, 0)
    writer.append(rows(1, 3 * 4_096).steps)
    assert names(directory) == ["00000.arrow", "00001.arrow", "00002.arrow"]


def test_a_wide_table_has_fewer_rows_a_segment(directory, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 100)
    writer = SegmentWriter(directory, 0)
    writer.append(table(step=[1, 2, 3, 4, 5], g=[[0.0] * 49] * 5))
    assert [len(read(directory / name)) for name in names(directory)] == [2, 2, 1]


def test_a_new_column_begins_a_new_segment_and_is_kept(directory):
    writer = SegmentWriter(directory, 0)
    writer.append(rows(1, 2).steps)
    writer.append(rows(3, 4, grad_norm=1.0).steps)
    writer.append(rows(5, 6).steps)
    assert names(directory) == ["00000.arrow", "00001.open.arrow"]
    assert read(directory / "00001.open.arrow").columns["grad_norm"].mask().tolist() == [True, True, False, False]


def test_many_small_batches_are_rewritten_as_one_without_closing(directory, monkeypatch):
    monkeypatch.setattr(module, "_BATCHES", 8)
    writer = SegmentWriter(directory, 0)
    for step in range(1, 101):
        writer.append(rows(step, step).steps)
        assert read(directory / "00000.open.arrow").step.tolist() == list(range(1, step + 1))
        assert len(decode((directory / "00000.open.arrow").read_bytes()).tables) <= 8
    assert names(directory) == ["00000.open.arrow"]


def test_an_orphaned_segment_is_adopted_without_its_torn_tail(directory):
    writer = SegmentWriter(directory, 0)
    writer.append(rows(1, 5).steps)
    writer.append(rows(6, 9).steps)
    path = directory / "00000.open.arrow"
    path.write_bytes(path.read_bytes()[:-3])
    adopt(directory)
    assert names(directory) == ["00000.arrow"]
    salvage = decode((directory / "00000.arrow").read_bytes())
    assert salvage.ended
    assert stack(salvage.tables).step.tolist() == [1, 2, 3, 4, 5]


def test_a_damaged_orphan_is_left_as_it_is(directory):
    writer = SegmentWriter(directory, 0)
    writer.append(rows(1, 5).steps)
    writer.append(rows(6, 9).steps)
    path = directory / "00000.open.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    adopt(directory)
    assert path.read_bytes() == data


def test_a_leftover_beside_its_closed_segment_is_removed_by_adoption(directory):
    writer = SegmentWriter(directory, 0)
    writer.append(rows(1, 5).steps)
    left = (directory / "00000.open.arrow").read_bytes()
    writer.close()
    (directory / "00000.open.arrow").write_bytes(left)
    adopt(directory)
    assert names(directory) == ["00000.arrow"]


def test_a_failed_rewrite_leaves_the_open_segment(directory, monkeypatch):
    writer = SegmentWriter(directory, 0)
    writer.append(rows(1, 5).steps)

    def fails(_path, _content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_file", fails)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert names(directory) == ["00000.open.arrow"]
    monkeypatch.undo()
    writer.close()
    assert names(directory) == ["00000.arrow"]
