"""The files of one recording, as one thread writes them: which attempt, its segments, its events, its run.json.

Everything here may raise OSError. `writer.RunWriter` is what protects a training from that and from waiting.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from lossdoctor.runs.documents import decode_info, encode_event, encode_info
from lossdoctor.runs.events import Event, Mark
from lossdoctor.runs.files import append_lines, replace_file
from lossdoctor.runs.info import RunInfo, Status
from lossdoctor.runs.layout import EVENTS_FILE, RUN_FILE, TABLES, Place, attempts, is_taken, lock_path, next_number
from lossdoctor.runs.lock import Lock, holder
from lossdoctor.runs.segments import SegmentWriter, adopt
from lossdoctor.runs.stacking import stack
from lossdoctor.runs.tables import Block, Table

__all__ = ["Recording"]


class Recording:
    """One rank's recording of one attempt, from the lock taken to the lock released.

    A directory that already holds a recording gets a new attempt, unless `resume_step` is given: then its newest
    attempt is continued.

    Raises:
        RunDirectoryError: Another writer is at work there.
        OSError: The directory cannot be written.
    """

    def __init__(self, root: Path, info: RunInfo, *, rank: int, resume_step: float | None) -> None:
        """Take the lock and write run.json."""
        self.info = info
        root.mkdir(parents=True, exist_ok=True)
        self.lock = Lock(lock_path(root, rank))
        try:
            earlier = _newest(root, rank)
            if earlier is not None:
                _adopt(earlier.directory, forgiving=resume_step is None)
            continued = earlier if resume_step is not None else None
            self._place = continued or _fresh_place(root, rank)
            self._is_blank = continued is None
            info.started = time.time() if info.started is None else info.started
            info.rank = rank
            info.name = info.name or root.resolve().name
            self._begin()
            if resume_step is not None:
                self._mark_resume(resume_step)
        except BaseException:
            self.lock.release()
            raise

    @property
    def directory(self) -> Path:
        """Where rows go."""
        return self._place.directory

    @property
    def held_bytes(self) -> int:
        """Memory of the rows in open segments, which are kept until they are closed."""
        return sum(table.held_bytes for table in self._segments.values())

    def append(self, blocks: Sequence[Block]) -> None:
        """Write the rows of blocks, one batch a table."""
        tables: dict[str, list[Table]] = {
            "steps": [block.steps for block in blocks],
            "layers": [block.layers for block in blocks],
            "evaluations": [block.evaluations for block in blocks],
        }
        for name, parts in tables.items():
            table = stack(parts)
            if len(table):
                self._is_blank = False
                self._segments[name].append(table)

    def log(self, events: Sequence[Event], *, durable: bool = False) -> None:
        """Append lines to events.jsonl, all or none."""
        if events:
            append_lines(self.directory / EVENTS_FILE, b"".join(map(encode_event, events)), durable=durable)

    def resume(self, step: float) -> None:
        """Continue after `step`: rows recorded so far that lie beyond it are superseded.

        An attempt of ours without any rows gives way to the one before it, and leaves its events there.
        """
        for table in self._segments.values():
            table.close()
        events = b""
        earlier = _newest(self._place.root, self._place.rank, before=self._place.attempt)
        if self._is_blank and earlier is not None:
            _adopt(earlier.directory, forgiving=False)
            events = self._discard()
            self._place = earlier
            self._is_blank = False
        self._begin()
        if events:
            append_lines(self.directory / EVENTS_FILE, events)
        self._mark_resume(step)

    def beat(self, *, durable: bool = False) -> None:
        """Write run.json as things are now."""
        self.info.heartbeat = time.time()
        # In place if need be: on a full disk, too, a run has to say how it ended.
        replace_file(self.directory / RUN_FILE, encode_info(self.info), durable=durable)

    def finish(self, status: Status) -> None:
        """Close all segments, write the status and release the lock, each as far as possible; then the first error."""
        self.info.status = status
        errors: list[OSError] = []
        tasks: list[Callable[[], None]] = [table.close for table in self._segments.values()]
        tasks.append(partial(self.beat, durable=True))
        try:
            for task in tasks:
                try:
                    task()
                except OSError as error:
                    errors.append(error)
        finally:
            self.lock.release()
        if errors:
            raise errors[0]

    def _begin(self) -> None:
        """Be ready for rows behind whatever the attempt holds."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._number = next_number(self.directory)
        self._segments = {name: SegmentWriter(self.directory / name, self._number) for name in TABLES}
        # A continued run started when it first did; without its run.json, this start is the best that is known.
        with suppress(OSError, ValueError):
            self.info.started = decode_info((self.directory / RUN_FILE).read_bytes()).started or self.info.started
        self.info.attempt = self._place.attempt
        self.info.status = "running"
        self.beat(durable=True)

    def _mark_resume(self, step: float) -> None:
        # Durable: without this line the reader would not know that rows were superseded.
        self.log([Mark(name="resume", step=step, time=time.time(), segment=self._number)], durable=True)

    def _discard(self) -> bytes:
        """Remove our attempt, which has no rows, and return its events."""
        log = self.directory / EVENTS_FILE
        events = log.read_bytes() if log.exists() else b""
        for path in (log, self.directory / RUN_FILE):
            path.unlink(missing_ok=True)
        for directory in dict.fromkeys((self.directory, Place(self._place.root, self._place.attempt, 0).directory)):
            try:
                directory.rmdir()
            except OSError:
                break  # another rank's recording is in it
        return events


def _fresh_place(root: Path, rank: int) -> Place:
    """Where a new recording goes: the newest attempt if it is this training's, else the attempt after it.

    Ranks start in any order and do not talk: the newest attempt is another rank's of the same training if it lacks
    this rank and its rank 0, where it has one, is alive.
    """
    newest = Place(root, attempts(root)[-1], rank)
    taken = is_taken(newest.directory)
    if rank and not taken:
        ended = holder(lock_path(root, 0)) is None
        taken = ended and is_taken(Place(root, newest.attempt, 0).directory)
    return Place(root, newest.attempt + 1, rank) if taken else newest


def _newest(root: Path, rank: int, before: int = sys.maxsize) -> Place | None:
    """The newest recording of this rank in an attempt below `before`."""
    places = [Place(root, attempt, rank) for attempt in reversed(attempts(root)) if attempt < before]
    return next((place for place in places if is_taken(place.directory)), None)


def _adopt(attempt: Path, *, forgiving: bool) -> None:
    """Close the segments of a dead process; `forgiving` for an attempt that will not be written again."""
    for table in TABLES:
        try:
            adopt(attempt / table)
        except OSError:
            if not forgiving:
                raise
