"""Text that is damaged or meant to harm is read or refused, quickly and in little memory."""

import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossdoctor.errors import LogError
from lossdoctor.runs.printed.lines import lines
from lossdoctor.runs.printed.parser import Parser
from lossdoctor.runs.readers import text
from tests.runs.readers.fuzzing import damaged, read_or_refuse
from tests.runs.readers.printed_logs import EXPECTED, printed

CONTENTS = [printed(program) for program in EXPECTED]
GOOD = "step 1: loss 3\nstep 2: loss 2\n"
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=150, **SLOW)
@given(st.sampled_from(CONTENTS).flatmap(damaged))
def test_damaged_text_is_read_or_refused(tmp_path, content):
    path = tmp_path / "train.log"
    path.write_bytes(content)
    read_or_refuse(path)


@settings(max_examples=100, **SLOW)
@given(
    st.lists(
        st.sampled_from(
            [
                "step",
                "loss",
                "val",
                "epoch",
                ":",
                "=",
                " ",
                "|",
                "[",
                "]",
                "/",
                "(",
                "1",
                "2.5",
                "nan",
                "{'",
                "'}",
                "%|",
                "\t",
                "\n",
                "\r",
                "- ",
                "99",
            ]
        ),
        max_size=80,
    )
)
def test_any_words_in_any_order_are_read_or_refused(tmp_path, words):
    path = tmp_path / "train.log"
    path.write_text(GOOD + "".join(words))
    read_or_refuse(path)


@pytest.mark.parametrize(
    "line",
    [
        "9" * 60_000,
        "step " + "1" * 60_000 + "x loss 2",
        "1:" * 30_000,
        "[" * 60_000,
        " " * 60_000 + "loss",
        "loss " * 12_000,
        "step 1 " + "".join(f"k{i}: 1.5 " for i in range(5_000)),
        "{" * 60_000,
        '{"a":' * 10_000 + "1" + "}" * 10_000,
        "{'" + "a': {'" * 9_000 + "}",
        "1%|" * 20_000,
        "50%|" + "x" * 60_000,
        " - " * 20_000 + "1",
        "2020-01-01" * 6_000,
        "1.1.1." * 10_000,
        "\x1b[" * 30_000,
        "\b" * 60_000,
        "1,000" * 12_000,
        "(" * 30_000 + ")" * 30_000,
        "epoch  loss  " * 5_000,
    ],
    ids=lambda line: repr(line[:12]),
)
def test_no_line_takes_long(line, tmp_path):
    path = tmp_path / "train.log"
    path.write_text(GOOD + f"{line}\n" * 3)
    begin = time.process_time()
    (log,) = text.read(path)
    assert time.process_time() - begin < 2
    assert log.series["loss"].values.tolist()[:2] == [3, 2]


def test_a_line_without_end_is_not_kept_in_memory(tmp_path):
    path = tmp_path / "train.log"
    with path.open("wb") as file:
        file.write(GOOD.encode())
        for _ in range(30):
            file.write(b"x" * 1_000_000)
        file.write(b"\nstep 3: loss 1\n")
    tracemalloc.start()
    read = list(lines(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == ["step 1: loss 3", "step 2: loss 2", "step 3: loss 1"]
    assert peak < 12_000_000


def test_names_that_never_repeat_do_not_pile_up(tmp_path):
    path = tmp_path / "train.log"
    path.write_text("".join(f"step {i}: n{i}_loss {i}\n" for i in range(20_000)))
    begin = time.process_time()
    (log,) = text.read(path)
    assert time.process_time() - begin < 10
    assert len(log.series) < 6_000
    assert "columns" in log.warnings[0]


def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(LogError, match="cannot be read"):
        text.read(tmp_path / "none.log")


@pytest.mark.parametrize("program", EXPECTED)
def test_lines_read_by_a_template_say_what_they_say_word_by_word(program, monkeypatch):
    def rows(lines_):
        parser = Parser()
        for line in lines_:
            parser.feed(line)
        parser.close()
        series = {
            name: (one.at.tolist(), [repr(v) for v in one.values]) for name, one in parser.columns.series().items()
        }
        return series, [repr(list(column)) for column in (parser.epoch, parser.step, parser.batch, parser.total)]

    repeated = [line for _ in range(3) for line in printed(program).decode().splitlines()]
    by_template = rows(repeated)
    monkeypatch.setattr(Parser, "_remember", lambda *_: None)
    assert by_template == rows(repeated)
