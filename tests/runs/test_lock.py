"""lossdoctor.runs.lock."""

import os
import signal
import socket

import msgspec
import pytest

from lossdoctor.errors import RunDirectoryError
from lossdoctor.runs import lock as module
from lossdoctor.runs.lock import Lock, holder
from tests.runs.recordings import child


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without flock."""
    monkeypatch.setattr(module, "_flock", lambda _descriptor, *, shared: None)


def test_a_lock_is_held_until_it_is_released(path):
    lock = Lock(path)
    assert holder(path) == f"process {os.getpid()} on {socket.gethostname()}"
    lock.release()
    lock.release()
    assert holder(path) is None
    assert not path.exists()


def test_a_second_lock_in_the_same_process_is_refused_in_one_line(path):
    lock = Lock(path)
    with pytest.raises(RunDirectoryError, match=rf"is being written by process {os.getpid()} .*; wait until") as error:
        Lock(path)
    assert "\n" not in str(error.value)
    lock.release()


def test_a_lock_dies_with_its_process_and_is_taken_over(path):
    program = """
        from lossdoctor.runs.lock import Lock
        lock = Lock(Path(sys.argv[1]))
        print('held', flush=True)
        time.sleep(60)
    """
    with child(program, path) as process:
        assert process.stdout.readline() == "held\n"
        assert holder(path).startswith(f"process {process.pid} ")
        with pytest.raises(RunDirectoryError, match=f"process {process.pid}"):
            Lock(path)
        process.send_signal(signal.SIGKILL)
    assert path.exists()
    assert holder(path) is None
    Lock(path).release()


def test_a_forked_child_that_forgets_leaves_the_lock_to_its_parent(path):
    lock = Lock(path)
    pid = os.fork()
    if pid == 0:
        lock.forget()
        os._exit(0)
    os.waitpid(pid, 0)
    assert holder(path) is not None
    lock.release()


def test_a_lock_whose_directory_vanished_is_released_all_the_same(tmp_path):
    (tmp_path / "x").mkdir()
    lock = Lock(tmp_path / "x" / ".lock")
    (tmp_path / "x" / ".lock").unlink()
    (tmp_path / "x").rmdir()
    lock.release()


def test_releasing_does_not_remove_the_lock_of_a_successor(path):
    first = Lock(path)
    path.unlink()
    second = Lock(path)
    first.release()
    assert holder(path) is not None
    second.release()


@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_live_process_keeps_its_lock(path):
    lock = Lock(path)
    with pytest.raises(RunDirectoryError, match="is being written by"):
        Lock(path)
    assert holder(path) is not None
    lock.release()


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize(
    "owner",
    [
        b"",
        b"garbage \xff",
        {"pid": 2**22 + 1, "host": socket.gethostname(), "started": "1"},
        {"pid": os.getpid(), "host": socket.gethostname(), "started": "another process of the same id"},
    ],
)
def test_without_flock_a_dead_process_loses_its_lock(path, owner):
    path.write_bytes(owner if isinstance(owner, bytes) else msgspec.json.encode(owner))
    assert holder(path) is None
    Lock(path).release()


@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_process_of_another_host_keeps_its_lock(path):
    path.write_bytes(msgspec.json.encode({"pid": 1, "host": "elsewhere", "started": "1"}))
    assert holder(path) == "process 1 on elsewhere"
