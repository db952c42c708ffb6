"""What `lossdoctor watch` costs while a training writes: CPU time as a share of one core, and how far it lags behind.

    python -m benchmarks.watching [--rate 1000] [--seconds 30] [--history STEPS]

A process writes a run of 40 signals, with evaluations and layer samples, at the rate asked for; another one watches it
in a terminal of its own. Its start (imports, and the rows recorded before: `--history`) is not counted.
"""

import argparse
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.analyze import COLUMNS, LAYERS, SAMPLED_EVERY, _signal
from lossdoctor.runs import Block, Column, RunInfo, RunWriter, Table
from lossdoctor.runs.info import LayerInfo, ModelInfo, OptimizerInfo
from lossdoctor.runs.segments import SEGMENT_ROWS
from lossdoctor.signals import SIGNALS

EVALUATED_EVERY = 2_000
PLANNED = 1_000_000
BUDGET = 5.0
WARM_UP = 15.0
"""Seconds until the imports are done and what was there before is read."""
CAUGHT_UP = 40_000
"""Steps a second, at least, in which what was there before is read and judged on a busy machine."""
HAND_OVER = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--history", type=int, default=0, help="steps recorded before anybody watches")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write(arguments.write, arguments.rate, arguments.history)
        return
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        command = [sys.executable, "-m", "benchmarks.watching", "--write", str(run), "--rate", str(arguments.rate)]
        writer = subprocess.Popen([*command, "--history", str(arguments.history)], stdin=subprocess.PIPE)
        while len(list((run / "steps").glob("*.arrow"))) < arguments.history // SEGMENT_ROWS + 1:
            time.sleep(0.1)
        share, lag = watched(run, arguments.seconds, WARM_UP + arguments.history / CAUGHT_UP)
        writer.stdin.close()
        writer.wait()
    verdict = "" if share <= BUDGET else "  OVER"
    print(f"{arguments.rate:,} steps/s of {COLUMNS} signals after {arguments.history:,} steps")
    print(f"CPU of watch: {share:.1f} % of a core (budget {BUDGET:.0f} %){verdict}")
    print(f"age of the newest row on the screen, at most: {lag:.1f} s")


def watched(run: Path, seconds: float, warm_up: float) -> tuple[float, float]:
    """CPU of a watching process in percent of a core, and the greatest age of the last record it showed."""
    terminal, its_side = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lossdoctor", "watch", str(run), "--wait", "30"], stdout=its_side, env=environment
    )
    shown: list[tuple[float, bytes]] = []

    def drain() -> None:
        while data := os.read(terminal, 65_536):
            shown.append((time.monotonic(), data))

    threading.Thread(target=drain, daemon=True).start()
    time.sleep(warm_up)
    begun, before = time.monotonic(), cpu_seconds(process.pid)
    time.sleep(seconds)
    spent, elapsed = cpu_seconds(process.pid) - before, time.monotonic() - begun
    process.kill()
    process.wait()
    text = b"".join(data for at, data in shown if at > begun).decode(errors="replace")
    ages = [float(age) for age in re.findall(r"last record ([\d.]+) s ago", text)]
    return 100 * spent / elapsed, max(ages, default=float("nan"))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write(directory: Path, rate: int, history: int) -> None:
    """Write rows as a Monitor does, half a second of them at a time, until stdin is closed."""
    rng = np.random.default_rng(0)
    names = [name for name, signal in SIGNALS.items() if signal.source == "step" and name not in {"step", "time"}]
    names = names[: COLUMNS - 2]
    layers = [LayerInfo(name=f"layer.{n}", type="Linear", parameters=10, trainable=10) for n in range(LAYERS)]
    info = RunInfo(
        total_steps=PLANNED,
        model=ModelInfo(layers=layers),
        optimizers=[OptimizerInfo(type="AdamW", scale_invariant=True)],
        scheduler="CosineAnnealingLR",
    )
    writer = RunWriter(directory, info)
    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
    for begin in range(0, history, 50_000):
        writer.write(block(begin, min(begin + 50_000, history), names, rng))
        writer.flush(wait=True)
    at, started = history, time.monotonic()
    while not closed.wait(HAND_OVER):
        until = history + int((time.monotonic() - started) * rate)
        if until > at:
            writer.write(block(at, until, names, rng))
        at = until
    writer.close()


def block(begin: int, end: int, names: list[str], rng: np.random.Generator) -> Block:
    step = np.arange(begin + 1.0, end + 1)
    evaluated, sampled = step[step % EVALUATED_EVERY == 0], step[step % SAMPLED_EVERY == 0]
    times = np.linspace(time.time() - HAND_OVER, time.time(), len(step))
    columns = {"step": Column(step), "time": Column(times)}
    columns |= {name: _signal(name, step / PLANNED, rng) for name in names}
    evaluations = {"step": Column(evaluated), "val_loss": _signal("val_loss", evaluated / PLANNED, rng)}
    samples = {"step": Column(sampled)}
    for name, signal in SIGNALS.items():
        if signal.source == "layer":
            values = 0.01 * np.exp(0.1 * rng.standard_normal((len(sampled), LAYERS)))
            samples[name] = Column(values.astype(np.float32))
    return Block(Table(columns), Table(evaluations), Table(samples))


if __name__ == "__main__":
    main()
