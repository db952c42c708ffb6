"""lossdoctor.runs.layout."""

from pathlib import Path

import pytest

from lossdoctor.errors import RunDirectoryError
from lossdoctor.runs.layout import (
    Place,
    attempts,
    closed_name,
    is_run_part,
    is_taken,
    locate,
    lock_path,
    new_run_directory,
    next_number,
    open_name,
    segments,
    shown,
)


def test_segments_are_listed_by_number_and_the_closed_file_wins(tmp_path):
    for name in ("00010.arrow", "00002.arrow", "00002.open.arrow", "100000.open.arrow"):
        (tmp_path / name).touch()
    assert [(one.number, one.closed) for one in segments(tmp_path)] == [(2, True), (10, True), (100_000, False)]


def test_temporary_and_foreign_files_are_no_segments(tmp_path):
    for name in (
        "00001.arrow.tmp",
        "00001.open.arrow.tmp",
        "1.arrow",
        "00001.parquet",
        "x00001.arrow",
        "\u0660" * 5 + ".arrow",
    ):
        (tmp_path / name).touch()
    assert segments(tmp_path) == []


def test_a_directory_that_does_not_exist_has_no_segments(tmp_path):
    assert segments(tmp_path / "steps") == []


def test_the_next_number_is_beyond_every_table(tmp_path):
    assert next_number(tmp_path) == 0
    for table, name in (("steps", closed_name(4)), ("layers", open_name(7)), ("evaluations", closed_name(0))):
        (tmp_path / table).mkdir()
        (tmp_path / table / name).touch()
    assert next_number(tmp_path) == 8


def test_the_directory_itself_is_the_first_attempt(tmp_path):
    for name in ("attempt-3", "attempt-02", "attempt-x", "rank-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "attempt-9").touch()
    assert attempts(tmp_path) == [1, 3]
    assert Place(tmp_path, 1, 0).directory == tmp_path
    assert Place(tmp_path, 3, 2).directory == tmp_path / "attempt-3" / "rank-2"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("runs/x", Place(Path("runs/x"), 1, 0)),
        ("runs/x/attempt-12", Place(Path("runs/x"), 12, 0)),
        ("runs/x/rank-3", Place(Path("runs/x"), 1, 3)),
        ("runs/x/attempt-2/rank-3", Place(Path("runs/x"), 2, 3)),
        ("runs/attempt-0", Place(Path("runs/attempt-0"), 1, 0)),
    ],
)
def test_a_path_is_understood_by_its_name(path, place):
    assert locate(Path(path)) == place


def test_each_rank_has_a_lock_of_its_own():
    assert lock_path(Path("x"), 0) != lock_path(Path("x"), 1)


def test_parts_of_a_run_are_told_from_directories_of_the_user():
    assert all(map(is_run_part, ("steps", "layers", "evaluations", "attempt-2", "rank-1")))
    assert not any(map(is_run_part, ("attempt-2b", "rank", "steps2", "lr-1e-3")))


def test_a_file_a_recording_would_overwrite_takes_the_directory_whoever_wrote_it(tmp_path):
    assert not is_taken(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    assert is_taken(tmp_path)


def test_default_directories_of_the_same_second_differ(tmp_path):
    made = [new_run_directory(tmp_path / "runs") for _ in range(5)]
    assert len(set(made)) == 5
    assert all(path.is_dir() and path.parent == tmp_path / "runs" for path in made)


def test_a_default_directory_below_a_file_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(RunDirectoryError, match="runs is a file; give the Monitor a run_dir"):
        new_run_directory(tmp_path / "runs")


def test_a_path_in_a_message_is_one_printable_line():
    assert shown(Path("läuft/ok")) == "läuft/ok"
    assert shown(Path("a\nb\x1b[31m")) == "a\\nb\\x1b[31m"
    assert shown(Path("bad\udcff")).isprintable()
    assert shown(Path("bad\udcff")).encode("utf-8")
