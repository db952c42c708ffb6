"""What the CSV loggers of Lightning and Keras write today, read back beside what they were given."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lossdoctor.runs.readers import logs_at, runs_of

pytestmark = pytest.mark.filterwarnings("default")  # theirs


def _only_run(path):
    (log,) = logs_at(path)
    (run,) = runs_of(log)
    return run


def _column(table, name):
    column = table.columns[name]
    return column.values[column.mask()].tolist()


def test_what_lightning_writes_today_is_read(tmp_path):
    lightning = pytest.importorskip("lightning")
    import torch

    losses, val_losses = [], []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch, _):
            loss = self.layer(batch[0]).square().mean()
            losses.append(loss.item())
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, _):
            loss = self.layer(batch[0]).square().mean()
            val_losses.append(loss.item())
            self.log("val_loss", loss)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 3)), batch_size=16)
    logger = lightning.pytorch.loggers.CSVLogger(str(tmp_path), name="run")
    trainer = lightning.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[lightning.pytorch.callbacks.LearningRateMonitor("step")],
    )
    trainer.fit(Module(), loader, loader)
    run = _only_run(Path(logger.log_dir, "metrics.csv"))
    assert _column(run.steps, "train_loss") == pytest.approx(losses)
    assert _column(run.steps, "learning_rate") == pytest.approx([0.1] * 6)
    assert run.steps.step.tolist() == run.evaluations.step.tolist() == [0, 1, 2, 3, 4, 5]
    assert _column(run.evaluations, "val_loss") == pytest.approx(val_losses)


_KERAS = """
import json, sys
import numpy as np, keras
x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
kept = model.fit(
    x, x.sum(1), validation_split=0.25, epochs=6, verbose=0, callbacks=[keras.callbacks.CSVLogger(sys.argv[1])]
)
print(json.dumps(kept.history))
"""


def test_what_keras_writes_today_is_read(tmp_path):
    if importlib.util.find_spec("keras") is None:  # to import it here would choose its backend
        pytest.skip("keras is not installed")
    path = tmp_path / "training.csv"
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _KERAS, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    history = json.loads(done.stdout)
    run = _only_run(path)
    assert _column(run.steps, "train_loss") == pytest.approx(history["loss"])
    assert _column(run.evaluations, "val_loss") == pytest.approx(history["val_loss"])
    kept = tmp_path / "history.json"
    kept.write_text(json.dumps(history))
    assert _column(_only_run(kept).steps, "train_loss") == pytest.approx(history["loss"])
