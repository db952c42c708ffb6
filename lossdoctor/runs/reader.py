"""Run directories: recognise, find and read them, whatever state they were left in."""

import os
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from lossdoctor.errors import LogError
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.layout import (
    RUN_FILE,
    TABLES,
    Place,
    attempts,
    is_run_part,
    locate,
    lock_path,
    ranks,
    reason,
    segments,
    shown,
)
from lossdoctor.runs.lock import holder, is_foreign
from lossdoctor.runs.ranks import RANK_COLUMNS, combine
from lossdoctor.runs.recovery import Warn, name_layers, read_events, read_info, read_table
from lossdoctor.runs.tables import Run

__all__ = ["find_runs", "is_run", "place_of", "read_run", "read_state"]

_BEATS = 60.0
"""Seconds after its last heartbeat in which a process of another host counts as alive; it has one every 5 s."""

_MARK = b"lossdoctor.run/"
"""What the beginning of every run.json contains."""


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory, or an attempt or a rank's directory in one. Never raises."""
    try:
        return _judged(Path(path)) is not None
    except OSError:
        return False


def find_runs(path: Path) -> list[Path]:
    """The run directories at or below `path`, sorted. Attempts and ranks are part of their run, not runs.

    Hidden directories are passed over, as is what cannot be listed; a symbolic link is looked at, not followed further.
    """
    found = []
    for directory, names, _ in os.walk(path):
        here = Path(directory)
        if is_run(here):
            found.append(here)
            names[:] = [name for name in names if not is_run_part(name)]
        names[:] = [name for name in names if not name.startswith(".")]
        found += [here / name for name in names if (here / name).is_symlink() and is_run(here / name)]
    return sorted(found)


def read_run(path: Path, columns: Collection[str] | None = None) -> Run:
    """Read the newest attempt in a run directory, or the attempt that `path` names (`runs/x/attempt-1` too).

    What is damaged, cut off or missing is left out and said in `Run.warnings`. A run that is being written is read as
    far as it is written. Columns are float32, `step` and `time` float64; a mask is there only where something was not
    observed. Arrays may be read-only. With `columns`, only these columns of the three tables are read, and `step`;
    memory then grows with what is asked for, not with what was recorded.

    Raises:
        LogError: There is no run to read at `path`.
    """
    path = Path(path)
    try:
        return _read(path, _judged(path) or _refused(path), columns)
    except LogError as error:
        message = f"{shown(path)}: {error}"
        raise LogError(message) from None
    except OSError as error:
        message = f"{shown(path)}: cannot be read ({reason(error)}); check the path and its permissions"
        raise LogError(message) from error


def place_of(path: Path) -> Place:
    """The recording that `path` means: the newest attempt in a run directory, or the attempt or rank it names.

    Raises:
        LogError: There is none.
    """
    return _judged(Path(path)) or _refused(Path(path))


def read_state(place: Place, warn: Warn) -> tuple[RunInfo, bool]:
    """What run.json says of a recording, with the status it really has, and whether it is being written now.

    Raises:
        LogError: A later version of lossdoctor wrote it.
    """
    newest, lock = place.attempt == _recorded(place.root, place.rank)[-1], lock_path(place.root, place.rank)
    live = newest and holder(lock) is not None
    info = read_info(place.directory, warn)
    if info.status == "running" and not live:
        live = newest and is_foreign(lock) and abs(time.time() - (info.heartbeat or 0.0)) < _BEATS
        info.status = "running" if live else "killed"
    return info, live


