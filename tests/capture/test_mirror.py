"""lossdoctor.capture.mirror, read back by tensorboard's own reader."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lossdoctor import Monitor
from lossdoctor.capture.mirror import TensorBoardMirror
from lossdoctor.runs import read_run
from lossdoctor.runs.events import FindingEvent, Intervention
from tests.runs.recordings import rows


def events(run):
    (file,) = (run / "tensorboard").glob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0})
    return accumulator.Reload()


def diverging(directory, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Monitor(model, optimizer, directory, **options) as monitor:
        for step in range(120):
            loss = model(torch.randn(16, 4)).square().mean() * (float("nan") if step >= 100 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, samples=16)
            if step % 40 == 39:
                monitor.evaluation(loss=1.0 / step, accuracy=0.5)
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_signals_and_findings_are_mirrored_and_the_training_is_the_same(tmp_path):
    weights = diverging(tmp_path / "mirrored", tensorboard=True)
    plain = diverging(tmp_path / "plain")
    assert all(torch.equal(one, other) for one, other in zip(weights, plain, strict=True)) or all(
        one.isnan().any() and other.isnan().any() for one, other in zip(weights, plain, strict=True)
    )
    assert not (tmp_path / "plain" / "tensorboard").exists()
    run, found = read_run(tmp_path / "mirrored"), events(tmp_path / "mirrored")
    scalars = found.Tags()["scalars"]
    expected = {"training/train_loss", "optimizer/grad_norm", "optimizer/learning_rate", "validation/val_loss"}
    assert expected | {"optimizer/update_ratio", "validation/val_accuracy", "resources/process_memory"} <= {*scalars}
    recorded = dict(zip(run.steps.step, run.steps.columns["train_loss"].values, strict=True))
    shown = found.Scalars("training/train_loss")
    assert [scalar.value for scalar in shown if scalar.step <= 100] == pytest.approx(
        [float(recorded[scalar.step]) for scalar in shown if scalar.step <= 100]
    )
    assert shown[-1].step == 120
    assert np.isnan(shown[-1].value)
    assert [(scalar.step, scalar.value) for scalar in found.Scalars("validation/val_accuracy")] == [
        (40, 0.5),
        (80, 0.5),
        (120, 0.5),
    ]
    (text,) = found.Tensors("findings/non_finite_loss")[:1]
    assert text.tensor_proto.string_val[0].decode().startswith("**error** since step 101: ")
    assert found.SummaryMetadata("findings/non_finite_loss").plugin_data.plugin_name == "text"


def test_many_rows_are_thinned_and_the_last_is_shown(tmp_path):
    mirror = TensorBoardMirror()
    mirror(tmp_path, [rows(1, 5000)], [])
    mirror(tmp_path, [rows(5001, 5003)], [])
    steps = [scalar.step for scalar in events(tmp_path).Scalars("training/train_loss")]
    assert len(steps) <= 54
    assert steps[-4:] == [5000, 5001, 5002, 5003]
    assert steps == sorted(steps)


def test_an_intervention_is_a_text(tmp_path):
    act = Intervention(id=1, step=7, time=1.0, rule="divergence", action="scale_lr", reason="it rose", outcome="kept")
    finding = FindingEvent(rule="x", severity="error", since=1, detected=2, message="böse \ud800", step=2, time=1.0)
    TensorBoardMirror()(tmp_path, [], [act, finding])
    (text,) = events(tmp_path).Tensors("interventions/scale_lr")
    assert (text.step, text.tensor_proto.string_val[0]) == (7, b"kept, for divergence: it rose")


def test_a_mirror_that_cannot_be_written_is_named_once_and_the_recording_goes_on(tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    caplog.set_level(logging.WARNING)
    diverging(tmp_path / "run", tensorboard=True)
    told = [record.message for record in caplog.records if "the mirror of" in record.message]
    assert len(told) == 1
    assert told[0].endswith("stopped: file exists; the recording goes on")
    run = read_run(tmp_path / "run")
    assert (len(run.steps), run.warnings) == (120, ())


def test_tensorboard_is_imported_only_where_a_mirror_is_wanted():
    code = "import sys, lossdoctor.monitor; assert 'tensorboard' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
