"""TensorBoard: event files, alone or together in one directory, with the splits that Keras keeps in directories.

A directory is one training, or several: a file that goes on where the one before ended resumes it, a tag whose steps go
back begins another attempt. Tags may count differently (batches here, epochs there): they are laid beside each other by
wall time.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossdoctor.errors import LogError
from lossdoctor.runs.readers.axis import is_cyclic, unwrapped
from lossdoctor.runs.readers.event_files import Scalars, read_scalars
from lossdoctor.runs.readers.log import Log, Series

__all__ = ["FORMAT", "detect", "parts", "read"]

FORMAT = "TensorBoard"

_SPLITS = frozenset({"train", "training", "validation", "val", "valid", "eval", "evaluation", "dev", "test"})
_ENDS = frozenset({"train", "validation", "val", "valid"})
_STAMP = re.compile(r"tfevents\.(\d{9,11})")
_MARK = b"brain.Event:"
_COARSER = 0.5
"""A tag that is at less than this share of the steps of the others at the same time counts something else."""


def detect(path: Path, head: bytes) -> bool:
    """An event file, or a directory with event files in it or in its splits."""
    if path.is_dir():
        return bool(_event_files(path)) or any(_event_files(part) for part in _split_directories(path))
    return _MARK in head[:64] and head[8:12] != b"" and "profile-empty" not in path.name


def parts(path: Path) -> list[Path]:
    """The directories below `path` that are read together with it."""
    return [part for part in (*_split_directories(path), *_added_scalars(path)) if _event_files(part)]


def read(path: Path) -> list[Log]:
    """Read a file, or all files of a directory and of its splits. Raises LogError where there is no scalar."""
    sources = _sources(path)
    try:
        files = [(prefix, read_scalars(file)) for prefix, file in sources]
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    warnings = tuple(
        f"{file}: {scalars.damage}; the rest was read." for (_, file), (_, scalars) in zip(sources, files, strict=True)
        if scalars.damage
    )  # fmt: skip
    points = _merged(files)
    if not len(points.step):
        events = sum(scalars.events for _, scalars in files)
        raise LogError(f"{path}: {events} TensorBoard events, but no scalar among them; log the loss with add_scalar")
    attempts = _attempts(points)
    return [
        _log(path, points.take(rows), "" if len(attempts) == 1 else f"attempt {number}", warnings, resumed)
        for number, (rows, resumed) in enumerate(attempts, 1)
    ]


@dataclass(frozen=True, slots=True)
class _Points:
    """Scalars of several files in the order they were written."""

    tags: Sequence[str]
    tag: npt.NDArray[np.int32]
    step: npt.NDArray[np.float64]
    wall_time: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    file: npt.NDArray[np.int32]

    def take(self, rows: slice | npt.NDArray[np.int64]) -> "_Points":
        return _Points(
            self.tags, self.tag[rows], self.step[rows], self.wall_time[rows], self.value[rows], self.file[rows]
        )


def _event_files(directory: Path) -> list[Path]:
    try:
        found = [file for file in directory.iterdir() if "tfevents" in file.name and file.is_file()]
    except OSError:
        return []
    return [file for file in found if not file.name.endswith((".profile-empty", ".gz", ".zip"))]


def _split_of(path: Path) -> str:
    """The split that a directory's name says: all of the name, or its end, as in run1_val."""
    name = path.name.lower()
    if name in _SPLITS:
        return name
    end = re.split(r"[^a-z]", name)[-1]
    return end if end in _ENDS else ""


def _split_directories(path: Path) -> list[Path]:
    try:
        parts = sorted(part for part in path.iterdir() if part.name.lower() in _SPLITS and part.is_dir())
    except OSError:
        return []
    return parts if any(part.name.lower() not in {"test", "dev"} for part in parts) else []


def _added_scalars(path: Path) -> list[Path]:
    """Directories that SummaryWriter.add_scalars wrote: <tag>_<key>, each with the one tag."""
    if not _event_files(path):
        return []
    known = {part.name for part in _split_directories(path)}
    return sorted(part for part in path.iterdir() if part.is_dir() and part.name not in known and _added_tag(part))


