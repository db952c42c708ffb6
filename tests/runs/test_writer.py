"""lossdoctor.runs.writer: what it survives, and that the training notices nothing."""

import errno
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from lossdoctor.errors import RunDirectoryError
from lossdoctor.runs import Block, Column, FindingEvent, Intervention, Mark, RunWriter, Table, read_run
from lossdoctor.runs import files as files_module
from lossdoctor.runs import writer as module
from lossdoctor.runs.lock import holder
from tests.runs.recordings import child, info, record, rows, table, wait_until


@pytest.fixture
def writer(tmp_path):
    opened = RunWriter(tmp_path / "x", info(3))
    yield opened
    opened.close()


def test_everything_written_is_read_back(tmp_path, writer):
    steps = table(
        step=[1, 2, 3],
        time=[1.75e9, 1.75e9 + 0.25, 1.75e9 + 0.5],
        train_loss=[1.5, float("nan"), float("inf")],
        grad_norm=[None, float("nan"), 2.0],
    )
    layers = table(step=[1, 3], layer_grad_norm=[[1, None, float("nan")], [None, None, None]])
    evaluations = table(step=[2], val_loss=[0.5], val_accuracy=[None])
    writer.write(Block(steps, evaluations, layers))
    writer.close()
    run = read_run(tmp_path / "x")
    for name, expected in (("steps", steps), ("layers", layers), ("evaluations", evaluations)):
        read = getattr(run, name)
        assert list(read.columns) == list(expected.columns)
        for signal_name, column in expected.columns.items():
            np.testing.assert_array_equal(read.columns[signal_name].values, column.values)
            np.testing.assert_array_equal(read.columns[signal_name].mask(), column.mask())
            assert read.columns[signal_name].values.dtype == column.values.dtype
    assert run.warnings == ()
    assert [layer.name for layer in run.info.model.layers] == ["block.0", "block.1", "block.2"]


def test_blocks_of_any_size_become_the_same_rows(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 2_000, 30)
    ends = np.cumsum(sizes)
    record(tmp_path, *(rows(end - size + 1, end) for end, size in zip(ends, sizes, strict=True)))
    run = read_run(tmp_path)
    assert run.steps.step.tolist() == list(range(1, ends[-1] + 1))
    np.testing.assert_array_equal(
        run.steps.columns["train_loss"].values, rows(1, ends[-1]).steps.columns["train_loss"].values
    )


def test_a_column_that_appears_later_is_unobserved_before(tmp_path):
    record(tmp_path, rows(1, 10), rows(11, 20, grad_norm=1.0), rows(21, 30), flush=True)
    run = read_run(tmp_path)
    assert run.steps.columns["train_loss"].observed is None
    assert run.steps.columns["grad_norm"].mask().tolist() == [False] * 10 + [True] * 10 + [False] * 10
    assert run.warnings == ()


def test_rows_reach_the_disk_within_a_second_by_themselves(tmp_path, writer):
    writer.write(rows(1, 5))
    wait_until(lambda: len(read_run(tmp_path / "x").steps) == 5, seconds=1.0)
    assert read_run(tmp_path / "x").warnings == ()


def test_an_evaluation_is_written_at_once_with_the_steps_before_it(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 60.0)
    writer.flush(wait=True)  # the thread is in its long sleep after this
    writer.write(rows(1, 5))
    writer.write(Block(evaluations=table(step=[5], val_loss=[1.0])))
    wait_until(lambda: len(read_run(tmp_path / "x").evaluations) == 1, seconds=5.0)
    assert len(read_run(tmp_path / "x").steps) == 5


def test_an_intervention_is_read_as_it_was_settled(tmp_path, writer):
    pending = Intervention(
        id=2, step=5, time=1.0, rule="divergence", action="scale_lr", reason="x", changes={"learning_rate": (1.0, 0.1)}
    )
    other = Intervention(id=1, step=9, time=2.0, rule="loss_spike", action="skip_step", reason="y")
    settled = Intervention(
        id=2, step=5, time=1.0, rule="divergence", action="scale_lr", reason="x", outcome="kept", settled=20.0
    )
    found = FindingEvent(rule="r", severity="error", since=1, detected=2, message="m", step=3, time=4.0)
    for event in (pending, found, other, settled, Mark(name="epoch", step=9, time=3.0)):
        writer.event(event)
    writer.close()
    run = read_run(tmp_path / "x")
    assert run.interventions == (other, settled)
    assert [mark.name for mark in run.marks] == ["epoch"]
    assert (tmp_path / "x" / "events.jsonl").read_bytes().count(b"\n") == 5


def test_interventions_of_one_id_before_and_after_a_restart_are_two(tmp_path, writer):
    for step in (5, 50):
        writer.event(Intervention(id=1, step=step, time=1.0, rule="r", action="a", reason="x"))
    writer.close()
    assert [one.step for one in read_run(tmp_path / "x").interventions] == [5, 50]


