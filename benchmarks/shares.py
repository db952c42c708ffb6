"""What live judging and the snapshots for a rewind take of a training, side by side in one process.

    python benchmarks/shares.py [--models gpt conv mlp] [--steps N] [--rounds N]

Made for a machine on which other things run: one torch thread, CPU time, medians, everything in turns. A snapshot is
taken after a step of the same training, in memory and on disk; how many a run takes follows from its length alone
(`is_due`), so its share of the run is the cost of one, times their number, over the steps. Judging is measured in a
training that a Monitor in `suggest` watches: from step to step nothing of it may be due, so its share is what all
judgings took of all steps. The first comes ten seconds after the start, the others as their cost allows.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from workloads import Training

from lossdoctor import Monitor
from lossdoctor.capture.live import LiveJudge
from lossdoctor.remedies.keeping.places import Place
from lossdoctor.remedies.keeping.snapshots import Snapshots, is_due

GOALS = {"judging": 0.002, "snapshots": 0.005}
STEPS = {"mlp": 30_000, "conv": 4000, "gpt": 120}
"""Steps in which judging is measured: more than half a minute."""
ROUNDS = {"mlp": 60, "conv": 40, "gpt": 12}
LENGTHS = (100, 1000, 10_000, 100_000)


def _cpu_seconds(function: Callable[[], object]) -> float:
    began = time.thread_time()
    function()
    return time.thread_time() - began


def _count(length: int, *, on_disk: bool) -> int:
    """The snapshots of a run: the one before its first step, and those that come due."""
    last, taken = 0, 1
    for step in range(1, length + 1):
        if is_due(step, last, on_disk=on_disk):
            last, taken = step, taken + 1
    return taken


def snapshots(kind: str, rounds: int) -> None:
    """Print what a snapshot takes, and all of them in runs of several lengths."""
    training = Training(kind)
    with tempfile.TemporaryDirectory() as directory:
        places = {"memory": Place(), "disk": Place("disk", Path(directory))}
        kept = {
            name: Snapshots(training.model, [training.optimizer], place=place, generations=3)
            for name, place in places.items()
        }
        training.step()
        steps: list[float] = []
        costs: dict[str, list[float]] = {name: [] for name in kept}
        for number in range(rounds + 4):  # the first four fill the generations
            for name in list(kept) if number % 2 else list(kept)[::-1]:
                seconds = training.step()[1]
                cost = _cpu_seconds(partial(kept[name].take, 16.0 * number))
                if number >= 4:
                    steps.append(seconds)
                    costs[name].append(cost)
        each = kept["memory"].memory / len(kept["memory"].steps)
        for one in kept.values():
            one.close()
    step = statistics.median(steps)
    print(f"\n{kind}: a step {1e3 * step:.2f} ms, a snapshot {each / 1e6:.2f} MB, at most 6 at a time")
    print(f"{'snapshots':12}{'one takes':>12}{'of a step':>12}" + "".join(f"{f'{n} steps':>15}" for n in LENGTHS))
    for name, found in costs.items():
        cost = statistics.median(found)
        shares = (_count(length, on_disk=name == "disk") * cost / (length * step) for length in LENGTHS)
        print(f"{name:12}{1e3 * cost:9.2f} ms{cost / step:12.1%}" + "".join(f"{share:15.3%}" for share in shares))


def judging(kind: str, steps: int) -> None:
    """Print what the judgings of a training in `suggest` take of it."""
    judgings: list[float] = []
    original = LiveJudge.judge

    def judge(self: LiveJudge) -> object:
        began = time.thread_time()
        found = original(self)
        judgings.append(time.thread_time() - began)
        return found

    training = Training(kind)
    with (
        tempfile.TemporaryDirectory() as directory,
        Monitor(training.model, training.optimizer, Path(directory) / "run") as monitor,
    ):
        training.observe = lambda loss: monitor.step(loss, samples=128)
        LiveJudge.judge = judge  # type: ignore[method-assign, assignment]
        began = time.perf_counter()
        total = sum(training.step()[1] for _ in range(steps))
        seconds = time.perf_counter() - began
        LiveJudge.judge = original  # type: ignore[method-assign]
    print(
        f"judging     {len(judgings)} times in {steps} steps ({seconds:.0f} s): "
        f"{1e3 * sum(judgings):.1f} ms of CPU time, {sum(judgings) / total:.3%} of the training"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(STEPS), default=["gpt"])
    parser.add_argument("--steps", type=int, help="steps in which judging is measured")
    parser.add_argument("--rounds", type=int, help="snapshots of each kind")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, 1 thread, {os.cpu_count()} CPUs; goals: {GOALS}")
    for kind in chosen.models:
        snapshots(kind, chosen.rounds or ROUNDS[kind])
        judging(kind, chosen.steps or STEPS[kind])
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
