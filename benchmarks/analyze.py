"""What a diagnosis costs: a run of a million steps and 40 signals, read and judged by all rules; and a cold start.

    python benchmarks/analyze.py [--steps N] [--repeat K]

Times are medians; each is taken in a fresh process, so that nothing is warm but the disk cache. CPU times tell a busy
machine from a slow program. Memory is the peak of the process that reads and judges, less what it holds after its
imports, as a multiple of the columns the rules need.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lossdoctor.analysis import needed_columns
from lossdoctor.diagnosis import diagnose
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import Block, Column, RunInfo, RunWriter, Table, read_run
from lossdoctor.runs.info import LayerInfo, ModelInfo, OptimizerInfo
from lossdoctor.signals import SIGNALS

COLUMNS = 40
LAYERS = 12
SAMPLED_EVERY = 100
EVALUATIONS = 200
EVERY_STEP = (
    *("train_loss", "train_accuracy", "learning_rate", "nominal_learning_rate", "momentum", "beta2", "weight_decay"),
    *("grad_norm", "grad_norm_clipped", "clipped", "loss_scale", "skipped", "clip_scaled", "micro_batches", "samples"),
    *("tokens", "step_time", "data_wait", "samples_per_second"),
)
"""What a Monitor records at every step."""
LISTS = ("parameters_without_gradient", "parameters_without_optimizer", "parameters_never_moved")
SAMPLED = (
    *("update_ratio", "param_norm", "grad_to_param", "gradient_cosine", *LISTS, "frozen_parameters"),
    *("modules_in_eval", "modules_in_eval_share", "batch_norm_variance_ratio", "input_mean", "input_std", "output_std"),
    *("label_entropy", "process_memory", "device_memory", "batch_norm_shift", "input_max"),
)
"""What it records at sample steps, or once a second."""
CHUNK = 50_000

BUDGETS = {"read_and_judge": 3.0, "judge": 1.5, "memory": 3.0, "cold": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as directory:
        long, short = Path(directory) / "long", Path(directory) / "short"
        begun = time.perf_counter()
        write(long, arguments.steps)
        written = time.perf_counter() - begun
        write(short, 1000)
        measured = [in_a_process(long) for _ in range(arguments.repeat)]
        cold = statistics.median(seconds_of_the_command(short) for _ in range(arguments.repeat))
    median = {name: statistics.median(one[name] for one in measured) for name in measured[0]}
    rules = len(Rulebook.load().rules)
    print(f"{arguments.steps:,} steps x {COLUMNS} signals, {rules} rules; medians of {arguments.repeat}")
    print(f"{'what':44} {'measured':>10} {'budget':>8}")
    row("read", median["read"], "s")
    row("judge by all rules", median["judge"], "s", BUDGETS["judge"])
    row("read and judge", median["read"] + median["judge"], "s", BUDGETS["read_and_judge"])
    row("of these, CPU: read", median["cpu_read"], "s")
    row("of these, CPU: judge", median["cpu_judge"], "s")
    row("memory / columns the rules need", median["memory"] / median["needed"], "x", BUDGETS["memory"])
    row("lossdoctor analyze of 1,000 steps, cold", cold, "s", BUDGETS["cold"])
    print(f"(written in {written:.1f} s; peak memory {median['memory'] / 2**20:.0f} MiB above the imports)")


def row(what: str, value: float, unit: str, budget: float | None = None) -> None:
    verdict = "" if budget is None else f"{budget:6.1f} {unit}" + ("" if value <= budget else "  OVER")
    print(f"{what:44} {value:8.2f} {unit} {verdict:>8}")


def write(directory: Path, steps: int) -> None:
    """Record a sound run: a loss that falls with noise, norms, a cosine schedule, sampled layers, evaluations."""
    rng = np.random.default_rng(0)
    sampled_names = [name for name in SAMPLED if name not in EVERY_STEP]
    names = [*EVERY_STEP, *sampled_names[: COLUMNS - 2 - len(EVERY_STEP)]]
    layers = [LayerInfo(name=f"layer.{n}", type="Linear", parameters=10, trainable=10) for n in range(LAYERS)]
    info = RunInfo(
        total_steps=steps,
        model=ModelInfo(layers=layers),
        optimizers=[OptimizerInfo(type="AdamW", scale_invariant=True)],
        scheduler="CosineAnnealingLR",
        loss_scaling=True,
    )
    writer = RunWriter(directory, info)
    every = max(steps // EVALUATIONS, 1)
    for begin in range(0, steps, CHUNK):
        step = np.arange(begin + 1.0, min(begin + CHUNK, steps) + 1)
        evaluated = step[step % every == 0]
        sampled = step[step % SAMPLED_EVERY == 0]
        columns = {"step": Column(step), "time": Column(step / 100)}
        columns |= {name: _signal(name, step / steps, rng) for name in names}
        evaluations = {"step": Column(evaluated), "val_loss": _signal("val_loss", evaluated / steps, rng)}
        samples = {"step": Column(sampled)}
        for name, signal in SIGNALS.items():
            if signal.source == "layer":
                samples[name] = Column(
                    (0.01 * np.exp(0.1 * rng.standard_normal((len(sampled), LAYERS)))).astype(np.float32)
                )
        writer.write(Block(Table(columns), Table(evaluations), Table(samples)))
        writer.flush(wait=True)
    writer.close()


def _signal(name: str, progress: np.ndarray, rng: np.random.Generator) -> Column:
    noise = rng.standard_normal(len(progress))
    values = {
        "train_loss": 0.3 + 2 * np.exp(-5 * progress) + 0.05 * noise,
        "val_loss": 0.35 + 2 * np.exp(-5 * progress) + 0.002 * noise,
        "train_accuracy": 0.9 - 0.8 * np.exp(-5 * progress) + 0.05 * noise,
        "learning_rate": 5e-4 * (1 + np.cos(np.pi * progress)),
        "nominal_learning_rate": 5e-4 * (1 + np.cos(np.pi * progress)),
        "skipped": (noise > 3.3).astype(float),
        "clipped": (noise > 1.3).astype(float),
        "loss_scale": np.full(len(progress), 65536.0),
        "update_ratio": 1e-3 * np.exp(0.1 * noise),
        "grad_to_param": 1e-2 * np.exp(0.1 * noise),
        "gradient_cosine": 0.1 * noise,
        "data_wait": 1e-5 * np.exp(0.1 * noise),
        "weight_decay": np.full(len(progress), 0.01),
        "momentum": np.full(len(progress), 0.9),
        "beta2": np.full(len(progress), 0.999),
    }
    for flag in ("clip_scaled", "modules_in_eval", "modules_in_eval_share", "frozen_parameters", *LISTS):
        values[flag] = np.zeros(len(progress))
    chosen = values.get(name, np.exp(0.1 * noise))
    observed = None
    if name in SAMPLED:
        observed = np.arange(len(progress)) % SAMPLED_EVERY == SAMPLED_EVERY - 1
        chosen = np.where(observed, chosen, np.nan)
    return Column(chosen.astype(np.float32), observed)


def in_a_process(run: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(run)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure(path: Path) -> dict[str, float]:
    """Read and judge one run in this process, and say what it took."""
    rulebook = Rulebook.load()
    before = _peak()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    run = read_run(path, needed_columns(rulebook))
    read, cpu_read = time.perf_counter(), time.process_time()
    diagnosis = diagnose(run, rulebook)
    judged, cpu_judged = time.perf_counter(), time.process_time()
    if diagnosis.verdict != "healthy":
        print(f"expected a healthy run, found: {diagnosis.summary}", file=sys.stderr)
    tables = (run.steps, run.evaluations, run.layers)
    return {
        "read": read - begun,
        "judge": judged - read,
        "cpu_read": cpu_read - cpu_begun,
        "cpu_judge": cpu_judged - cpu_read,
        "memory": _peak() - before,
        "needed": sum(column.values.nbytes for table in tables for column in table.columns.values()),
    }


def _peak() -> int:
    """The highest resident size so far, in bytes (Linux counts it in kilobytes, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def seconds_of_the_command(run: Path) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lossdoctor", "analyze", str(run), "--fail-on", "never"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"lossdoctor analyze failed: {done.stderr}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
