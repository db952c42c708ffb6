"""Where things are in a run directory: the names of files, segments, attempts and ranks.

    runs/baseline/
      run.json  events.jsonl  .lock
      steps/00000.arrow  steps/00001.open.arrow     layers/…  evaluations/…
      rank-1/…                                      the same for another rank
      attempt-2/…                                   the same for a later training in the same directory

The directory itself is attempt 1, and `attempt-1` is understood as a name for it.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lossdoctor.errors import RunDirectoryError

__all__ = [
    "EVENTS_FILE",
    "RUN_FILE",
    "TABLES",
    "Place",
    "Segment",
    "attempt_directory",
    "attempts",
    "closed_name",
    "default_run_directory",
    "is_run_part",
    "is_taken",
    "locate",
    "lock_path",
    "new_run_directory",
    "next_number",
    "open_name",
    "rank_directory",
    "ranks",
    "reason",
    "segments",
    "shown",
]

RUN_FILE = "run.json"
EVENTS_FILE = "events.jsonl"
TABLES = ("steps", "layers", "evaluations")

_SEGMENT = re.compile(r"(\d{5,9})(\.open)?\.arrow", re.ASCII)
_ATTEMPT = re.compile(r"attempt-([1-9]\d{0,8})", re.ASCII)
_RANK = re.compile(r"rank-([1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file of consecutive rows of one table. `closed` segments are complete and never change."""

    number: int
    closed: bool
    path: Path


@dataclass(frozen=True, slots=True)
class Place:
    """One rank's recording of one attempt in a run directory."""

    root: Path
    attempt: int
    rank: int

    @property
    def directory(self) -> Path:
        """Where its rows are."""
        return rank_directory(attempt_directory(self.root, self.attempt), self.rank)


def closed_name(number: int) -> str:
    """File name of a complete segment: `00003.arrow`."""
    return f"{number:05d}.arrow"


def open_name(number: int) -> str:
    """File name of the segment being written: `00003.open.arrow`."""
    return f"{number:05d}.open.arrow"


def segments(directory: Path) -> list[Segment]:
    """The segments of one table in order; where a number has a closed and an open file, only the closed one.

    Temporary and foreign files are left out. Empty where the directory does not exist; other faults raise OSError.
    """
    found: dict[int, Segment] = {}
    try:
        paths = list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    for path in paths:
        match = _SEGMENT.fullmatch(path.name)
        if match is None:
            continue
        segment = Segment(int(match[1]), closed=match[2] is None, path=path)
        if segment.closed or segment.number not in found:
            found[segment.number] = segment
    return [found[number] for number in sorted(found)]


def next_number(attempt: Path) -> int:
    """The first segment number that no table of this attempt has used."""
    return 1 + max((segment.number for table in TABLES for segment in segments(attempt / table)), default=-1)


def attempt_directory(root: Path, attempt: int) -> Path:
    """The directory of an attempt: the run directory itself for the first."""
    return root if attempt == 1 else root / f"attempt-{attempt}"


def locate(path: Path) -> Place:
    """What a path means, going by its name.

    >>> locate(Path("runs/x/attempt-2/rank-1"))
    Place(root=PosixPath('runs/x'), attempt=2, rank=1)
    >>> locate(Path("runs/x"))
    Place(root=PosixPath('runs/x'), attempt=1, rank=0)
    """
    attempt, rank = 1, 0
    if match := _RANK.fullmatch(path.name):
        path, rank = path.parent, int(match[1])
    if match := _ATTEMPT.fullmatch(path.name):
        path, attempt = path.parent, int(match[1])
    return Place(path, attempt, rank)


def attempts(root: Path) -> list[int]:
    """The attempts that have a place in a run directory, ascending; the first always has one."""
    try:
        matches = [_ATTEMPT.fullmatch(path.name) for path in root.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return [1]
    return sorted({1, *(int(match[1]) for match in matches if match is not None)})


def rank_directory(attempt: Path, rank: int) -> Path:
    """The directory in which a rank writes: the attempt's own for rank 0."""
    return attempt if rank == 0 else attempt / f"rank-{rank}"


def ranks(attempt: Path) -> list[int]:
    """The ranks other than 0 that have a directory in an attempt, ascending."""
    try:
        matches = [_RANK.fullmatch(path.name) for path in attempt.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(match[1]) for match in matches if match is not None)


def is_run_part(name: str) -> bool:
    """Whether a directory of this name inside a run belongs to that run."""
    return name in TABLES or _ATTEMPT.fullmatch(name) is not None or _RANK.fullmatch(name) is not None


def is_taken(directory: Path) -> bool:
    """Whether a directory holds files a new recording would mix with or overwrite, whoever wrote them."""
    if any(os.path.lexists(directory / name) for name in (RUN_FILE, EVENTS_FILE)):
        return True
    return any(segments(directory / table) for table in TABLES)


def lock_path(root: Path, rank: int) -> Path:
    """The lock a writer of this rank holds, whichever attempt it writes."""
    return root / (".lock" if rank == 0 else f".lock-{rank}")


def default_run_directory(rank: int = 0) -> Path | None:
    """Where a run that was given no directory is recorded: LOSSDOCTOR_RUN_DIR if it is set, else a new one.

    None for a rank other than 0 without LOSSDOCTOR_RUN_DIR: it cannot know the directory rank 0 made without asking,
    and nothing here waits for another process.

    Raises:
        RunDirectoryError: It cannot be made.
    """
    named = os.environ.get("LOSSDOCTOR_RUN_DIR")
    if named:
        return Path(named)
    return None if rank else new_run_directory()


def new_run_directory(parent: Path = Path("runs")) -> Path:
    """Make a directory for a run that was given none: `runs/20250131-235959`, with `-2` … if that is taken.

    Making it is what claims the name, so trainings that start in the same second get directories of their own.

    Raises:
        RunDirectoryError: It cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for name in _numbered(stamp):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            (parent / name).mkdir()
        except FileExistsError:
            if parent.is_dir():
                continue
            message = f"{shown(parent)} is a file; give the Monitor a run_dir of your choice"
            raise RunDirectoryError(message) from None
        except OSError as error:
            message = f"cannot make {shown(parent / name)} ({reason(error)}); give the Monitor a run_dir it can write"
            raise RunDirectoryError(message) from error
        return parent / name
    raise AssertionError  # the names never end


def _numbered(stem: str) -> Iterator[str]:
    """`stem`, `stem-2`, `stem-3`, …."""
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


def shown(path: Path) -> str:
    """A path fit for a one-line message: control characters and undecodable bytes escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason(error: OSError) -> str:
    """What the operating system says, in lower case and without the path: `no space left on device`."""
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
