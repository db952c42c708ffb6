"""A run directory that grows: at every look only what was added since the look before is read."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lossdoctor.runs.events import Intervention, Mark
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.layout import EVENTS_FILE, Place, Segment, closed_name, ranks, segments
from lossdoctor.runs.ranks import RANK_COLUMNS, combine
from lossdoctor.runs.reader import place_of, read_state
from lossdoctor.runs.recovery import in_order, name_layers, read_events, read_info, up_to
from lossdoctor.runs.segments import Decoder
from lossdoctor.runs.stacking import stack
from lossdoctor.runs.tables import Block, Run, Table

__all__ = ["Follower", "News"]

_PATIENCE = 5
"""Looks in which a rank wrote nothing, after which the others are not held up by it any more."""


@dataclass(frozen=True, slots=True)
class News:
    """What one look at a run found.

    `block` is what is complete now: the blocks of all looks follow each other as those of a Run do. After `restarted`
    everything before is void (rows were superseded, or there is a new attempt), and the block begins at the beginning.
    `recent` is what was read for the first time, of which the latest may not be in a block yet.
    """

    info: RunInfo
    live: bool
    block: Block = field(default_factory=Block)
    recent: Block = field(default_factory=Block)
    interventions: tuple[Intervention, ...] = ()
    marks: tuple[Mark, ...] = ()
    restarted: bool = False


class Follower:
    """Follows the run at `path` as `read_run` would read it, of its tables only `columns` and `step`.

    Segments may grow, be closed, be rewritten; the training may be resumed or begun anew meanwhile. A row is handed
    out at the look after the one that found it: by then the evaluations and layer samples of its step are there too.
    """

    _events: tuple[tuple[Mark, ...], tuple[Intervention, ...]]
    _events_size: int

    def __init__(self, path: Path, columns: Collection[str]) -> None:
        self._path, self._columns = Path(path), columns
        self._start(None)

    def look(self) -> News:
        """Read what is new.

        Raises:
            LogError: There is no run (any more), or a later version of lossdoctor wrote it.
            OSError: It cannot be read.
        """
        place = place_of(self._path)
        info, live = read_state(place, _ignore)
        events = read_events(place.directory, _ignore, live=live) if self._events_changed(place) else self._events
        resumes = [mark for mark in events[0] if mark.name == "resume" and mark.segment is not None]
        restarted = place != self._place or resumes != self._resumes or ranks(place.directory) != self._others
        if restarted:
            self._start(place, resumes)
            self._events_changed(place)
        self._events = events
        recent = [tail.read() for tail in self._tails]
        if any(tail.late for tail in self._tails):  # once more from the beginning, with more patience
            self._start(place, resumes, lag=2 * self._lag)
            restarted = True
            recent = [tail.read() for tail in self._tails]
        # Names for layers that run.json lacks are made up as in read_run.
        info = name_layers(info, recent[0].layers, _ignore)
        block = self._complete(info, place, is_over=not live)
        return News(info, live, block, recent[0], events[1], events[0], restarted)

    def _start(self, place: Place | None, resumes: Sequence[Mark] = (), *, lag: int = 1) -> None:
        self._place, self._resumes, self._lag = place, list(resumes), lag
        self._others = [] if place is None else ranks(place.directory)
        directories = [] if place is None else [replace(place, rank=rank).directory for rank in self._others]
        first = [] if place is None else [place.directory]
        columns = {*self._columns, *RANK_COLUMNS} if directories else self._columns
        self._tails = [_RankTail(directory, columns, resumes, lag=lag) for directory in [*first, *directories]]
        self._events = ((), ())
        self._events_size = -1

    def _events_changed(self, place: Place) -> bool:
        try:
            size = (place.directory / EVENTS_FILE).stat().st_size
        except OSError:
            size = 0
        before, self._events_size = self._events_size, size
        return size != before

    def _complete(self, info: RunInfo, place: Place, *, is_over: bool) -> Block:
        """The rows up to which every rank has written everything; all rows of a run that is over."""
        reached = [tail.reached for tail in self._tails if not tail.is_silent] or [np.inf]
        limit = np.inf if is_over else min(reached)
        first, *others = (tail.take(limit) for tail in self._tails)
        if place.rank or not (others or (info.sharded and info.world_size > 1)):
            return first
        runs = [
            Run("", place.directory, read_info(replace(place, rank=rank).directory, _ignore), *_tables(block))
            for rank, block in zip(self._others, others, strict=True)
        ]
        whole = combine(Run("", place.directory, info, *_tables(first)), runs)
        return Block(whole.steps, whole.evaluations, whole.layers)


def _ignore(_: str) -> None:
    """What is damaged is said by the report at the end."""


def _tables(block: Block) -> tuple[Table, Table, Table]:
    return block.steps, block.evaluations, block.layers


class _RankTail:
    """The three tables of one rank's recording, and those of their rows that were read but not handed out."""

    def __init__(self, directory: Path, columns: Collection[str], resumes: Sequence[Mark], *, lag: int) -> None:
        self._tails = {
            name: _TableTail(directory / name, name, columns, resumes) for name in ("evaluations", "layers", "steps")
        }
        self._held = dict.fromkeys(self._tails, Table())
        self._given = -np.inf
        self._seen = [-np.inf] * (lag + 1)
        """The last step at each of the latest looks."""
        self._silent = 0
        self.late = False
        """Whether something was read that belongs before what was handed out."""

    @property
    def reached(self) -> float:
        """The step up to which everything is certainly there."""
        return self._seen[0]

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for a while."""
        return self._silent > _PATIENCE

    def read(self) -> Block:
        """Read what is new."""
        new = {name: tail.read() for name, tail in self._tails.items()}
        self._silent = 0 if any(map(len, new.values())) else self._silent + 1
        for name, table in new.items():
            if len(table):
                first = float(table.step[0])
                # An evaluation may come long after the steps before it; what else is of a step comes with the step.
                self.late |= first < self._given or (first == self._given and name != "evaluations")
                self._held[name] = in_order(stack([self._held[name], table]), name, _ignore)
        last = float(self._held["steps"].step[-1]) if len(self._held["steps"]) else self._given
        self._seen = [*self._seen[1:], max(last, self._seen[-1])]
        return Block(new["steps"], new["evaluations"], new["layers"])

    def take(self, limit: float) -> Block:
        """Hand out the rows up to a step."""
        taken: dict[str, Table] = {}
        for name, held in self._held.items():
            rows = int(np.searchsorted(held.step, limit, "right"))
            taken[name], self._held[name] = held[:rows], held[rows:]
        if len(taken["steps"]):
            self._given = float(taken["steps"].step[-1])
        return Block(taken["steps"], taken["evaluations"], taken["layers"])


class _TableTail:
    """One table, segment by segment."""

    def __init__(self, directory: Path, name: str, columns: Collection[str], resumes: Sequence[Mark]) -> None:
        self._directory, self._name, self._columns = directory, name, columns
        self._limits = [(mark.segment, mark.step) for mark in resumes if mark.segment is not None]
        self._tails: dict[int, _SegmentTail] = {}
        self._done: set[int] = set()

    def read(self) -> Table:
        """The rows that came, without those that a resume superseded."""
        found: list[Table] = []
        for segment in segments(self._directory):
            number = segment.number
            if number in self._done:
                continue
            tail = self._tails.setdefault(number, _SegmentTail(self._columns))
            limits = [step for first, step in self._limits if first > number]
            for table in tail.read(segment):
                kept = up_to(table, min(limits)) if limits else table
                found += [kept] if len(kept) else []
            if segment.closed:
                self._done.add(number)
                del self._tails[number]
        return in_order(stack(found), self._name, _ignore)


class _SegmentTail:
    """One segment, whichever file it is in at the moment. A row that was read is not read again."""

    def __init__(self, columns: Collection[str]) -> None:
        self._columns = columns
        self._file: tuple[object, ...] = ()
        self._offset = self._rows = 0
        self._decoder = Decoder(columns)

    def read(self, segment: Segment) -> list[Table]:
        """The rows that came."""
        try:
            return self._read(segment.path)
        except FileNotFoundError:
            # The writer closed it between our listing and now.
            try:
                return self._read(segment.path.with_name(closed_name(segment.number)))
            except FileNotFoundError:
                return []

    def _read(self, path: Path) -> list[Table]:
        skip = 0
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = (path.name, status.st_dev, status.st_ino)
            if identity != self._file or status.st_size < self._offset:  # rewritten: the same rows, in fewer batches
                self._file, self._offset, self._decoder = identity, 0, Decoder(self._columns)
                skip, self._rows = self._rows, 0
            if status.st_size == self._offset:
                return []
            file.seek(self._offset)
            salvage = self._decoder.decode(file.read())
        self._offset += salvage.whole
        found = []
        for table in salvage.tables:
            self._rows += len(table)
            fresh = table[min(skip, len(table)) :]
            skip -= len(table) - len(fresh)
            found += [fresh] if len(fresh) else []
        return found
