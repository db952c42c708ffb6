"""lossdoctor.runs.recovery: damaged runs, read as far as they can be."""

import random

import msgspec
import numpy as np
import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs import Block, RunWriter, read_run, recovery
from tests.runs.recordings import abandon, info, record, rows, table

KILLED = "the process ended without closing the run (was it killed?); up to a second of it may be missing."
UNKNOWN = "model, optimizer and configuration are not known."


@pytest.fixture
def run(tmp_path):
    """A closed run of three segments (a new column each) with evaluations, layers and marks."""
    evaluations = table(step=[50, 100], val_loss=[1, 2])
    layers = table(step=[50, 100], g=[[1, 1], [2, 2]])
    writer = RunWriter(tmp_path / "x", info(2))
    writer.write(Block(rows(1, 100).steps, evaluations, layers))
    writer.flush(wait=True)
    writer.write(rows(101, 200, grad_norm=1))
    writer.flush(wait=True)
    writer.write(rows(201, 300, grad_norm=1, loss_scale=2))
    writer.close()
    return tmp_path / "x"


def warnings(path):
    """The warnings without the path they all begin with."""
    found = read_run(path).warnings
    assert all(warning.startswith(f"{path}: ") and warning.endswith(".") and "\n" not in warning for warning in found)
    return [warning.removeprefix(f"{path}: ") for warning in found]


def steps(path):
    return read_run(path).steps.step.tolist()


def test_a_whole_run_has_no_warnings(run):
    assert warnings(run) == []
    assert steps(run) == list(range(1, 301))


def test_a_run_cut_at_any_byte_is_readable_up_to_there(tmp_path):
    path = abandon(tmp_path, *(rows(step, step + 1) for step in range(1, 6, 2))) / "steps" / "00000.open.arrow"
    data = path.read_bytes()
    counts = []
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        read = read_run(tmp_path)
        counts.append(len(read.steps))
        assert read.steps.step.tolist() == list(range(1, counts[-1] + 1))
        np.testing.assert_array_equal(
            *(one.steps.columns["train_loss"].values if counts[-1] else [] for one in (read, rows(1, counts[-1])))
        )
        torn = "ends in the middle of a batch" in "".join(read.warnings)
        assert torn == (size not in ends(counts, data))
    assert counts == sorted(counts)
    assert set(counts) == {0, 2, 4, 6}


def ends(counts, data):
    """Sizes at which a file may end without a torn message: each growth of `counts`, nothing, only a schema."""
    schema = 8 + int.from_bytes(data[4:8], "little")
    return {0, schema, *(size for size in range(1, len(counts)) if counts[size] > counts[size - 1])}


def test_a_torn_tail_loses_only_the_torn_batch(tmp_path):
    path = abandon(tmp_path, rows(1, 5), rows(6, 9)) / "steps" / "00000.open.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    assert warnings(tmp_path) == [
        "steps/00000.open.arrow ends in the middle of a batch (the training was cut off?); 5 steps were read.",
        KILLED,
    ]
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_zeros_behind_the_last_batch_as_a_power_cut_leaves_them_are_said(tmp_path):
    path = abandon(tmp_path, rows(1, 5)) / "steps" / "00000.open.arrow"
    path.write_bytes(path.read_bytes() + bytes(4_096))
    assert "is damaged, what does not match its checksum was left out; 5 steps were read." in warnings(tmp_path)[0]


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_anywhere_is_noticed_and_invents_nothing(run, seed):
    whole = read_run(run)
    choose = random.Random(seed)
    path = choose.choice(sorted(path for path in run.rglob("*.arrow")))
    data = bytearray(path.read_bytes())
    position = choose.randrange(len(data))
    data[position] ^= 1 << choose.randrange(8)
    path.write_bytes(data)
    read = read_run(run)
    assert read.warnings
    for name in ("steps", "layers", "evaluations"):
        ours, full = getattr(read, name), getattr(whole, name)
        kept = np.isin(full.step, ours.step)
        assert len(ours) == kept.sum()
        for signal, column in ours.columns.items():
            np.testing.assert_array_equal(column.values, full.columns[signal].values[kept])


def test_a_damaged_segment_costs_no_other(run):
    path = run / "steps" / "00001.arrow"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)
    assert warnings(run) == [
        "steps/00001.arrow is damaged, what does not match its checksum was left out; 200 steps were read."
    ]
    assert steps(run) == [*range(1, 101), *range(201, 301)]


@pytest.mark.parametrize("content", [b"", b"\x00" * 999, b"ARROW1\x00\x00", random.Random(1).randbytes(9_999)])
def test_a_segment_of_garbage_is_said(run, content):
    (run / "steps" / "00002.arrow").write_bytes(content)
    assert len(warnings(run)) == 1
    assert warnings(run)[0].startswith("steps/00002.arrow ")
    assert warnings(run)[0].endswith("; 200 steps were read.")


def test_a_missing_segment_is_said(run):
    (run / "steps" / "00001.arrow").unlink()
    assert warnings(run) == ["steps/00001.arrow is missing; 200 steps were read."]
    (run / "steps" / "00000.arrow").unlink()
    assert warnings(run) == ["steps/00000.arrow to 00001.arrow are missing; 100 steps were read."]


def test_many_damaged_segments_are_counted(tmp_path):
    blocks = [rows(i, i, **{f"m{i}": 1.0}) for i in range(1, 11)]
    record(tmp_path, *blocks, flush=True)
    for i in range(8):
        (tmp_path / "steps" / f"0000{i}.arrow").write_bytes(b"")
    found = warnings(tmp_path)
    assert len(found) == 6
    assert found[-1] == "3 more segments of steps/ are damaged or missing; 2 steps were read."


