"""What a Monitor costs, and what others do: the same training with and without one, in turns, in one process.

    python benchmarks/overhead.py [--models mlp conv gpt] [--steps N] [--peers all|NAME ...] [--growth] [--counts]

Made for a machine on which other things run. One torch thread; a bare and an observed step alternate, in an order that
alternates too; everything is CPU time. Columns:

    bare      median CPU time of a bare step
    paired    median of (observed step - bare step beside it), with its standard error: what a usual step costs
    in situ   mean CPU time inside the Monitor's own entry points, rare work (flushes, judging, sample steps) included
    threads   mean CPU time of all other threads of the process, per step
    ratio     1 + (in situ + threads) / bare; for others than the Monitor 1 + (paired + threads) / bare

The Monitor's clocks stand still in bare steps, so that what it does once a second is charged to a second of training.
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
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peers import PEERS
from torch.utils._python_dispatch import TorchDispatchMode
from workloads import Training

from lossdoctor.capture.faults import Faults

GOALS = {"mlp": 1.05, "conv": 1.015, "gpt": 1.005}
STEPS = {"mlp": 4000, "conv": 600, "gpt": 100}
PEER_STEPS = {"mlp": 600, "conv": 200, "gpt": 24}
WARM_UP = {"mlp": 200, "conv": 60, "gpt": 52}
"""Steps before figures count: the cadence of the gradient norms is fixed after 50."""
PEER_WARM_UP = {"mlp": 50, "conv": 20, "gpt": 3}
PIECES = (5, 50, 500, 5000)
COUNTED_STEPS = 64
MEMORY_STEPS = {"mlp": 2000, "conv": 200, "gpt": 20}


class InSitu:
    """Adds up the CPU time of this thread inside everything that the Monitor guards: its hooks and its step."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = defaultdict(float)
        self._open = False
        original = Faults.guard

        def guard(faults: Faults, instrument: str, function: Callable[..., None]) -> Callable[..., None]:
            guarded = original(faults, instrument, function)

            def timed(*args: object, **kwargs: object) -> None:
                if self._open:  # called by another entry point, which is timed
                    guarded(*args, **kwargs)
                    return
                self._open = True
                began = time.thread_time()
                guarded(*args, **kwargs)
                self.parts[instrument] += time.thread_time() - began - self.cost
                self._open = False

            return timed

        Faults.guard = guard  # type: ignore[method-assign, assignment]
        began = time.perf_counter()
        for _ in range(20_000):
            time.thread_time()
        self.cost = (time.perf_counter() - began) / 20_000
        """Seconds that looking at the clock takes."""


@dataclass
class Result:
    """Seconds per step."""

    bare: float
    paired: float
    error: float
    in_situ: float
    threads: float
    parts: dict[str, float]
    every: int | None
    bare_wall: float
    paired_wall: float
    load: float


def measure(kind: str, peer: str, in_situ: InSitu, *, steps: int, warm_up: int, **options: object) -> Result:
    """Train in turns with and without `peer`."""
    bare, observed = Training(kind), Training(kind)
    cpu: list[tuple[float, float]] = []
    wall: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory, PEERS[peer](observed, Path(directory), **options):
        monitor = getattr(observed, "monitor", None)
        for number in range(warm_up + steps):
            if number == warm_up:
                in_situ.parts.clear()
                process, thread = time.process_time(), time.thread_time()
            if number % 2:
                first = bare.step()
                _stand_still(monitor, first[0])
                second = observed.step()
            else:
                second = observed.step()
                first = bare.step()
                _stand_still(monitor, first[0])
            if number >= warm_up:
                wall.append((first[0], second[0]))
                cpu.append((first[1], second[1]))
        own = time.thread_time() - thread
        threads = (time.process_time() - process - own) / steps
        parts = {name: seconds / steps for name, seconds in in_situ.parts.items()}
        every = monitor._session.recorder.cadence.every if monitor else None
    differences = [second - first for first, second in cpu]
    middle = statistics.median(differences)
    deviation = 1.4826 * statistics.median(abs(difference - middle) for difference in differences)
    return Result(
        bare=statistics.median(first for first, _ in cpu),
        paired=middle,
        error=1.2533 * deviation / steps**0.5,  # of a median, with a spread that outliers do not move
        in_situ=sum(parts.values()),
        threads=max(threads, 0.0),
        parts=parts,
        every=every,
        bare_wall=statistics.median(first for first, _ in wall),
        paired_wall=statistics.median(second - first for first, second in wall),
        load=os.getloadavg()[0],
    )


def _stand_still(monitor: Any, seconds: float) -> None:
    """A bare step of this length was none of the Monitor's business."""
    if monitor is not None:
        session = monitor._session
        session._flushed += seconds
        session.recorder.watch.since += seconds
        if session.judge is not None:
            session.judge._next += seconds


class _Count(TorchDispatchMode):
    calls = 0
    reads = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        self.reads += "_local_scalar_dense" in str(function)
        return function(*args, **kwargs or {})