@pytest.mark.parametrize("status", ["finished", "stopped", "crashed"])
def test_the_status_says_how_the_run_ended(tmp_path, writer, status):
    assert read_run(tmp_path / "x").info.status == "running"
    writer.close(status)
    writer.close("finished")
    assert read_run(tmp_path / "x").info.status == status
    assert holder(tmp_path / "x" / ".lock") is None


def test_the_heartbeat_follows_changes_of_the_info(tmp_path, writer, monkeypatch):
    before = read_run(tmp_path / "x").info.heartbeat
    writer.info.config["batch_size"] = 64
    writer._next_beat = time.monotonic()
    wait_until(lambda: read_run(tmp_path / "x").info.config == {"batch_size": 64})
    assert read_run(tmp_path / "x").info.heartbeat > before


def test_the_heartbeat_does_not_depend_on_the_wall_clock(writer, monkeypatch):
    monkeypatch.setattr(module.time, "time", lambda: -1e12)
    writer.write(rows(1, 5))
    writer.flush(wait=True)
    assert writer.fault is None


def test_what_is_written_after_close_is_ignored(tmp_path, writer):
    writer.write(rows(1, 5))
    writer.close()
    writer.write(rows(6, 9))
    writer.event(Mark(name="epoch", step=9, time=3.0))
    writer.flush(wait=True)
    writer.resume(2)
    assert len(read_run(tmp_path / "x").steps) == 5
    assert read_run(tmp_path / "x").marks == ()


def test_a_writer_whose_thread_is_gone_still_closes_cleanly(tmp_path, writer, monkeypatch):
    writer.write(rows(1, 5))
    monkeypatch.setattr(module.sys, "is_finalizing", lambda: True)
    writer.close()
    assert (len(read_run(tmp_path / "x").steps), read_run(tmp_path / "x").info.status) == (5, "finished")


def test_close_at_interpreter_exit_writes_everything(tmp_path):
    program = """
        import atexit
        w = RunWriter(Path(sys.argv[1]), info())
        atexit.register(w.close)
        w.write(rows(1, 5))
    """
    with child(program, tmp_path) as process:
        assert process.communicate()[1] == ""
    run = read_run(tmp_path)
    assert (len(run.steps), run.info.status, run.warnings) == (5, "finished", ())


def test_a_killed_process_loses_at_most_the_last_second(tmp_path):
    program = """
        w = RunWriter(Path(sys.argv[1]), info())
        step = 0
        while True:
            step += 1
            w.write(rows(step, step))
            print(step, time.monotonic(), flush=True)
            time.sleep(0.002)
    """
    with child(program, tmp_path) as process:
        time.sleep(2.0)
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        written = [line.split() for line in process.communicate()[0].splitlines() if line.count(" ") == 1]
    run = read_run(tmp_path)
    assert run.steps.step.tolist() == list(range(1, len(run.steps) + 1))
    safe = [int(step) for step, when in written[:-1] if float(when) < killed - 1.0]
    assert safe
    assert len(run.steps) >= safe[-1]
    assert run.info.status == "killed"
    assert len(run.warnings) == 1
    assert "the process ended without closing the run (was it killed?)" in run.warnings[0]