def test_segments_that_are_no_files_or_not_ours_are_said(run, tmp_path):
    (run / "steps" / "00003.arrow").mkdir()
    with (run / "steps" / "00004.arrow").open("wb") as huge:
        huge.truncate(2**40)
    found = warnings(run)
    assert found[0].startswith("steps/00003.arrow cannot be read (not a regular file)")
    assert found[1].startswith("steps/00004.arrow cannot be read (far too large)")
    assert len(steps(run)) == 300


def test_a_closed_segment_wins_over_a_leftover_of_the_same_number(run):
    (run / "steps" / "00000.open.arrow").write_bytes((run / "steps" / "00002.arrow").read_bytes())
    (run / "steps" / "00003.arrow.tmp").write_bytes(b"half a segm")
    (run / "run.json.tmp").write_bytes(b"{")
    assert warnings(run) == []
    assert steps(run) == list(range(1, 301))


def test_steps_that_fall_without_a_resume_are_sorted_and_said(tmp_path):
    record(tmp_path, rows(1, 10), rows(5, 6, grad_norm=1.0), flush=True)
    assert warnings(tmp_path) == ["steps/: step falls from 10 to 5 without a resume; rows were sorted by step."]
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 9, 10]


def test_rows_without_a_step_are_left_out_and_said(tmp_path):
    record(tmp_path, Block(table(step=[1, float("nan"), 3], x=[1, 2, 3])))
    assert warnings(tmp_path) == ["steps/ has 1 rows without a step number; they were left out."]
    assert steps(tmp_path) == [1, 3]


def test_without_run_json_the_numbers_are_read_and_layers_are_numbered(run):
    (run / "run.json").unlink()
    assert warnings(run) == [
        f"run.json is missing; {UNKNOWN}",
        "layers/ has 2 layers but run.json names 0; layers are shown by number.",
    ]
    assert len(steps(run)) == 300
    assert [layer.name for layer in read_run(run).info.model.layers] == ["layer 0", "layer 1"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"schema": "lossdoctor.run/1", "attempt": "x"}', b"[" * 99_999]
)
def test_a_damaged_run_json_costs_only_what_it_says(run, content):
    (run / "run.json").write_bytes(content)
    assert warnings(run)[0] == f"run.json cannot be read (damaged); {UNKNOWN}"
    assert len(steps(run)) == 300


def test_unknown_fields_of_run_json_are_ignored(run):
    content = msgspec.json.decode((run / "run.json").read_bytes()) | {"something_new": [1]}
    (run / "run.json").write_bytes(msgspec.json.encode(content))
    assert warnings(run) == []


def test_a_run_of_a_later_version_is_an_error_with_a_remedy(run):
    content = msgspec.json.decode((run / "run.json").read_bytes()) | {"schema": "lossdoctor.run/2"}
    (run / "run.json").write_bytes(msgspec.json.encode(content))
    with pytest.raises(LogError, match=r"x: run.json says 'lossdoctor.run/2', this lossdoctor reads .*; upgrade"):
        read_run(run)


def test_layers_of_two_widths_are_said_and_the_later_are_kept(tmp_path):
    record(
        tmp_path, Block(layers=table(step=[1], g=[[1, 2, 3]])), Block(layers=table(step=[2], g=[[4, 5]])), flush=True
    )
    assert warnings(tmp_path) == [
        "layers/ has rows of 3 layers and of 2; only the latter are judged.",
        "layers/ has 2 layers but run.json names 0; layers are shown by number.",
    ]
    assert read_run(tmp_path).layers.columns["g"].mask().tolist() == [[False, False], [True, True]]


def test_a_torn_events_line_costs_only_itself(run):
    line = b'{"kind":"mark","name":"epoch","step":1.0,"time":2.0,"detail":"","segment":null}\n'
    (run / "events.jsonl").write_bytes(line + line[:-20])
    assert warnings(run) == ["events.jsonl ends in the middle of line 2 (the training was cut off?)."]
    assert len(read_run(run).marks) == 1
    (run / "events.jsonl").write_bytes(line[:30] + b"\n" + line + b"\xff\n\n")
    assert warnings(run) == [
        "events.jsonl: 2 lines, the first is line 1, cannot be read; what it recorded is not shown."
    ]
    (run / "events.jsonl").write_bytes(line + b"{}\n" + line.rstrip())
    assert warnings(run) == ["events.jsonl: line 2 cannot be read; what it recorded is not shown."]
    assert len(read_run(run).marks) == 2


def test_events_after_a_torn_line_begin_a_line_of_their_own(tmp_path):
    abandon(tmp_path, rows(1, 5))
    (tmp_path / "events.jsonl").write_bytes(b'{"kind":"ma')
    record(tmp_path, rows(6, 7), resume_step=5)
    assert [mark.name for mark in read_run(tmp_path).marks] == ["resume"]
    assert warnings(tmp_path) == ["events.jsonl: line 1 cannot be read; what it recorded is not shown."]


def test_a_run_that_is_being_written_has_no_torn_tails(tmp_path):
    writer = RunWriter(tmp_path, info())
    writer.write(rows(1, 5))
    writer.flush(wait=True)
    path = tmp_path / "steps" / "00000.open.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "events.jsonl").write_bytes(b'{"kind":"ma')
    assert warnings(tmp_path) == []
    writer.close()


def test_what_the_system_refuses_to_read_is_said(run, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(recovery, "segments", refuse)
    monkeypatch.setattr(recovery, "_lines", refuse)
    assert warnings(run) == [
        "events.jsonl cannot be read to its end (permission denied); interventions may be missing.",
        "evaluations/ cannot be listed (permission denied); no evaluation was read.",
        "layers/ cannot be listed (permission denied); no layer sample was read.",
        "steps/ cannot be listed (permission denied); no step was read.",
    ]
