"""Real logs from public repositories, where they are at hand: read right, judged as a person judged them."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2

from lossdoctor.diagnosis import diagnose
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.readers import find_logs, logs_at, runs_of

LOGS = Path(__file__).parent.parent.parent / "shared" / "real_logs"
MANIFEST = LOGS / "manifest.json"
ENTRIES = {entry["id"]: entry for entry in json.loads(MANIFEST.read_text())} if MANIFEST.is_file() else {}

pytestmark = pytest.mark.skipif(not ENTRIES, reason="the real logs are not part of the repository")

VERDICTS = {"nan": {"non_finite_loss", "divergence"}, "overfitting": {"overfitting"}}
"""What a label demands. A run that is too short or too noisy may be undecided, and nothing more."""


@pytest.fixture(scope="module")
def rulebook():
    return Rulebook.load()


def runs(name):
    return [run for path in find_logs(LOGS / name) for log in logs_at(path) for run in runs_of(log)]


def column(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.columns[name].values[table.columns[name].mask()]


def steps(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.step[table.columns[name].mask()]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_log_is_one_run(name):
    expected = 2 if name == "mmdet_1rec" else 1  # the same run as JSON and as text
    assert len(runs(name)) == expected
    assert not [warning for run in runs(name) for warning in run.warnings]


@pytest.mark.parametrize("name", ENTRIES)
def test_the_diagnosis_agrees_with_the_label(name, rulebook):
    labels = {*ENTRIES[name]["your_label"]}
    for run in runs(name):
        diagnosis = diagnose(run, rulebook)
        grave = [finding.rule for finding in diagnosis.findings if finding.severity in {"warning", "error"}]
        demanded = [VERDICTS[label] for label in labels if label in VERDICTS]
        if demanded:
            assert any(diagnosis.verdict in verdicts for verdicts in demanded), diagnosis.verdict
        elif not labels & {"underfitting"}:
            assert grave == []
            assert diagnosis.verdict in {"healthy", "undecided"}


@pytest.mark.parametrize(
    ("one", "other"), [("hf_nsllm", "llamafactory_nsllm"), ("d2_metrics_pothole", "tb_detectron2_pothole")]
)
def test_a_run_in_two_formats_has_one_diagnosis(one, other, rulebook):
    (first,), (second,) = runs(one), runs(other)
    assert first.steps.step.tolist() == second.steps.step.tolist()
    assert column(first, "train_loss") == pytest.approx(column(second, "train_loss"), rel=1e-6)
    assert diagnose(first, rulebook).verdict == diagnose(second, rulebook).verdict


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry["format"] == "algoperf_csv"])
def test_algoperf_rows_are_those_of_the_file(name):
    with (LOGS / name / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    (run,) = runs(name)
    training = [row for row in rows if row["loss"] or not any(v for k, v in row.items() if k != "global_step")]
    expected = [float(row["loss"] or "nan") for row in training]
    assert steps(run, "train_loss").tolist() == [float(row["global_step"]) for row in training]
    np.testing.assert_allclose(column(run, "train_loss"), np.array(expected, dtype=np.float32))
    evaluated = [row for row in rows if row["validation/loss"]]
    assert steps(run, "val_loss").tolist() == [float(row["global_step"]) for row in evaluated]
    assert column(run, "val_loss") == pytest.approx([float(row["validation/loss"]) for row in evaluated])


def test_blank_losses_of_a_run_that_broke_are_nan():
    (run,) = runs("ap_criteo_embed_shampoo")
    assert int(np.isnan(column(run, "train_loss")).sum()) == 83


def test_event_files_hold_what_tensorboards_own_reader_finds():
    for name, tag, signal in (
        ("tb_ap_criteo_genadam", "loss", "train_loss"),
        ("tb_ap_criteo_genadam", "validation/loss", "val_loss"),
        ("tb_detectron2_pothole", "total_loss", "train_loss"),
        ("tb_detectron2_pothole", "lr", "learning_rate"),
    ):
        (file,) = (LOGS / name).glob("*tfevents*")
        found = []
        for record in RawEventFileLoader(str(file)).Load():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                if value.tag == tag:
                    tensor = value.tensor
                    number = value.simple_value
                    if value.WhichOneof("value") == "tensor":
                        number = (
                            np.frombuffer(tensor.tensor_content, np.float32)[0]
                            if tensor.tensor_content
                            else tensor.float_val[0]
                        )
                    found.append((event.step, number))
        (run,) = runs(name)
        np.testing.assert_allclose(column(run, signal), [number for _, number in found], rtol=1e-6)
        assert steps(run, signal).tolist() == [step for step, _ in found]


def test_lines_of_json_are_those_of_the_file():
    rows = [json.loads(line) for line in (LOGS / "mae_large_ft/log_large_ft.txt").read_text().splitlines()]
    (run,) = runs("mae_large_ft")
    assert column(run, "train_loss") == pytest.approx([row["train_loss"] for row in rows])
    assert column(run, "val_loss") == pytest.approx([row["test_loss"] for row in rows])
    assert column(run, "val_accuracy") == pytest.approx([row["test_acc1"] for row in rows])
    assert steps(run, "val_loss").tolist() == [row["epoch"] for row in rows]
    history = json.loads((LOGS / "hf_nsllm/trainer_state.json").read_text())["log_history"]
    (run,) = runs("hf_nsllm")
    assert column(run, "grad_norm") == pytest.approx([row["grad_norm"] for row in history if "loss" in row])
    assert run.info.total_steps == 2178


def test_tables_are_those_of_the_file():
    with (LOGS / "yolo11_bone/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    (run,) = runs("yolo11_bone")
    for signal, split in (("train_loss", "train"), ("val_loss", "val")):
        expected = [sum(float(row[f"{split}/{part}_loss"]) for part in ("box", "seg", "cls", "dfl")) for row in rows]
        assert column(run, signal) == pytest.approx(expected)
    assert run.info.total_steps == 10
    (run,) = runs("csv_gat")
    numbers = np.loadtxt(LOGS / "csv_gat/training_log_2.csv", delimiter=",", skiprows=1)
    assert column(run, "train_loss") == pytest.approx(numbers[:, 0], rel=1e-6)
    assert run.steps.step.tolist() == list(range(1, 55))


def test_text_is_that_of_the_file():
    text = (LOGS / "txl_adam/log-adam.txt").read_text()
    found = re.findall(r"step\s+(\d+) \|.*?\| lr (\S+) .*?loss\s+(\S+)", text)
    (run,) = runs("txl_adam")
    training = [(float(step), float(loss)) for step, _, loss in found]
    assert steps(run, "train_loss").tolist() == [step for step, _ in training]
    assert column(run, "train_loss") == pytest.approx([loss for _, loss in training])
    valid = [float(loss) for loss in re.findall(r"valid loss\s+(\S+)", text)]
    assert column(run, "val_loss") == pytest.approx(valid)


def test_losses_with_mixup_are_not_compared_with_those_without():
    for name in ("timm_convnext_300", "mae_large_ft"):
        assert runs(name)[0].info.losses_comparable is False
    assert runs("ap_fastmri_adamg")[0].info.losses_comparable is True
    assert all(math.isfinite(value) for value in column(runs("timm_convnext_300")[0], "val_loss"))