def _read(path: Path, place: Place, columns: Collection[str] | None) -> Run:
    directory = place.directory
    if columns is not None and (place.rank or ranks(directory)):
        columns = {*columns, *RANK_COLUMNS}
    warnings: list[str] = []

    def warn(sentence: str) -> None:
        warnings.append(f"{shown(path)}: {sentence}.")

    # Asked before anything is read: a run that ends meanwhile is then whole, not killed.
    info, live = read_state(place, warn)
    recorded = _recorded(place.root, place.rank)
    marks, interventions = read_events(directory, warn, live=live)
    resumes = [mark for mark in marks if mark.name == "resume" and mark.segment is not None]
    # Steps last: of a run that is being written, they then reach at least as far as the other tables.
    evaluations, layers, steps = (
        read_table(directory, name, resumes, warn, live=live, columns=columns)
        for name in ("evaluations", "layers", "steps")
    )
    info = name_layers(info, layers, warn)
    if info.fault:
        warn(f"the recording ended before the training did: {info.fault}")
    if info.status == "killed":
        warn("the process ended without closing the run (was it killed?); up to a second of it may be missing")
    if len(recorded) > 1 and (locate(path).root == path or place.root == path):  # no attempt was asked for by name
        others = ", ".join(shown(place.root / f"attempt-{attempt}") for attempt in recorded[:-1])
        plural = "s are" if len(recorded) > 2 else " is"  # noqa: PLR2004  the judged one and another
        warn(f"{len(recorded) - 1} earlier attempt{plural} not judged: {others}")
    run = Run(
        name=_name(place),
        path=directory,
        info=info,
        steps=steps,
        evaluations=evaluations,
        layers=layers,
        interventions=interventions,
        marks=marks,
        warnings=tuple(warnings),
    )
    return run if place.rank else _with_ranks(run, place, columns)


def _with_ranks(run: Run, place: Place, columns: Collection[str] | None) -> Run:
    """The run of rank 0 with what the other ranks' recordings add to it."""
    names = ranks(place.directory)
    if not names and run.info.world_size < 2:  # noqa: PLR2004  no other rank
        return run
    others: list[Run] = []
    warnings = list(run.warnings)
    for rank in names:
        there = Place(place.root, place.attempt, rank)
        try:
            others.append(_read(there.directory, there, columns))
            warnings += others[-1].warnings
        except (LogError, OSError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            warnings.append(f"{shown(there.directory)}: cannot be read ({why}); this rank is left out.")
    missing = run.info.world_size - 1 - len(others)
    if run.info.sharded and missing > 0:
        plural = "ranks are" if missing > 1 else "rank is"
        warnings.append(
            f"{shown(run.path)}: parameters are sharded and {missing} {plural} not recorded; "
            "norms are not known (give every rank's Monitor the same run_dir)."
        )
    return replace(combine(run, others), warnings=tuple(warnings))


def _judged(path: Path) -> Place | None:
    """What `path` means: an attempt or a rank of the run around it, or a run of its own, then its newest attempt."""
    if path.name in {"", ".."}:
        path = Path(os.path.abspath(path))  # noqa: PTH100  the name is wanted, symbolic links are not to be followed
    place = locate(path)
    if place.root != path and _holds_run(path.parent):
        inside = place.directory == path or not path.exists()  # attempt-1 has no directory of that name
        if inside and _holds_run(place.directory):
            return place
    recorded = _recorded(path, 0)
    return Place(path, recorded[-1], 0) if recorded else None


def _recorded(root: Path, rank: int) -> list[int]:
    """The attempts in which this rank recorded something, ascending."""
    return [attempt for attempt in attempts(root) if _holds_run(Place(root, attempt, rank).directory)]


def _holds_run(directory: Path) -> bool:
    """Whether one recording lies right here: a run.json of ours, or segments if that is lost."""
    file = directory / RUN_FILE
    if file.is_file():
        with file.open("rb") as opened:
            if _MARK in opened.read(4_096):
                return True
    return any(segments(directory / table) for table in TABLES)


def _name(place: Place) -> str:
    parts = [place.root.name]
    parts += [f"attempt-{place.attempt}"] if place.attempt > 1 else []
    parts += [f"rank-{place.rank}"] if place.rank else []
    return "/".join(parts)


def _refused(path: Path) -> Place:
    """Say that there is no run at `path`, why, and what to do; the path itself is put before it by the caller."""
    raise LogError(_why_not(path))


def _why_not(path: Path) -> str:
    if not path.exists():
        return "no such file or directory; give the run_dir of the Monitor"
    for parent in path.absolute().parents[:2]:
        if is_run(parent):
            return f"only a part of a run; analyze {shown(parent)}"
    if not path.is_dir():
        return "a file, not a run directory; give the run_dir of the Monitor"
    if not any(path.iterdir()):
        return "an empty directory, nothing was recorded in it; give the run_dir of the Monitor"
    below = find_runs(path)
    if below:
        inside = "there is a run" if len(below) == 1 else f"there are {len(below)} runs"
        return f"no run directory, but {inside} in it; analyze {shown(below[0])}"
    return f"no run directory (neither {RUN_FILE} nor segments in steps/); give the run_dir of the Monitor"
