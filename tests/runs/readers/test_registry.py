"""A path finds its reader, a directory its logs."""

import json
import os

import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import find_logs, is_log, logs_at
from lossdoctor.runs.readers.registry import READERS, reader_of
from tests.runs.readers.eventfile_writer import event, event_file

CSV = "epoch,loss,val_loss\n0,3,4\n1,2,3\n2,1,2\n"


def test_every_reader_has_a_name_and_says_no_to_nothing(tmp_path):
    from importlib import import_module

    (tmp_path / "x").write_bytes(b"hello")
    for name in READERS:
        reader = import_module(f"lossdoctor.runs.readers.{name}")
        assert isinstance(reader.FORMAT, str)
        assert reader.detect(tmp_path / "x", b"hello") is False
        assert reader.detect(tmp_path, b"") is False


def test_content_decides_whatever_the_name(tmp_path):
    for name in ("a.txt", "b.log", "c", "results.dat"):
        (tmp_path / name).write_text(CSV)
        assert reader_of(tmp_path / name) == "tabular"


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02" * 100, b"hello world\n" * 20, b"{", b"[]", b"\xff\xfe", b"a,b\n"]
)
def test_anything_else_is_refused_in_one_line_that_says_what_to_do(tmp_path, content):
    path = tmp_path / "thing"
    path.write_bytes(content)
    assert not is_log(path)
    with pytest.raises(LogError, match=r"thing: (the format is not recognized|an empty file)") as caught:
        logs_at(path)
    assert "\n" not in str(caught.value)


def test_a_named_table_with_unknown_columns_is_read_all_the_same(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("step,foo\n1,2\n2,3\n")
    assert not is_log(path)
    assert logs_at(path)[0].series["foo"].values.tolist() == [2, 3]


def test_every_log_below_a_directory_is_found_once(tmp_path):
    for name in ("a/metrics.csv", "b/c/log.txt", ".hidden/metrics.csv", "a/notes.txt", "a/weights.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a note\n" if "notes" in name else CSV)
    event_file(tmp_path / "tb", *(event(s, loss=1.0) for s in range(3)))
    event_file(tmp_path / "tb", *(event(s, loss=1.0) for s in range(3, 6)), stamp=1_700_000_900)
    (tmp_path / "tb" / "sub").mkdir()
    (tmp_path / "tb" / "sub" / "history.json").write_text(json.dumps({"loss": [1, 2], "val_loss": [1, 2]}))
    assert [str(path.relative_to(tmp_path)) for path in find_logs(tmp_path)] == [
        "a/metrics.csv",
        "b/c/log.txt",
        "tb",
        "tb/sub/history.json",
    ]
    assert find_logs(tmp_path, passing_over=[tmp_path / "a", tmp_path / "b"]) == [
        tmp_path / "tb",
        tmp_path / "tb/sub/history.json",
    ]


def test_loops_of_symbolic_links_and_pipes_do_not_hold_it_up(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "log.csv").write_text(CSV)
    assert find_logs(tmp_path) == [tmp_path / "a" / "log.csv"]
