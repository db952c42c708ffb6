"""Databases of strangers are read, not trusted."""

import sqlite3

import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs import databases


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "a b?#.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE t (x, y); INSERT INTO t VALUES (1, 2); CREATE VIEW v AS SELECT * FROM t")
    connection.close()
    return path


def test_tables_are_told_with_their_columns_and_views_are_not(database):
    assert databases.is_database(database.read_bytes())
    assert databases.tables(database) == {"t": {"x", "y"}}


def test_a_database_cannot_be_written(database):
    with pytest.raises(LogError, match="readonly"), databases.opened(database) as connection:
        connection.execute("INSERT INTO t VALUES (3, 4)")


def test_a_query_without_end_is_ended(database, monkeypatch):
    monkeypatch.setattr(databases, "_SECONDS", 0.2)
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    with pytest.raises(LogError, match="interrupted"), databases.opened(database) as connection:
        connection.execute(endless).fetchall()


def test_a_database_in_use_is_read_with_what_is_in_its_journal(database):
    writer = sqlite3.connect(database)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO t VALUES (3, 4)")
    writer.commit()
    with databases.opened(database) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
    writer.close()


def test_what_is_no_database_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 100)
    assert databases.tables(path) == {}
    with pytest.raises(LogError, match="cannot be read as an SQLite database"), databases.opened(path):
        pass