def count(kind: str, peer: str | None) -> tuple[float, float]:
    """ATen calls per step, and how many of them read a number to the host, which waits for a GPU."""
    training = Training(kind)
    with tempfile.TemporaryDirectory() as directory:
        if peer is None:
            return _count(training)
        with PEERS[peer](training, Path(directory)):
            for _ in range(WARM_UP["gpt"]):
                training.step()
            return _count(training)


def _count(training: Training) -> tuple[float, float]:
    with _Count() as mode:
        for _ in range(COUNTED_STEPS):
            training.step()
    return mode.calls / COUNTED_STEPS, mode.reads / COUNTED_STEPS


def peak(kind: str, peer: str) -> float:
    """MiB of memory at most, in a process of its own that trains so many steps with a peer ("none": bare)."""
    command = [sys.executable, __file__, "--models", kind, "--peak", peer]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _train_for_peak(kind: str, peer: str) -> None:
    training = Training(kind)
    with tempfile.TemporaryDirectory() as directory:
        if peer == "none":
            _train(training, MEMORY_STEPS[kind])
        else:
            with PEERS[peer](training, Path(directory)):
                _train(training, MEMORY_STEPS[kind])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _train(training: Training, steps: int) -> None:
    for _ in range(steps):
        training.step()


def _table(kind: str, results: dict[str, Result]) -> None:
    print(f"\n{kind}, goal {GOALS[kind]}")
    print(f"{'':26}{'bare':>10}{'paired':>18}{'in situ':>10}{'threads':>10}{'ratio':>8}{'load':>6}  norms every")
    for name, result in results.items():
        own = result.in_situ or result.paired
        print(
            f"{name:26}{1e6 * result.bare:8.0f}us{1e6 * result.paired:9.1f} ±{1e6 * result.error:5.1f}us"
            f"{1e6 * result.in_situ:8.1f}us{1e6 * result.threads:8.1f}us{1 + (own + result.threads) / result.bare:8.4f}"
            f"{result.load:6.1f}  {result.every or ''}"
        )


def _parts(result: Result) -> None:
    found = sorted(result.parts.items(), key=lambda part: -part[1])
    print("  in situ: " + ", ".join(f"{name} {1e6 * seconds:.1f}" for name, seconds in found) + " us")


def _growth(in_situ: InSitu) -> None:
    print("\n1,000,000 parameters in n tensors: lossdoctor, in situ and other threads")
    print(f"{'n':>6}{'bare':>12}{'norms at every step':>22}{'default':>12}  norms every")
    for number in PIECES:
        steps = 20 if number == PIECES[-1] else 60
        each = measure(f"pieces-{number}", "lossdoctor", in_situ, steps=steps, warm_up=5, grad_norm_every=1)
        usual = measure(f"pieces-{number}", "lossdoctor", in_situ, steps=2 * steps, warm_up=52)
        print(
            f"{number:6}{1e6 * usual.bare:10.0f}us{1e6 * (each.in_situ + each.threads):20.0f}us"
            f"{1e6 * (usual.in_situ + usual.threads):10.0f}us  {usual.every}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--steps", type=int, help="steps of each model (default: as many as three minutes allow)")
    parser.add_argument("--remediate", choices=["off", "suggest", "auto"], default="suggest")
    parser.add_argument("--peers", nargs="*", default=[], help=f"all, or some of: {', '.join(PEERS)}")
    parser.add_argument("--growth", action="store_true", help="how the cost grows with the number of tensors")
    parser.add_argument("--counts", action="store_true", help="count ATen calls, and measure peak memory")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.peak:
        _train_for_peak(chosen.models[0], chosen.peak)
        return
    in_situ = InSitu()
    print(f"torch {torch.__version__}, 1 thread, {os.cpu_count()} CPUs, remediate={chosen.remediate}")
    peers = [name for name in PEERS if name != "lossdoctor"] if chosen.peers == ["all"] else chosen.peers
    for kind in chosen.models:
        steps = chosen.steps or STEPS[kind]
        ours = measure(kind, "lossdoctor", in_situ, steps=steps, warm_up=WARM_UP[kind], remediate=chosen.remediate)
        results = {"lossdoctor": ours}
        for name in peers:
            try:
                results[name] = measure(kind, name, in_situ, steps=PEER_STEPS[kind], warm_up=PEER_WARM_UP[kind])
            except ImportError as error:
                print(f"{name} is left out: {error}; pip install '.[benchmark]'")
            except Exception as error:  # noqa: BLE001 - the others can be measured all the same
                print(f"{name} is left out: {type(error).__name__}: {error}")
        _table(kind, results)
        _parts(ours)
        if chosen.counts:
            (bare, _), (calls, reads) = count(kind, None), count(kind, "lossdoctor")
            print(
                f"  ATen calls per step: {bare:.1f} bare, {calls - bare:+.1f} observed, {reads:.1f} reads to the host"
            )
            print(f"  peak memory: {peak(kind, 'none'):.0f} MiB bare, {peak(kind, 'lossdoctor'):.0f} MiB observed")
    if chosen.growth:
        _growth(in_situ)


if __name__ == "__main__":
    main()
