"""Runs of Weights & Biases as they lie on disk, without its package."""

import json
import math
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import wandb_offline
from tests.runs.readers.fuzzing import damaged, read_or_refuse

RECORDED = Path(__file__).parent / "data" / "run-offline.wandb"
BLOCK = 32768


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    if isinstance(content, float):
        return varint(number << 3 | 1) + struct.pack("<d", content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def history(**values):
    items = b"".join(field(1, field(1, name) + field(16, json.dumps(value))) for name, value in values.items())
    return field(2, items)


def framed(*messages):
    """Messages as LevelDB's log writer puts them into blocks."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for message in messages:
        rest, first = message, True
        while first or rest:
            room = BLOCK - len(out) % BLOCK
            if room < 7:
                out += bytes(room)
                room = BLOCK
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (2 if rest else 1) if first else (3 if rest else 4)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(out)


@pytest.fixture
def run(tmp_path):
    def write(content):
        path = tmp_path / "run-x.wandb"
        path.write_bytes(content)
        return path

    return write


def test_a_file_that_wandb_wrote_is_read_completely():
    assert wandb_offline.detect(RECORDED, RECORDED.read_bytes())
    (log,) = wandb_offline.read(RECORDED)
    loss, step = log.series["train/loss"], log.series["_step"]
    expected = [3 / (i + 1) if i != 7 else math.nan for i in range(20)] + [math.inf]
    assert loss.values.tolist() == pytest.approx(expected, nan_ok=True)
    assert log.series["val_loss"].values.tolist() == pytest.approx([3.1 / (i + 1) for i in (0, 5, 10, 15)])
    assert log.series["nested.a"].values.tolist() == list(range(20))
    assert (step.values[0], step.values[-1]) == (0, 100)
    assert "note" not in log.series
    assert "flag" not in log.series
    assert log.name == "brave"
    assert log.config == {"lr": 0.1, "model": {"width": 3}}
    assert log.started == pytest.approx(1795351226.9, abs=0.1)


def test_records_over_several_blocks_are_put_together(run):
    long = "x" * 100_000
    path = run(framed(*(history(loss=i / 10, _step=i, text=long) for i in range(8))))
    (log,) = wandb_offline.read(path)
    assert log.series["loss"].values.tolist() == [i / 10 for i in range(8)]


def test_old_and_new_ways_to_write_a_value_are_read_alike(run):
    nested = field(2, field(1, field(2, "a") + field(2, "loss") + field(16, "0.5")) + field(2, field(1, 7)))
    typed = field(
        2, field(1, field(2, "a") + field(2, "loss") + field(6, 0.25)) + field(1, field(2, "n") + field(5, 5))
    )
    (log,) = wandb_offline.read(run(framed(nested, typed)))
    assert log.series["a.loss"].values.tolist() == [0.5, 0.25]
    assert log.series["_step"].values.tolist() == [7]
    assert log.series["n"].values.tolist() == [-3]


def test_not_finite_values_are_kept(run):
    (log,) = wandb_offline.read(run(framed(history(loss="NaN"), history(loss="Infinity"), history(loss=math.nan))))
    assert log.series["loss"].values.tolist() == pytest.approx([math.nan, math.inf, math.nan], nan_ok=True)


def test_a_torn_end_loses_only_the_torn_record(run):
    whole = framed(*(history(loss=float(i)) for i in range(10)))
    (log,) = wandb_offline.read(run(whole[:-3]))
    assert log.series["loss"].values.tolist() == list(range(9))
    assert not log.warnings


def test_a_damaged_record_costs_its_block_and_is_reported(run):
    content = bytearray(framed(*(history(loss=float(i), pad="x" * 8000) for i in range(20))))
    content[9000] ^= 1
    (log,) = wandb_offline.read(run(bytes(content)))
    assert log.series["loss"].values.tolist() == [0, *range(5, 20)]  # the fifth begins in the block
    assert "damaged near byte" in log.warnings[0]


def test_a_run_that_logged_nothing_is_read_by_what_it_printed(run):
    printed = [field(4, field(3, f"step {i}: loss {3 - i}\n")) for i in range(3)]
    (log,) = wandb_offline.read(run(framed(*printed)))
    assert log.series["loss"].values.tolist() == [3, 2, 1]


def test_curves_that_lie_elsewhere_are_said_to(run):
    with pytest.raises(LogError, match=r"TensorBoard's, in runs/tb"):
        wandb_offline.read(run(framed(field(9, field(1, "runs/tb")))))


def test_the_directory_of_a_run_is_read_by_its_file(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "wandb-summary.json").write_text("{}")
    assert wandb_offline.detect(tmp_path, b"")
    with pytest.raises(LogError, match="only the last values"):
        wandb_offline.read(tmp_path)
    (tmp_path / "files" / "output.log").write_text("step 1: loss 2\nstep 2: loss 1\n")
    assert wandb_offline.read(tmp_path)[0].series["loss"].values.tolist() == [2, 1]
    (tmp_path / "run-abc.wandb").write_bytes(framed(history(loss=5.0)))
    assert wandb_offline.read(tmp_path)[0].series["loss"].values.tolist() == [5]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged(RECORDED.read_bytes()))
def test_a_damaged_file_is_read_or_refused(tmp_path, content):
    path = tmp_path / "run-x.wandb"
    path.write_bytes(content)
    read_or_refuse(path)


def test_claimed_lengths_are_not_believed(run):
    huge = field(2, varint(1 << 3 | 2) + varint(1 << 60) + b"x")
    with pytest.raises(LogError):
        wandb_offline.read(run(framed(huge)))


@pytest.mark.filterwarnings("default")  # theirs
def test_what_wandb_writes_today_is_read(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="p", dir=tmp_path, config={"lr": 0.1}, settings=wandb.Settings(console="off")) as run:
        for step in range(5):
            run.log({"train/loss": 1 / (step + 1), "inner": {"a": step}})
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    (log,) = wandb_offline.read(path)
    assert log.series["train/loss"].values.tolist() == [1 / (step + 1) for step in range(5)]
    assert log.series["_step"].values.tolist() == list(range(5))
    assert log.series["inner.a"].values.tolist() == list(range(5))
    assert log.config["lr"] == 0.1