def test_a_full_disk_is_said_once_and_costs_nothing_recorded_before(tmp_path):
    # RLIMIT_FSIZE is a real refusal by the kernel, in the middle of a file.
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
        w = RunWriter(Path(sys.argv[1]), info())
        for step in range(1, 6_000, 20):
            w.write(rows(step, step + 19))
            w.flush(wait=True)
        print(w.fault)
        w.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    """
    with child(program, tmp_path) as process:
        out, err = process.communicate()
    assert (out, err) == (f"recording to {tmp_path} stopped: file too large\n", "")
    run = read_run(tmp_path)
    assert 500 < len(run.steps) < 4_000
    assert run.steps.step.tolist() == list(range(1, len(run.steps) + 1))
    assert run.info.status == "finished"
    assert run.warnings == (f"{tmp_path}: the recording ended before the training did: file too large.",)


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda path: path.rename(path.with_name("moved"))])
def test_a_directory_that_vanishes_is_said_once_and_breaks_nothing(tmp_path, writer, vanish):
    writer.write(rows(1, 5))
    writer.flush(wait=True)
    vanish(tmp_path / "x")
    writer.write(rows(6, 9))
    writer.flush(wait=True)
    assert writer.fault == f"recording to {tmp_path}/x stopped: it was removed or renamed while the training ran"
    writer.write(rows(10, 12))
    writer.event(Mark(name="epoch", step=9, time=3.0))
    writer.close()
    assert not (tmp_path / "x").exists()


def test_a_directory_that_vanishes_before_the_first_row_is_noticed_too(tmp_path, writer):
    shutil.rmtree(tmp_path / "x")
    writer.write(rows(1, 5))
    writer.flush(wait=True)
    assert "it was removed or renamed" in writer.fault


def test_a_disk_that_turns_read_only_is_a_fault_not_an_exception(tmp_path, writer, monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(module.Recording, "append", refuse)
    writer.write(rows(1, 5))
    writer.flush(wait=True)
    assert writer.fault == f"recording to {tmp_path}/x stopped: read-only file system"
    writer.close()
    assert read_run(tmp_path / "x").info.fault == "read-only file system"


def test_a_block_that_makes_no_sense_is_a_fault_not_an_exception(writer):
    writer.write(Block(steps=Table({"step": Column(np.arange(3.0)), "x": Column(np.arange(2.0))})))
    writer.flush(wait=True)
    assert "stopped: internal error" in writer.fault
    assert "\n" not in writer.fault


def test_a_disk_that_blocks_does_not_block_the_training_and_loses_nothing(tmp_path, writer, monkeypatch):
    gate = threading.Event()
    append = module.Recording.append

    def slow(self, blocks):
        gate.wait(10)
        append(self, blocks)

    monkeypatch.setattr(module.Recording, "append", slow)
    began = time.perf_counter()
    for step in range(1, 1_001):
        writer.write(rows(step, step))
        writer.event(Mark(name="epoch", step=step, time=1.0))
    assert time.perf_counter() - began < 1.0
    gate.set()
    writer.close()
    assert writer.fault is None
    assert len(read_run(tmp_path / "x").steps) == 1_000


def test_a_disk_that_never_answers_is_given_up_after_a_bounded_wait(writer, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(module.Recording, "append", lambda _self, _blocks: gate.wait(20))
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.3)
    writer.write(rows(1, 5))
    began = time.perf_counter()
    writer.flush(wait=True)
    writer.close()
    assert time.perf_counter() - began < 3.0
    assert "the disk did not answer" in writer.fault
    gate.set()


def test_a_queue_that_grows_without_bound_is_said_once_and_what_was_queued_is_kept(tmp_path, writer, monkeypatch):
    gate = threading.Event()
    append = module.Recording.append

    def slow(self, blocks):
        gate.wait(10)
        append(self, blocks)

    monkeypatch.setattr(module.Recording, "append", slow)
    monkeypatch.setattr(module, "_QUEUE_CELLS", 300)
    for step in range(1, 201):
        writer.write(rows(step, step))
    assert writer.fault == f"recording to {tmp_path}/x stopped: the disk did not keep up with the training"
    gate.set()
    writer.close()
    run = read_run(tmp_path / "x")
    assert run.steps.step.tolist() == list(range(1, 101))
    assert run.info.fault == "the disk did not keep up with the training"


def test_a_forked_child_writes_nothing_and_leaves_the_lock_alone(tmp_path, writer):
    writer.write(rows(1, 5))
    pid = os.fork()
    if pid == 0:
        writer.write(rows(6, 9))
        writer.event(Mark(name="epoch", step=9, time=3.0))
        writer.flush(wait=True)
        writer.resume(1)
        writer.close("crashed")
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(RunDirectoryError):
        RunWriter(tmp_path / "x", info())
    writer.write(rows(6, 7))
    writer.close()
    run = read_run(tmp_path / "x")
    assert (len(run.steps), run.marks, run.info.status) == (7, (), "finished")


def test_a_worker_that_outlives_a_killed_training_does_not_hold_its_lock(tmp_path):
    program = """
        w = RunWriter(Path(sys.argv[1]), info())
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        print(pid, flush=True)
        time.sleep(60)
    """
    with child(program, tmp_path) as process:
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            record(tmp_path, rows(1, 2))
        finally:
            os.kill(worker, signal.SIGKILL)
    assert len(read_run(tmp_path).steps) == 2


def test_resume_marks_are_on_the_disk_before_the_rows_that_follow(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(files_module.os, "fsync", lambda descriptor: synced.append(fsync(descriptor)))
    opened = RunWriter(tmp_path, info(), resume_step=3)
    assert read_run(tmp_path).marks[0].step == 3
    assert synced
    opened.close()


def test_a_disk_that_is_full_from_the_start_is_an_error_with_a_remedy_and_holds_no_lock(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(files_module, "_write_all", full)
        with pytest.raises(
            RunDirectoryError, match=r"cannot write to .* \(no space left on device\); choose a run_dir"
        ):
            RunWriter(tmp_path, info())
    record(tmp_path, rows(1, 2))
    assert len(read_run(tmp_path).steps) == 2


def test_a_machine_without_threads_is_an_error_and_holds_no_lock(tmp_path, monkeypatch):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RunDirectoryError, match="no thread could be started"):
            RunWriter(tmp_path, info())
    record(tmp_path, rows(1, 2))
    assert len(read_run(tmp_path).steps) == 2
