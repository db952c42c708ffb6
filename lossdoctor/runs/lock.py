"""One writer per run directory: a lock that dies with the process that holds it.

`flock` is released by the kernel however a process ends, so a lock left behind by SIGKILL is taken over without
guessing. Where the file system or the platform has no `flock`, the process id and its start time decide.
"""

import errno
import os
import socket
import sys
import time
from pathlib import Path

import msgspec

from lossdoctor.errors import RunDirectoryError
from lossdoctor.runs.layout import shown

if sys.platform != "win32":
    import fcntl

__all__ = ["Lock", "holder", "is_foreign"]

_PATIENCE = 0.5
"""Seconds to wait for a lock: a reader that probes it holds it for microseconds."""


class _Owner(msgspec.Struct, frozen=True):
    """Who holds a lock; the content of the lock file."""

    pid: int = 0
    host: str = ""
    started: str = ""
    """The kernel's start time of the process: tells a process from a later one of the same id."""

    def __str__(self) -> str:
        """For a message: `process 4711 on host`."""
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


class Lock:
    """The right to write a run directory, held from construction until `release`.

    Raises:
        RunDirectoryError: Another live process, or another writer of this process, holds it.
        OSError: The lock file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, from a dead holder too."""
        self.path = path
        deadline = time.monotonic() + _PATIENCE
        while (descriptor := _take(path)) is None:
            if time.monotonic() > deadline:
                message = (
                    f"{shown(path.parent)} is being written by {_read(path)}; "
                    "wait until that training ends or choose another run_dir"
                )
                raise RunDirectoryError(message)
            time.sleep(0.01)
        self._descriptor: int | None = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, msgspec.json.encode(_myself()))
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock up and remove its file. Safe to call twice."""
        if self._descriptor is None:
            return
        try:
            if _same_file(self._descriptor, self.path):
                self.path.unlink(missing_ok=True)
        except OSError:
            pass  # a directory that vanished or turned read-only holds nobody back: the kernel lock goes below
        self.forget()

    def forget(self) -> None:
        """Close our descriptor only: for a forked child, whose parent still holds the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(path: Path) -> str | None:
    """Who holds the lock right now, as words for a message; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        taken = _flock(descriptor, shared=True)
        owner = _read(path)
        live = _is_alive(owner) if taken is None else not taken
    finally:
        os.close(descriptor)
    return str(owner) if live else None


def is_foreign(path: Path) -> bool:
    """Whether a process of another host left this lock file: `flock` does not tell everywhere whether it still runs."""
    owner = _read(path)
    return owner.pid > 0 and owner.host != socket.gethostname()


def _take(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if another one holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        taken = _flock(descriptor, shared=False)
        if taken is None:
            taken = not _is_alive(_read(path))
        # The holder removes its file when it is done: what we locked may be a file nobody else will find.
        if taken and _same_file(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _flock(descriptor: int, *, shared: bool) -> bool | None:
    """Try to lock: True if we have it, False if another one has, None if there are no locks here."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> _Owner:
    try:
        return msgspec.json.decode(path.read_bytes()[:10_000], type=_Owner)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return _Owner()


def _myself() -> _Owner:
    return _Owner(os.getpid(), socket.gethostname(), _start_time(os.getpid()))


def _is_alive(owner: _Owner) -> bool:
    """Whether the process that wrote the lock file still runs, as far as can be told without `flock`."""
    if owner.pid <= 0:
        return False
    if owner.host != socket.gethostname():
        return True  # it cannot be asked, and two writers are worse than one refusal
    if sys.platform != "win32":  # there os.kill would end the process
        try:
            os.kill(owner.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # it runs under another user
    return _start_time(owner.pid) == owner.started


def _start_time(pid: int) -> str:
    """Start time of a process in the kernel's clock ticks; empty where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
