"""Small recordings for the tests of the run directory, and how to look at what was read back."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np

from lossdoctor.runs import Block, Column, RunInfo, RunWriter, Table
from lossdoctor.runs.info import LayerInfo, ModelInfo

ROOT = Path(__file__).parents[2]


def table(**columns) -> Table:
    """A table from lists; None means unobserved. Lists of lists are layer columns."""
    made = {}
    for name, values in columns.items():
        cells = np.array(values, dtype=object)
        observed = cells != np.array(None)
        floats = np.where(observed, cells, np.nan).astype(np.float64 if name in {"step", "time"} else np.float32)
        made[name] = Column(floats, None if observed.all() else observed)
    return Table(made)


def rows(first: int, last: int, **columns) -> Block:
    """A block of step rows `first` … `last` whose train_loss is the step divided by 1000."""
    step = np.arange(first, last + 1)
    loss = (step / 1000).astype(np.float32)
    extra = {name: Column(np.full(len(step), value, dtype=np.float32)) for name, value in columns.items()}
    base = {"step": Column(step.astype(np.float64)), "time": Column(step * 0.5 + 1.7e9), "train_loss": Column(loss)}
    return Block(steps=Table(base | extra))


def info(layers: int = 0, **fields) -> RunInfo:
    """A run.json of a model with that many layers."""
    names = [LayerInfo(name=f"block.{i}", type="Linear", parameters=10, trainable=10) for i in range(layers)]
    return RunInfo(model=ModelInfo(layers=names), **fields)


def record(directory: Path, *blocks: Block, flush: bool = False, status: str = "finished", **arguments) -> Path:
    """Record blocks and close; with `flush` each is a batch of its own."""
    writer = RunWriter(directory, info(), **arguments)
    for block in blocks:
        writer.write(block)
        if flush:
            writer.flush(wait=True)
    writer.close(status)
    assert writer.fault is None
    return writer.directory


def abandon(directory: Path, *blocks: Block) -> Path:
    """Record blocks, a batch each, and leave the files as SIGKILL would: the segment open, the status running."""
    writer = RunWriter(directory, info())
    for block in blocks:
        writer.write(block)
        writer.flush(wait=True)
    attempt = writer.directory
    left = {path: path.read_bytes() for path in attempt.rglob("*") if path.is_file() and path.name != ".lock"}
    writer.close()
    for path in attempt.rglob("*.arrow"):
        path.unlink()
    for path, content in left.items():
        path.write_bytes(content)
    return attempt


def child(program: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """A process that runs `program` with this checkout and these helpers importable."""
    head = "import sys, time, os\nfrom pathlib import Path\nfrom tests.runs.recordings import *\n"
    command = [sys.executable, "-c", head + textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_until(condition, seconds: float = 10.0) -> None:
    """Wait for something another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
