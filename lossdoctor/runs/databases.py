"""SQLite files of strangers: opened to be read only, without views, and with an end to the time a query may take."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from lossdoctor.errors import LogError

__all__ = ["is_database", "opened", "tables"]

_MAGIC = b"SQLite format 3\0"
_SECONDS = 300.0
_LONGEST = 50_000_000  # bytes of one cell
_OPERATIONS = 50_000  # of SQLite's machine between two looks at the clock


def is_database(head: bytes) -> bool:
    """Whether a file begins as SQLite files do."""
    return head.startswith(_MAGIC)


def tables(path: Path) -> dict[str, set[str]]:
    """The columns of the tables in a database; empty if it cannot be read."""
    try:
        with opened(path) as connection:
            names = [
                str(name)
                for name, sql in connection.execute(
                    "SELECT name, sql FROM sqlite_master WHERE type = 'table' LIMIT 1000"
                )
                if isinstance(sql, str) and sql.lstrip()[:12].upper() == "CREATE TABLE"  # not a virtual one
            ]
            return {name: set(_columns(connection, name)) for name in names}
    except LogError:
        return {}


def _columns(connection: sqlite3.Connection, table: str) -> Sequence[str]:
    return [str(row[0]) for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Raises LogError for whatever is wrong with the file, then or while it is read."""
    try:
        with closing(_connected(path)) as connection:
            yield connection
    except (sqlite3.Error, UnicodeError, OverflowError, MemoryError) as error:
        reason = str(error).replace("\n", " ")
        raise LogError(
            f"{path}: cannot be read as an SQLite database ({reason}); copy it again from its origin"
        ) from error


def _connected(path: Path) -> sqlite3.Connection:
    try:
        return _connection(path, "mode=ro")
    except sqlite3.OperationalError:
        # Another process's journal cannot be read where nothing may be written; the database as last tidied up can.
        return _connection(path, "mode=ro&immutable=1")


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=5.0)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        end = time.monotonic() + _SECONDS
        connection.set_progress_handler(lambda: int(time.monotonic() > end), _OPERATIONS)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
