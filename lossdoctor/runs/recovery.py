"""What can be read of the files of a run, and in plain sentences what cannot."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from lossdoctor.errors import LogError
from lossdoctor.runs.documents import decode_event, decode_info
from lossdoctor.runs.events import Intervention, Mark
from lossdoctor.runs.info import LayerInfo, RunInfo
from lossdoctor.runs.layout import EVENTS_FILE, RUN_FILE, Segment, closed_name, reason, segments
from lossdoctor.runs.segments import SEGMENT_ROWS, Salvage, decode
from lossdoctor.runs.stacking import Stack
from lossdoctor.runs.tables import Column, Table

__all__ = ["SCHEMA", "Warn", "in_order", "name_layers", "read_events", "read_info", "read_table", "up_to"]

SCHEMA = "lossdoctor.run/1"

Warn: TypeAlias = Callable[[str], None]
"""Takes a sentence without its full stop."""

_NOUNS = {"steps": "step", "layers": "layer sample", "evaluations": "evaluation"}
_BYTES = 2**30
"""A larger file is none of ours: full segments have a few megabytes."""
_LISTED = 5
"""Faulty segments that are named one by one; more are counted."""


def read_info(directory: Path, warn: Warn) -> RunInfo:
    """What run.json says, or an empty RunInfo.

    Raises:
        LogError: A later version of lossdoctor wrote it.
    """
    try:
        info = decode_info(_read(directory / RUN_FILE))
    except FileNotFoundError:
        warn(f"{RUN_FILE} is missing; model, optimizer and configuration are not known")
        return RunInfo()
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "damaged"
        warn(f"{RUN_FILE} cannot be read ({why}); model, optimizer and configuration are not known")
        return RunInfo()
    if info.schema != SCHEMA:
        message = f"{RUN_FILE} says {info.schema[:40]!r}, this lossdoctor reads {SCHEMA}; upgrade lossdoctor"
        raise LogError(message)
    return info


def read_events(directory: Path, warn: Warn, *, live: bool) -> tuple[tuple[Mark, ...], tuple[Intervention, ...]]:
    """The marks as they were written and the interventions by id, each as its last line has it.

    Ids may begin anew after a resume: two lines are one intervention only if step, rule and action agree too.
    """
    marks: list[Mark] = []
    interventions: dict[tuple[int, float, str, str], Intervention] = {}
    torn: list[int] = []
    last, count = b"\n", 0
    try:
        for count, last in enumerate(_lines(directory / EVENTS_FILE), start=1):
            if not last.strip():
                continue
            try:
                event = decode_event(last)
            except ValueError:
                torn.append(count)
                continue
            if isinstance(event, Mark):
                marks.append(event)
            elif isinstance(event, Intervention):
                interventions[event.id, event.step, event.rule, event.action] = event
    except OSError as error:
        warn(f"{EVENTS_FILE} cannot be read to its end ({reason(error)}); interventions may be missing")
    if torn and torn[-1] == count and not last.endswith(b"\n"):
        torn.pop()
        if not live:
            warn(f"{EVENTS_FILE} ends in the middle of line {count} (the training was cut off?)")
    if torn:
        lines = f"line {torn[0]}" if len(torn) == 1 else f"{len(torn)} lines, the first is line {torn[0]},"
        warn(f"{EVENTS_FILE}: {lines} cannot be read; what it recorded is not shown")
    return tuple(marks), tuple(sorted(interventions.values(), key=lambda one: one.id))


def read_table(
    directory: Path,
    name: str,
    resumes: Sequence[Mark],
    warn: Warn,
    *,
    live: bool,
    columns: Collection[str] | None = None,
) -> Table:
    """All rows of one table that can be read and were not superseded by a resume, in the order of their steps.

    With `columns` only these of its columns, and `step`; the others never take memory beyond one segment.
    """
    widths: list[int] = []
    faults: list[str] = []
    expected = 0
    starts = {mark.segment for mark in resumes}
    try:
        listed = segments(directory / name)
    except OSError as error:
        warn(f"{name}/ cannot be listed ({reason(error)}); no {_NOUNS[name]} was read")
        return Table()
    stack = Stack(expected=len(listed) * SEGMENT_ROWS if len(listed) > 1 and name != "layers" else 0)
    for segment in listed:
        if segment.number != expected and segment.number not in starts:
            faults.append(_missing(name, expected, segment.number - 1))
        expected = segment.number + 1
        salvage, fault = _load(segment, columns, live=live)
        if fault:
            faults.append(f"{name}/{segment.path.name} {fault}")
        # Of the resumes after this segment, the one that went back furthest decides what it may keep.
        limits = [mark.step for mark in resumes if mark.segment is not None and mark.segment > segment.number]
        for rows in salvage.tables:
            stack.add(up_to(rows, min(limits)) if limits else rows)
            widths += [column.values.shape[1] for column in rows.columns.values() if column.values.ndim > 1]
    _check_widths(name, widths, warn)
    table = in_order(stack.table(), name, warn)
    read = _counted(len(table), _NOUNS[name])
    for fault in faults[:_LISTED]:
        warn(f"{fault}; {read}")
    if len(faults) > _LISTED:
        warn(f"{len(faults) - _LISTED} more segments of {name}/ are damaged or missing; {read}")
    return table


def name_layers(info: RunInfo, layers: Table, warn: Warn) -> RunInfo:
    """The info with as many layer names as the layer table has columns: numbers where run.json does not fit."""
    widths = {column.values.shape[1] for column in layers.columns.values() if column.values.ndim > 1}
    width = max(widths, default=len(info.model.layers))
    if width == len(info.model.layers):
        return info
    warn(f"layers/ has {width} layers but {RUN_FILE} names {len(info.model.layers)}; layers are shown by number")
    numbered = [LayerInfo(name=f"layer {i}", type="", parameters=0, trainable=0) for i in range(width)]
    return msgspec.structs.replace(info, model=msgspec.structs.replace(info.model, layers=numbered))


def _read(path: Path) -> bytes:
    """A regular file of plausible size, whole.

    Raises:
        OSError: It is not there, not a regular file, not readable or too large.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "not a regular file")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > _BYTES:
            raise OSError(0, "far too large")
        return file.read(_BYTES)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; none where it does not exist, long ones in pieces."""
    if not path.exists():
        return
    if not path.is_file():
        raise OSError(0, "not a regular file")
    with path.open("rb") as file:
        while line := file.readline(_BYTES):
            yield line


def _load(segment: Segment, columns: Collection[str] | None, *, live: bool) -> tuple[Salvage, str]:
    """What can be read of a segment, and what is wrong with it."""
    path, closed = segment.path, segment.closed
    try:
        try:
            data = _read(path)
        except FileNotFoundError:
            # The writer closed it between our listing and now.
            path, closed = path.with_name(closed_name(segment.number)), True
            data = _read(path)
    except OSError as error:
        return Salvage(), f"cannot be read ({reason(error)})"
    salvage = decode(data, columns)
    faults = []
    if salvage.gaps:
        faults.append("is damaged, what does not match its checksum was left out")
    if salvage.torn and not (live and not closed):
        faults.append("ends in the middle of a batch (the training was cut off?)")
    elif closed and not salvage.ended and not salvage.torn and not salvage.gaps:
        faults.append("ends too early (the file was cut off?)")
    return salvage, " and ".join(faults)


def up_to(table: Table, limit: float) -> Table:
    """The rows whose step is not beyond `limit`, without a copy where all are."""
    keep = table.step <= limit
    return table if keep.all() else _rows(table, np.flatnonzero(keep))


def _rows(table: Table, rows: np.ndarray) -> Table:
    return Table(
        {
            name: Column(column.values[rows], None if column.observed is None else column.observed[rows])
            for name, column in table.columns.items()
        }
    )


def in_order(table: Table, name: str, warn: Warn) -> Table:
    """The table with steps that never fall, as everything after relies on."""
    step = table.step
    unknown = np.isnan(step)
    if unknown.any():
        warn(f"{name}/ has {int(unknown.sum())} rows without a step number; they were left out")
        table = _rows(table, np.flatnonzero(~unknown))
        step = table.step
    falls = np.flatnonzero(np.diff(step) < 0)
    if len(falls):
        before, after = step[falls[0]], step[falls[0] + 1]
        warn(f"{name}/: step falls from {before:.0f} to {after:.0f} without a resume; rows were sorted by step")
        table = _rows(table, np.argsort(step, kind="stable"))
    return table


def _check_widths(name: str, widths: Sequence[int], warn: Warn) -> None:
    if len(set(widths)) > 1:
        lost = sorted(set(widths) - {widths[-1]})
        warn(f"{name}/ has rows of {', '.join(map(str, lost))} layers and of {widths[-1]}; only the latter are judged")


def _missing(name: str, first: int, last: int) -> str:
    if first == last:
        return f"{name}/{closed_name(first)} is missing"
    return f"{name}/{closed_name(first)} to {closed_name(last)} are missing"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun} was read" if number == 1 else f"{number} {noun}s were read"
