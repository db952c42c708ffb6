"""Writing files so that they are whole or not there, and long or as they were."""

import errno
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

__all__ = ["append", "append_lines", "replace_file", "write_file"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put a file in its place at once or not at all: temporary file, fsync if `durable`, rename.

    Raises:
        OSError: It cannot be written; the temporary file is removed as far as possible.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with FileIO(temporary, "w") as file:
            _write_all(file, content)
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file as `write_file` does; where the disk has no room for a second one, write over it in place.

    Only a file may be replaced like this whose loss is bearable: a machine that dies meanwhile leaves a mixture.

    Raises:
        OSError: It cannot be written either way; then it is as it was.
    """
    try:
        write_file(path, content, durable=durable)
    except OSError as error:
        if error.errno not in _NO_ROOM or not path.exists():
            raise
        before = path.read_bytes()
        with FileIO(path, "r+") as file:
            try:
                _write_all(file, content)
            except OSError:
                with suppress(OSError):  # what was written over can be written over once more
                    file.seek(0)
                    _write_all(file, before)
                    file.truncate()
                raise
            file.truncate()


def append(path: Path, content: bytes, *, size: int) -> int:
    """Write behind the first `size` bytes, all of the content or nothing, and return the new size.

    With size 0 the file is made and must not exist; else it must.

    Raises:
        OSError: It cannot be written, or it is not there any more.
    """
    with FileIO(path, "r+" if size else "x") as file:
        file.seek(size)
        _write_or_restore(file, content, size)
    return size + len(content)


def append_lines(path: Path, lines: bytes, *, durable: bool = False) -> None:
    """Write whole lines at the end of a file, all or none; it is made if it does not exist.

    Raises:
        OSError: It cannot be written.
    """
    with FileIO(path, "a+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                lines = b"\n" + lines  # a process died inside the last line: keep ours apart from it
        _write_or_restore(file, lines, size)
        if durable:
            os.fsync(file.fileno())


def _write_or_restore(file: FileIO, content: bytes, size: int) -> None:
    try:
        _write_all(file, content)
    except OSError:
        file.truncate(size)
        raise


def _write_all(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