def _added_tag(part: Path) -> str:
    """The tag of a directory made by add_scalars; empty for any other."""
    files = _event_files(part)
    if len(files) != 1 or files[0].stat().st_size > 20_000_000:  # noqa: PLR2004  not one tag in a side directory
        return ""
    try:
        tags = read_scalars(files[0]).tags
    except OSError:
        return ""
    return tags[0] if len(tags) == 1 and part.name.startswith(tags[0].replace("/", "_") + "_") else ""


def _sources(path: Path) -> list[tuple[str, Path]]:
    """Every event file to read, oldest first, with what goes before its tags."""
    if not path.is_dir():
        split = _split_of(path.parent)
        return [(f"{split}/" if split else "", path)]
    split = _split_of(path)
    sources = [(f"{split}/" if split else "", file) for file in _event_files(path)]
    sources += [(f"{part.name.lower()}/", file) for part in _split_directories(path) for file in _event_files(part)]
    for part in _added_scalars(path):
        key = part.name[len(_added_tag(part)) + 1 :]
        sources += [(f"{key}/", file) for file in _event_files(part)]
    return sorted(sources, key=lambda source: (_stamp(source[1]), source[1].name))


def _stamp(file: Path) -> int:
    found = _STAMP.search(file.name)
    return int(found[1]) if found else 0


def _merged(files: Iterable[tuple[str, Scalars]]) -> _Points:
    numbers: dict[str, int] = {}
    columns: list[tuple[npt.NDArray[Any], ...]] = []
    prefixes = set()
    for number, (prefix, scalars) in enumerate(files):
        prefixes.add(prefix)
        names = [tag if tag.lower().startswith(prefix) else prefix + tag for tag in scalars.tags]
        own = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32)
        count = len(scalars.step)
        tag = own[scalars.tag] if count else scalars.tag
        columns.append(
            (tag, scalars.step.astype(np.float64), scalars.wall_time, scalars.value, np.full(count, number, np.int32))
        )
    tag, step, wall_time, value, file = (np.concatenate(column) for column in zip(*columns, strict=True))
    points = _Points(list(numbers), tag.astype(np.int32), step, wall_time, value, file.astype(np.int32))
    if len(prefixes) == 1:
        return points
    # Splits are written side by side. Within a file the order stays, whatever its clock did.
    clock = np.concatenate([np.maximum.accumulate(part[2]) if len(part[2]) else part[2] for part in columns])
    return points.take(np.argsort(clock, kind="stable"))


def _by_tag(points: _Points) -> list[npt.NDArray[np.int64]]:
    """The rows of every tag, in order."""
    order = np.argsort(points.tag, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(points.tag[order])) + 1)


def _attempts(points: _Points) -> list[tuple[npt.NDArray[np.int64], tuple[float, ...]]]:
    """The points of every training, and the steps it was resumed at.

    A tag that goes back to where it began, begins another training. One that goes back to a later step was resumed
    there, and what it had beyond is void.
    """
    falls: list[tuple[int, int, int]] = []
    for number, rows in enumerate(by_tag := _by_tag(points)):
        back = np.flatnonzero(np.diff(points.step[rows]) < 0)
        if not is_cyclic(points.step[rows], back, points.value[rows]) or _files(points, rows) > 1:
            falls += zip(rows[back + 1].tolist(), rows[back].tolist(), [number] * len(back), strict=True)
    kept = np.ones(len(points.step), dtype=np.bool_)
    found: list[tuple[npt.NDArray[np.int64], tuple[float, ...]]] = []
    begin = latest = 0
    resumed: list[float] = []
    for at, before, number in sorted(falls):
        if before < latest:  # another tag has said so
            continue
        latest = at
        if points.file[at] != points.file[before]:  # the other tags of the new file belong to the new attempt too
            latest = max(before + 1, int(np.argmax(points.file == points.file[at])))
        own = points.step[by_tag[number]][: int(np.searchsorted(by_tag[number], at))]
        own = own[np.searchsorted(by_tag[number], begin) :]
        spacing = float(np.median(np.abs(np.diff(own)))) if len(own) > 1 else np.inf
        if points.step[at] == own[0] or points.step[at] < own[0] + 2 * spacing:
            found.append((begin + np.flatnonzero(kept[begin:latest]), tuple(resumed)))
            begin, resumed = latest, []
        else:
            _void(points, by_tag, kept, begin, latest)
            resumed.append(float(points.step[at]))
    found.append((begin + np.flatnonzero(kept[begin:]), tuple(resumed)))
    return found


