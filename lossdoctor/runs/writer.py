"""RunWriter: records a run without ever making the training wait or fail."""

import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

from lossdoctor.errors import RunDirectoryError
from lossdoctor.runs.events import Event
from lossdoctor.runs.info import RunInfo, Status
from lossdoctor.runs.layout import reason, shown
from lossdoctor.runs.recording import Recording
from lossdoctor.runs.segments import SEGMENT_ROWS
from lossdoctor.runs.tables import Block

__all__ = ["Mirror", "RunWriter"]

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.25
"""Rows wait at most this long. Whoever makes them gathers them for half a second: a killed process loses less than
one."""
_HEARTBEAT_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0
"""How long `close` and `flush(wait=True)` wait for a disk that does not answer."""
_QUEUE_CELLS = 32_000_000
"""Numbers that may wait for the disk, about 128 MiB: beyond, the disk is too slow for this training."""


class _Resume(float):
    """A request to continue after this step."""


Mirror: TypeAlias = Callable[[Path, Sequence[Block], Sequence[Event]], None]
"""Gets what was just written, and the directory of it, on the writer's thread."""

_Item: TypeAlias = Block | Event | _Resume | threading.Event


class RunWriter:
    """Writes rows and events to a run directory from a daemon thread of its own.

    After construction nothing raises and nothing waits for the disk, except `close`, `resume` and `flush(wait=True)`,
    which wait at most 30 seconds. When the disk fails, `fault` says so in one sentence and everything after is
    dropped. In a forked child the writer does nothing. The arrays of a block must not be changed after `write`.

    `info` may be changed at any time; run.json follows within seconds and on `close`.

    Args:
        directory: The run directory; made if it does not exist. If it holds a run, `attempt-2` … is begun in it.
        info: What run.json says; `started`, `heartbeat`, `status`, `attempt`, `rank`, `name` are filled in.
        rank: Which process of a distributed training this is; ranks other than 0 write to `rank-1` ….
        resume_step: Continue the directory's newest attempt after this step instead; rows beyond are superseded.
        mirror: Another one to show everything to, after it was written. If it raises, it is left out from then on.

    Raises:
        RunDirectoryError: The directory cannot be written, or another writer is at work there.
    """

    def __init__(
        self,
        directory: Path,
        info: RunInfo,
        *,
        rank: int = 0,
        resume_step: float | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        """Take the lock, write run.json and start the thread."""
        self.info = info
        self.fault: str | None = None
        self._mirror = mirror
        self._queue: deque[_Item] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # reentrant: safe in signal handlers
        self._io = threading.Lock()
        self._queued_cells = self._taken_cells = 0
        self._is_inert = False
        self._is_broken = False
        self._final: Status | None = None
        self._is_finished = False
        self._next_beat = time.monotonic() + _HEARTBEAT_SECONDS
        directory = Path(directory)
        try:
            self._recording = Recording(directory, info, rank=rank, resume_step=resume_step)
        except OSError as error:
            message = f"cannot write to {shown(directory)} ({reason(error)}); choose a run_dir that can be written"
            raise RunDirectoryError(message) from error
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_forget, weakref.ref(self)))
        self._thread = threading.Thread(target=self._work, name="lossdoctor-writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._finish("crashed")
            message = f"cannot record to {shown(directory)}: no thread could be started ({error})"
            raise RunDirectoryError(message) from error

    @property
    def directory(self) -> Path:
        """Where rows really go: the attempt's directory, and the rank's in it."""
        return self._recording.directory

    @property
    def held_bytes(self) -> int:
        """Memory of what waits for the disk, and of the open segments, which are kept until they are closed."""
        return 4 * (self._queued_cells - self._taken_cells) + self._recording.held_bytes

    def write(self, block: Block) -> None:
        """Queue rows. They are on their way to the disk within half a second, evaluations at once."""
        if self._is_deaf():
            return
        cells = _cells(block)
        if self._queued_cells - self._taken_cells + cells > _QUEUE_CELLS:
            self._fail("the disk did not keep up with the training")
            return
        self._queued_cells += cells
        self._queue.append(block)
        if len(block.evaluations) or len(block.steps) >= SEGMENT_ROWS:
            self._wake.put(None)

    def event(self, event: Event) -> None:
        """Queue a line of events.jsonl, and have it and all rows before it written at once."""
        if not self._is_deaf():
            self._queue.append(event)
            self._wake.put(None)

    def flush(self, *, wait: bool = False) -> None:
        """Have everything so far written now; with `wait`, return when it is."""
        if self._is_deaf():
            return
        if not wait:
            self._wake.put(None)
            return
        self._wait_for_all()

    def resume(self, step: float) -> None:
        """Continue after `step`, when a checkpoint was loaded: rows recorded beyond it are superseded.

        If nothing was recorded yet and the directory holds an earlier attempt, that attempt is continued.
        """
        if not self._is_deaf():
            self._queue.append(_Resume(step))
            self._wait_for_all()

    def close(self, status: Status = "finished") -> None:
        """Write what is left, close the segments, say how the run ended. Safe to call late and more than once."""
        if self._is_inert or self._is_finished:
            return
        if self._final is None:
            self._final = status
        self._wake.put(None)
        if self._thread.is_alive() and not sys.is_finalizing():
            self._thread.join(_PATIENCE_SECONDS)
            if self._thread.is_alive():
                self._is_inert = True  # a later call shall not wait once more
                self._fail(f"the disk did not answer for {_PATIENCE_SECONDS:.0f} s")
        elif self._io.acquire(timeout=1):  # the interpreter stops daemon threads before late clean-up runs
            try:
                self._drain()
                self._finish(self._final)
            finally:
                self._io.release()

    def _is_deaf(self) -> bool:
        return self._is_inert or self._final is not None or self.fault is not None

    def _wait_for_all(self) -> None:
        done = threading.Event()
        self._queue.append(done)
        self._wake.put(None)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not done.wait(0.2):
            if time.monotonic() > deadline or not self._thread.is_alive():
                return

    def _work(self) -> None:
        """The thread: a turn every half second, or at once when something urgent was queued."""
        while not self._is_finished:
            with suppress(queue.Empty):
                self._wake.get(timeout=_FLUSH_SECONDS)
            while not self._wake.empty():
                self._wake.get()
            with self._io:
                final = self._final  # read before draining: all that was queued before `close` is in the queue
                self._drain()
                if final is not None:
                    self._finish(final)
                elif time.monotonic() >= self._next_beat:
                    self._next_beat = time.monotonic() + _HEARTBEAT_SECONDS
                    self._protected(self._recording.beat)

    def _drain(self) -> None:
        """Write everything queued: one batch a table, unless there is a great deal."""
        if not self._queue:  # four times a second, mostly
            return
        blocks: list[Block] = []
        events: list[Event] = []

        def write_out() -> None:
            self._protected(partial(self._recording.append, blocks.copy()))
            self._protected(partial(self._recording.log, events.copy()))
            self._show(blocks.copy(), events.copy())
            self._taken_cells += sum(map(_cells, blocks))
            blocks.clear()
            events.clear()

        rows = 0
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, Block):
                blocks.append(item)
                rows += len(item.steps)
            elif isinstance(item, threading.Event | _Resume):
                write_out()
                if isinstance(item, _Resume):
                    self._protected(partial(self._recording.resume, float(item)))
                else:
                    item.set()
            else:
                events.append(item)
            if rows >= SEGMENT_ROWS:
                write_out()
                rows = 0
        write_out()

    def _show(self, blocks: Sequence[Block], events: Sequence[Event]) -> None:
        """Pass on what was written to the mirror."""
        if self._mirror is None or self._is_broken or not (blocks or events):
            return
        try:
            self._mirror(self.directory, blocks, events)
        except Exception as error:  # noqa: BLE001  nothing may reach the training
            self._mirror = None
            why = reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            _log.warning("lossdoctor: the mirror of %s stopped: %s; the recording goes on", shown(self.directory), why)

    def _finish(self, status: Status) -> None:
        # After a fault too: the lock must go, and what can be closed and said should be.
        try:
            self._recording.finish(status)
        except Exception as error:  # noqa: BLE001  nothing may reach the training
            self._explain(error)
        self._is_finished = True

    def _protected(self, task: Callable[[], object]) -> None:
        """Do it, unless the disk has failed before; if it fails now, take note."""
        if self._is_broken:
            return
        try:
            task()
        except Exception as error:  # noqa: BLE001  nothing may reach the training
            self._is_broken = True
            self._explain(error)
            try:
                self._recording.beat()  # so that a reader learns of it, where the disk still takes that much
            except Exception:  # noqa: BLE001  nothing may reach the training
                _log.debug("run.json cannot be written either", exc_info=True)

    def _explain(self, error: Exception) -> None:
        if isinstance(error, FileNotFoundError):
            self._fail("it was removed or renamed while the training ran")
        elif isinstance(error, OSError):
            self._fail(reason(error))
        else:
            _log.debug("recording failed", exc_info=error)
            self._fail(f"internal error, {type(error).__name__}: {error}")

    def _fail(self, why: str) -> None:
        if self.fault is None:
            self.info.fault = why
            self.fault = f"recording to {shown(self.directory)} stopped: {why}"


def _cells(block: Block) -> int:
    """How many numbers a block holds; only layer columns are looked at one by one, for this is done every step."""
    layers = sum(column.values.size for column in block.layers.columns.values())
    return layers + sum(len(table) * len(table.columns) for table in (block.steps, block.evaluations))


def _forget(reference: weakref.ref[RunWriter]) -> None:
    """In a forked child: the parent writes, this copy never will."""
    writer = reference()
    if writer is not None:
        writer._is_inert = True  # noqa: SLF001  part of this class, outside it only so that a fork keeps no reference
        writer._queue.clear()  # noqa: SLF001
        writer._recording.lock.forget()  # noqa: SLF001
