"""Run directories to analyze, and the command as a function and as a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.cli import main
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Block, Column, Table
from lossdoctor.runs.writer import RunWriter

STEPS = 1000


def _record(directory, *, broken_from=None):
    step = np.arange(1.0, STEPS + 1)
    noise = np.random.default_rng(0).normal(size=STEPS)
    loss = (2.3 * np.exp(-step / 200) + 0.1 + 0.01 * noise).astype(np.float32)
    if broken_from is not None:
        loss[broken_from - 1 :] = np.nan
    columns = {
        "step": step,
        "train_loss": loss,
        "grad_norm": np.full(STEPS, 0.8, dtype=np.float32),
        "learning_rate": np.full(STEPS, 1e-3, dtype=np.float32),
    }
    writer = RunWriter(directory, RunInfo(name=directory.name))
    writer.write(Block(Table({name: Column(values) for name, values in columns.items()})))
    writer.close()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """`runs/sound`, and `runs/broken` whose loss is NaN from step 701 on."""
    directory = tmp_path_factory.mktemp("recorded")
    _record(directory / "runs/sound")
    _record(directory / "runs/broken", broken_from=701)
    return directory


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current directory, no terminal, no colours."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def runs(workplace, recorded):
    """The recorded runs as `runs/` of the current directory."""
    (workplace / "runs").symlink_to(recorded / "runs", target_is_directory=True)
    return workplace / "runs"


@pytest.fixture
def call(workplace, capsys):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def process(workplace):
    """Run Python in a process of its own."""

    def process(*arguments, **environment):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            timeout=60,
        )

    return process
