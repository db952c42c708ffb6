"""lossdoctor.runs.documents."""

import enum
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.runs.documents import decode_event, decode_info, encode_event, encode_info, plain
from lossdoctor.runs.events import FindingEvent, Intervention, Mark
from lossdoctor.runs.info import GroupInfo, LayerInfo, ModelInfo, OptimizerInfo, RunInfo


class Unprintable:
    def __str__(self):
        raise RuntimeError


class Colour(enum.Enum):
    RED = 1


def test_run_json_comes_back_as_it_was():
    group = GroupInfo(parameters=10, tensors=2, learning_rate=math.inf, momentum=math.nan)
    layer = LayerInfo(name="NaN", type="Linear", parameters=10, trainable=0)
    info = RunInfo(
        name="NaN",
        config={"lr": 1e-3, "limits": [math.inf, -math.inf], "nested": {"flag": True, "none": None}},
        flags={"tf32": True, "mode": "true"},
        seeds={"torch": 2**63 - 1},
        model=ModelInfo(type="Net", layers=[layer], dropout=0.5),
        optimizers=[OptimizerInfo(type="SGD", groups=[group])],
    )
    back = decode_info(encode_info(info))
    assert repr(back) == repr(info)  # repr: NaN equals nothing


def test_run_json_is_indented_text_that_begins_with_its_schema():
    assert encode_info(RunInfo()).startswith(b'{\n  "schema": "lossdoctor.run/1",\n')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Path("a/b"), "a/b"),
        (Colour.RED, "Colour.RED"),
        (datetime(2025, 1, 2, tzinfo=UTC), "2025-01-02 00:00:00+00:00"),
        (2**70, str(2**70)),
        (b"\x00", "b'\\x00'"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (float("-inf"), "-Infinity"),
        ("bad\udcff", "bad\\udcff"),
        (Unprintable(), "<Unprintable>"),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        ("x" * 5_000, "x" * 5_000),
    ],
)
def test_a_configuration_may_hold_anything(value, text):
    assert plain(value) == text
    encode_info(RunInfo(config={"value": value}))


def test_a_configuration_that_contains_itself_is_written_to_a_finite_depth():
    config = {}
    config["me"] = config
    assert len(encode_info(RunInfo(config=config))) < 10_000


def test_a_non_finite_dropout_survives():
    assert math.isnan(decode_info(encode_info(RunInfo(model=ModelInfo(dropout=math.nan)))).model.dropout)


@pytest.mark.parametrize(
    "event",
    [
        Mark(name="resume", step=10.0, time=1.5, segment=3),
        Mark(name="exception", step=1.0, time=2.0, detail="NaN\nsecond line \udcff"),
        FindingEvent(rule="r", severity="error", since=1.0, detected=2.0, message="null", step=3.0, time=4.0),
        Intervention(
            id=1,
            step=2.0,
            time=3.0,
            rule="r",
            action="a",
            reason="Infinity",
            changes={"learning_rate": (1.0, math.inf)},
        ),
    ],
)
def test_an_event_is_one_line_and_comes_back_as_it_was(event):
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert repr(decode_event(line)) == repr(event).replace("\\udcff", "\\\\udcff")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"kind": "later"}', b'{"kind": "mark"}', b"[" * 100_000])
def test_what_is_no_event_is_a_value_error(data):
    with pytest.raises(ValueError):
        decode_event(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"attempt": "x"}', b"[" * 100_000])
def test_what_is_no_run_json_is_a_value_error(data):
    with pytest.raises(ValueError):
        decode_info(data)
