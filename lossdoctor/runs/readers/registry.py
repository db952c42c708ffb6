"""Every format lossdoctor reads, and how a path finds its reader.

A reader is a module with FORMAT (its name for people), detect(path, head) (cheap, by content; `head` is the first 64
kB of a file, empty for a directory) and read(path), which returns the trainings as logs or raises LogError. It may have
parts(path): the directories that are read together with a directory, and could_be(path, head): whether a file that no
detect knows might be read if somebody insists. Modules are imported when one is asked.
"""

import os
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from lossdoctor.errors import LogError
from lossdoctor.runs.readers.log import Log

__all__ = ["READERS", "Reader", "find_logs", "is_log", "logs_at", "reader_of"]

HEAD = 65_536
"""Bytes of a file by which its reader is found."""

READERS = (
    # Stores and files that name themselves.
    *("tensorboard", "wandb_offline", "mlflow", "dvclive", "trackio", "sacred"),
    # Files that are named after what they hold; JSON, tables, and at last what anybody prints.
    *("bare_numbers", "json_documents", "json_lines", "tabular", "text"),
)
"""Modules of this package, in the order they are asked: what is recognized surely before what is recognized broadly."""

_POINTER = b"version https://git-lfs.github.com/spec/v1"
_NO_LOGS = frozenset(
    {
        *(".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".onnx", ".npy", ".npz", ".h5", ".hdf5", ".pb", ".index"),
        *(
            ".png",
            ".jpg",
            ".jpeg",
            ".gif",
            ".webp",
            ".svg",
            ".pdf",
            ".mp4",
            ".wav",
            ".zip",
            ".gz",
            ".tar",
            ".xz",
            ".bz2",
        ),
        *(".py", ".pyc", ".ipynb", ".html", ".js", ".css", ".md", ".rst", ".arrow", ".parquet", ".pkl", ".pickle"),
        *(".so", ".o", ".c", ".cpp", ".cu", ".h", ".toml", ".lock", ".yaml", ".yml", ".sh", ".tmp", ".swp", ".model"),
    }
)
"""Ends of files that are not opened when a directory is searched; named by themselves they are."""
_CHECKPOINT = "checkpoint-"


class Reader(Protocol):
    """A module that reads one format, or a family."""

    FORMAT: str

    def detect(self, path: Path, head: bytes) -> bool:
        """Whether this reader is the one for a path."""

    def read(self, path: Path) -> list[Log]:
        """The trainings in it."""


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    """The readers that are installed."""
    return tuple(name for name in READERS if find_spec(f"{__package__}.{name}") is not None)


def _reader(name: str) -> Reader:
    return cast("Reader", import_module(f"{__package__}.{name}"))


def reader_of(path: Path) -> str | None:
    """The name of the reader for a file or directory; None where nobody knows it. Never raises."""
    try:
        head = b"" if path.is_dir() else _head(path)
    except OSError:
        return None
    if not head and not path.is_dir():
        return None
    for name in _names():
        try:
            if _reader(name).detect(path, head):
                return name
        except (OSError, ValueError, RecursionError):  # what cannot be looked at is not this format
            continue
    return None


def _likely_reader(path: Path) -> str | None:
    """The reader for a file that somebody says is a log, though none of its columns has a name that would tell."""
    try:
        head = b"" if path.is_dir() else _head(path)
    except OSError:
        return None
    for name in _names() if head else ():
        could_be = getattr(_reader(name), "could_be", None)
        if could_be is not None and could_be(path, head):
            return name
    return None


def is_log(path: Path) -> bool:
    """Whether there is a reader for a path."""
    return reader_of(path) is not None


def logs_at(path: Path) -> list[Log]:
    """Read the trainings in a log that is not ours. Raises LogError with file, place and remedy."""
    name = reader_of(path) or _likely_reader(path)
    if name is None:
        raise LogError(_refusal(path))
    try:
        return _reader(name).read(path)
    except LogError:
        raise
    except OSError as error:
        raise LogError(
            f"{path}: cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    except MemoryError:
        raise LogError(f"{path}: too large for this machine's memory; give a part of it") from None


def find_logs(root: Path, *, passing_over: Collection[Path] = ()) -> list[Path]:
    """Every log at or below a directory, sorted, but nothing in the directories `passing_over`.

    Hidden directories and symbolic links to directories are not looked into. Of the copies that a Trainer leaves in its
    checkpoints only the newest counts, and none beside its own.
    """
    return sorted(_without_copies(list(_walked(root, frozenset(passing_over)))))


def _walked(root: Path, passed_over: Collection[Path]) -> Iterator[Path]:
    taken: set[Path] = set()
    for directory, names, files in os.walk(root):
        here = Path(directory)
        if here in passed_over:
            names[:] = []
            continue
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "__pycache__")
        found = None if here in taken else reader_of(here)
        if found is not None:
            yield here
            parts = getattr(_reader(found), "parts", None)
            if parts is None:
                names[:] = []  # a store keeps everything below itself
                continue
            taken.update(parts(here))
        for name in sorted(files):
            file = here / name
            if (found or here in taken) and "tfevents" in name:
                continue
            if file.suffix.lower() not in _NO_LOGS and not name.startswith(".") and is_log(file):
                yield file


def _without_copies(paths: list[Path]) -> list[Path]:
    """The paths without what lies in older checkpoints of the same training."""
    newest: dict[tuple[Path, str], int] = {}
    for path in paths:
        if (number := _checkpoint(path)) is not None:
            key = (path.parent.parent, path.name)
            newest[key] = max(newest.get(key, -1), number)
    own = {(path.parent, path.name) for path in paths}
    kept = []
    for path in paths:
        key = (path.parent.parent, path.name)
        number = _checkpoint(path)
        if number is None or (key not in own and newest[key] == number):
            kept.append(path)
    return kept


def _checkpoint(path: Path) -> int | None:
    name = path.parent.name
    number = name.removeprefix(_CHECKPOINT)
    return int(number) if name.startswith(_CHECKPOINT) and number.isdecimal() and len(number) < 19 else None  # noqa: PLR2004


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of a pipe or a device, which would hold up whoever opens it."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD)


def _refusal(path: Path) -> str:
    """Why nobody reads a path, and what to do."""
    if not path.exists():
        return f"{path}: no such file or directory"
    if path.is_dir():
        return (
            f"{path}: no run of a Monitor and no log in this directory; give the directory or file a training logs to"
        )
    try:
        head = _head(path)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}; check the path and its permissions"
    if not head.strip():
        return f"{path}: an empty file"
    if head.startswith(_POINTER):
        return f"{path}: a Git LFS pointer, not the file itself; fetch it with: git lfs pull"
    formats = ", ".join(dict.fromkeys(_reader(name).FORMAT for name in _names()))
    return (
        f"{path}: the format is not recognized (tried: {formats}); a CSV or JSON-lines file with a column 'step' or "
        "'epoch' and one like 'loss' or 'val_loss' can always be read"
    )
