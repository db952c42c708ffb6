"""lossdoctor.runs.files."""

import errno

import pytest

from lossdoctor.runs import files as module
from lossdoctor.runs.files import append, append_lines, replace_file, write_file


class FullDisk(module.FileIO):
    """A file on a disk that takes five more bytes."""

    room = 5

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(data[: self.room])
        self.room -= written
        return written


class FullBlocks(module.FileIO):
    """A file that has five bytes on a full disk, which can be written again."""

    def write(self, data):
        if self.tell() >= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[: 5 - self.tell()])


@pytest.fixture
def full_disk(monkeypatch):
    """From now on every file opened takes five bytes."""
    return lambda: monkeypatch.setattr(module, "FileIO", FullDisk)


def test_a_file_is_replaced_whole(tmp_path):
    write_file(tmp_path / "a", b"first")
    write_file(tmp_path / "a", b"second", durable=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"second")]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path, full_disk):
    write_file(tmp_path / "a", b"first")
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "a", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]


def test_where_there_is_no_room_for_a_second_file_the_first_is_written_over(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"long and old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_file", full)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    monkeypatch.setattr(module, "FileIO", FullBlocks)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"longer than five bytes")
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "none", b"new")


def test_appending_is_all_or_nothing(tmp_path, full_disk):
    assert append(tmp_path / "a", b"123", size=0) == 3
    assert append(tmp_path / "a", b"456", size=3) == 6
    full_disk()
    assert append(tmp_path / "a", b"78901", size=6) == 11
    with pytest.raises(OSError, match="No space left"):
        append(tmp_path / "a", b"234567", size=11)
    assert (tmp_path / "a").read_bytes() == b"12345678901"


def test_a_file_that_vanished_is_not_made_anew(tmp_path):
    append(tmp_path / "a", b"123", size=0)
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "a", b"456", size=3)


def test_a_file_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError):
        append(tmp_path / "a", b"123", size=0)


def test_lines_are_kept_apart_from_a_torn_one(tmp_path, full_disk):
    append_lines(tmp_path / "a", b"one\n")
    append_lines(tmp_path / "a", b"two\nthree\n", durable=True)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\nthree\n"
    (tmp_path / "a").write_bytes(b"one\ntw")
    append_lines(tmp_path / "a", b"three\n")
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        append_lines(tmp_path / "a", b"four\nfive\n")
    assert (tmp_path / "a").read_bytes() == b"one\ntw\nthree\n"
