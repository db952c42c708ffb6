"""A file's lines, whatever wrote them."""

import pytest

from lossdoctor.runs.printed import lines as module
from lossdoctor.runs.printed.lines import as_text, lines


@pytest.fixture
def read(tmp_path):
    def from_bytes(content):
        path = tmp_path / "x.log"
        path.write_bytes(content)
        return list(lines(path))

    return from_bytes


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\r\n", b"\b\b\b", b"\n\n"])
def test_any_end_of_a_line_is_one(end, read):
    assert read(b"one" + end + b"two" + end + b"three") == ["one", "two", "three"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_lines_are_the_same_however_the_file_is_cut(chunk, read, monkeypatch):
    content = "step 1: lôss 2 █\r\nstep 2\rstep 3\n\nend".encode()
    whole = read(content)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    assert read(content) == whole == ["step 1: lôss 2 █", "step 2", "step 3", "end"]


def test_only_too_long_lines_are_left_out(read, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1000)
    long = b"x" * (module.MAX_LINE + 1)
    assert read(b"a\n" + long + b"\nb\n" + b"y" * module.MAX_LINE + b"\nc" + long) == ["a", "b", "y" * module.MAX_LINE]


def test_colours_and_titles_are_taken_out(read):
    assert read(b"\x1b[1mstep\x1b[0m 1\x1b[A\n\x1b]0;title\x07loss\n") == ["step 1", "loss"]


def test_a_few_bytes_of_another_encoding_do_not_make_a_text_binary():
    assert as_text("Verlust: 2.0, Übung 3".encode("latin-1") * 10) is not None
    assert as_text(bytes(range(256)) * 10) is None
    assert as_text("step 1: loss 2\n".encode("utf-16") * 3) is not None