def _void(
    points: _Points, by_tag: Sequence[npt.NDArray[np.int64]], kept: npt.NDArray[np.bool_], begin: int, seam: int
) -> None:
    """Leave out what each tag has before a seam that is at or beyond its first step after it."""
    for rows in by_tag:
        first = int(np.searchsorted(rows, seam))
        if first < len(rows):
            earlier = rows[int(np.searchsorted(rows, begin)) : first]
            kept[earlier[points.step[earlier] >= points.step[rows[first]]]] = False


def _files(points: _Points, rows: npt.NDArray[np.int64]) -> int:
    return len(np.unique(points.file[rows]))


def _log(path: Path, points: _Points, name: str, warnings: tuple[str, ...], resumed: tuple[float, ...]) -> Log:
    by_tag = {points.tags[int(points.tag[rows[0]])]: rows for rows in _by_tag(points)}
    steps = {tag: _onwards(points.step[rows]) for tag, rows in by_tag.items()}
    reference = max(steps, key=lambda tag: (steps[tag][-1], len(steps[tag])))
    for tag, rows in by_tag.items():
        laid = _laid_beside(steps[tag], points.wall_time[rows], steps[reference], points.wall_time[by_tag[reference]])
        if laid is not None:
            steps[tag] = laid
    every = np.unique(np.concatenate(list(steps.values())))
    series = {}
    for tag, rows in by_tag.items():
        at = np.searchsorted(every, steps[tag])
        series[tag] = _averaged(points.value[rows], at)
    clock = np.full(len(every), np.nan)
    for tag, rows in by_tag.items():
        np.fmin.at(clock, np.searchsorted(every, steps[tag]), points.wall_time[rows])
    rows_at = np.arange(len(every))
    series = {"step": Series(every, rows_at), "wall_time": Series(clock, rows_at)} | {
        tag: column for tag, column in series.items() if tag not in {"step", "wall_time"}
    }
    started = float(np.nanmin(clock)) if not np.isnan(clock).all() else None
    return Log(path, FORMAT, series, len(every), name=name, started=started, warnings=warnings, resumed=resumed)


def _onwards(step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Steps that are counted from 0 again in every epoch, put behind each other."""
    falls = np.flatnonzero(np.diff(step) < 0)
    return unwrapped(step, falls) if len(falls) else step


def _averaged(values: npt.NDArray[np.float64], at: npt.NDArray[np.int64]) -> Series:
    """One value a row: the mean where a tag has several."""
    rows, which, counts = np.unique(at, return_inverse=True, return_counts=True)
    if len(rows) == len(at):
        return Series(values[np.argsort(at, kind="stable")], rows)
    return Series(np.bincount(which, weights=values) / counts, rows)


def _laid_beside(
    step: npt.NDArray[np.float64],
    wall_time: npt.NDArray[np.float64],
    reference: npt.NDArray[np.float64],
    reference_time: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64] | None:
    """The steps of the reference at the times of a tag that counts epochs; None where both count the same."""
    if len(step) < 2 or _counts_alike(step, reference):  # noqa: PLR2004
        return None
    clock = np.maximum.accumulate(reference_time)
    if not np.isfinite(clock).all() or clock[-1] <= clock[0] or not np.isfinite(wall_time).all():
        return None
    expected = np.interp(wall_time, clock, reference)
    late = expected > expected.max() * _COARSER
    if wall_time[-1] - wall_time[0] < _COARSER * (clock[-1] - clock[0]) or not late.any():
        return None  # it ended early: its steps say what they say
    if (step[late] >= _COARSER * expected[late]).any():
        return None
    return np.maximum.accumulate(np.round(expected))


def _counts_alike(step: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> bool:
    """Whether most steps of a tag are steps of the other, and it has about as many."""
    return bool(np.isin(step, reference).mean() > _COARSER and len(step) * 2 > len(reference))
