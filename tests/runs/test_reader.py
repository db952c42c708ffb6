"""lossdoctor.runs.reader: which directories are runs, and what is said of those that are not."""

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs import RunWriter, find_runs, is_run, read_run
from lossdoctor.runs import recovery as recovery_module
from lossdoctor.runs.recovery import read_info
from tests.runs.recordings import abandon, info, record, rows


def refusal(path):
    with pytest.raises(LogError) as error:
        read_run(path)
    assert "\n" not in str(error.value)
    assert not is_run(path)
    return str(error.value)


def test_what_is_no_run_is_refused_in_one_line_with_a_remedy(tmp_path):
    remedy = "; give the run_dir of the Monitor"
    assert refusal(tmp_path / "nope") == f"{tmp_path}/nope: no such file or directory{remedy}"
    (tmp_path / "file").write_text("x")
    assert refusal(tmp_path / "file") == f"{tmp_path}/file: a file, not a run directory{remedy}"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == f"{tmp_path}/empty: an empty directory, nothing was recorded in it{remedy}"
    (tmp_path / "other" / "steps").mkdir(parents=True)
    (tmp_path / "other" / "run.json").write_text("{}")
    assert refusal(tmp_path / "other").startswith(f"{tmp_path}/other: no run directory (neither run.json nor segments")
    assert refusal(tmp_path / "nope\nb").startswith(f"{tmp_path}/nope\\nb: ")
    assert refusal(tmp_path / ("x" * 300)).startswith(f"{tmp_path}/xxx")


def test_a_part_of_a_run_or_a_directory_of_runs_points_to_the_run(tmp_path):
    path = record(tmp_path / "runs" / "x", rows(1, 3))
    for part in (path / "run.json", path / "steps", path / "steps" / "00000.arrow"):
        assert refusal(part) == f"{part}: only a part of a run; analyze {path}"
    assert refusal(tmp_path / "runs") == f"{tmp_path}/runs: no run directory, but there is a run in it; analyze {path}"
    record(tmp_path / "runs" / "y", rows(1, 3))
    assert "but there are 2 runs in it; analyze " in refusal(tmp_path / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_without_permission_is_refused_in_one_line(tmp_path):
    path = record(tmp_path / "x", rows(1, 3))
    path.chmod(0)
    assert "permission denied" in refusal(path)
    path.chmod(0o700)


def test_runs_are_found_at_and_below_a_directory_without_their_parts(tmp_path):
    names = ("a", "a", "b/c", "b/d", "a/sweep/1", ".hidden/e")
    for name in names:
        record(tmp_path / name, rows(1, 3))
    record(tmp_path / "a", rank=1)
    (tmp_path / "b" / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b" / "c")
    (tmp_path / "loop").symlink_to(tmp_path)
    expected = [tmp_path / name for name in ("a", "a/sweep/1", "b/c", "b/d", "link")]
    assert find_runs(tmp_path) == expected
    assert find_runs(tmp_path / "b" / "c") == [tmp_path / "b" / "c"]
    assert find_runs(tmp_path / "nope") == []


def test_a_run_is_recognised_by_its_segments_when_run_json_is_lost(tmp_path):
    path = record(tmp_path / "x", rows(1, 3))
    (path / "run.json").unlink()
    assert is_run(path)
    assert not is_run(tmp_path)


def test_a_run_without_any_row_is_an_empty_run(tmp_path):
    run = read_run(record(tmp_path / "x"))
    assert (run.name, len(run.steps), run.steps.columns, run.warnings) == ("x", 0, {}, ())
    assert [len(block.steps) for block in run.blocks()] == [0]


def test_the_current_directory_is_a_run_with_a_name(tmp_path, monkeypatch):
    path = record(tmp_path / "x", rows(1, 3))
    monkeypatch.chdir(path)
    assert read_run(".").name == "x"
    monkeypatch.chdir(path / "steps")
    assert read_run("..").name == "x"


def test_a_killed_run_says_so_but_a_running_one_does_not(tmp_path):
    abandon(tmp_path / "killed", rows(1, 5))
    assert "ended without closing the run (was it killed?)" in read_run(tmp_path / "killed").warnings[0]
    assert read_run(tmp_path / "killed").info.status == "killed"
    assert read_info(tmp_path / "killed", print).status == "running"
    writer = RunWriter(tmp_path / "running", info())
    assert read_run(tmp_path / "running").warnings == ()
    assert read_run(tmp_path / "running").info.status == "running"
    writer.close()


@pytest.mark.parametrize(("age", "status"), [(2.0, "running"), (600.0, "killed")])
def test_whether_a_process_of_another_host_runs_is_told_by_its_heartbeat(tmp_path, monkeypatch, age, status):
    abandon(tmp_path, rows(1, 5))
    (tmp_path / ".lock").write_text('{"pid": 1, "host": "elsewhere", "started": "1"}')
    beat = read_info(tmp_path, print).heartbeat
    monkeypatch.setattr("lossdoctor.runs.reader.time", SimpleNamespace(time=lambda: beat + age))
    assert read_run(tmp_path).info.status == status


def test_a_killed_attempt_says_so_while_the_next_one_runs(tmp_path):
    abandon(tmp_path, rows(1, 5))
    writer = RunWriter(tmp_path, info())
    assert "was it killed?" in read_run(tmp_path / "attempt-1").warnings[0]
    assert "was it killed?" not in "".join(read_run(tmp_path).warnings)
    writer.close()


def test_reading_while_segments_are_closed_and_begun_sees_a_growing_prefix(tmp_path):
    writer = RunWriter(tmp_path, info())
    stop = threading.Event()

    def write():
        for first in range(1, 60_000, 500):
            writer.write(rows(first, first + 499))
            writer.flush(wait=True)
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while not stop.is_set():
        run = read_run(tmp_path)
        assert run.warnings == ()
        np.testing.assert_array_equal(run.steps.step, np.arange(1, len(run.steps) + 1))
        assert len(run.steps) >= seen
        seen = len(run.steps)
    thread.join()
    writer.close()
    assert len(read_run(tmp_path).steps) == 60_000


def test_a_segment_that_is_closed_between_listing_and_reading_is_read(tmp_path, monkeypatch):
    record(tmp_path, rows(1, 5))
    segments = recovery_module.segments

    def stale(directory):
        return [
            type(one)(one.number, closed=False, path=one.path.with_name("00000.open.arrow"))
            for one in segments(directory)
        ]

    monkeypatch.setattr(recovery_module, "segments", stale)
    run = read_run(tmp_path)
    assert (len(run.steps), run.warnings) == (5, ())


def test_a_single_segment_is_read_without_a_copy_and_columns_keep_their_types(tmp_path):
    run = read_run(record(tmp_path, rows(1, 100)))
    assert not run.steps.columns["train_loss"].values.flags.owndata
    types = {name: column.values.dtype.name for name, column in run.steps.columns.items()}
    assert types == {"step": "float64", "time": "float64", "train_loss": "float32"}
    assert all(column.observed is None for column in run.steps.columns.values())


def test_only_the_columns_that_are_asked_for_are_read(tmp_path):
    run = record(tmp_path / "run", rows(1, 5000, momentum=0.9), rows(5001, 5010, momentum=0.8))
    everything, asked = read_run(run), read_run(run, {"momentum", "val_loss"})
    assert set(asked.steps.columns) == {"step", "momentum"}
    assert asked.steps.columns["momentum"].values.tolist() == everything.steps.columns["momentum"].values.tolist()
    assert asked.steps.step.tolist() == everything.steps.step.tolist()
    assert asked.warnings == everything.warnings == ()
