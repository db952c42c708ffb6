"""Nothing lost: faults put into a training, which must end as it would have, with everything recorded up to them."""

import errno
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lossdoctor import Monitor
from lossdoctor.analysis import judge
from lossdoctor.errors import RunDirectoryError
from lossdoctor.reports import text
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import files, read_run, recording, segments
from lossdoctor.runs.segments import decode

ROOT = Path(__file__).parents[1]
STEPS = 60


rulebook = functools.cache(Rulebook.load)


class Nothing:
    """A training without a Monitor, for comparison."""

    def batches(self, loader):
        return loader

    def step(self, loss):
        pass

    def close(self):
        pass


def train(monitored=None, *, steps=STEPS, at=None, workers=0, **options):
    """Train, call `at(step, monitor)` before each step is reported, and return the weights and the seconds it took."""
    torch.manual_seed(0)
    x = torch.randn(16 * steps, 8)
    loader = DataLoader(TensorDataset(x, x[:, :1].tanh()), batch_size=16, num_workers=workers)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    monitor = Nothing() if monitored is None else Monitor(model, optimizer, monitored, **options)
    began = time.perf_counter()
    try:
        for step, (inputs, targets) in enumerate(monitor.batches(loader), 1):
            loss = F.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if at is not None:
                at(step, monitor)
            monitor.step(loss)
        seconds = time.perf_counter() - began
    finally:
        if sys.exc_info()[0] is None:
            monitor.close()
        elif monitored is not None:
            monitor.__exit__(*sys.exc_info())
    return [parameter.detach().numpy().copy() for parameter in model.parameters()], seconds


def same(ours, theirs):
    return all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def once(number, action):
    return lambda step, _: action() if step == number else None


@pytest.fixture(scope="module")
def plain():
    return train()[0]


@pytest.fixture
def disk(tmp_path):
    """A real disk of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def after_pauses(number, action):
    """Do it at a step by which the steps before are on the disk: a step hands rows over that are a second old."""

    def act(step, _):
        if step in {number - 2, number}:
            time.sleep(1.1 if step < number else 0.4)
        if step == number:
            action()

    return act


def headline(run):
    """The second line of the text report."""
    found, diagnosis = judge(run, rulebook())
    return text.render(diagnosis, found).plain.splitlines()[1].strip()


# -- disks


def test_a_full_disk_is_named_once_and_everything_before_is_readable(disk, plain, caplog):
    ballast = disk / "ballast"

    def fill():
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 512)

    weights, _ = train(disk / "run", at=after_pauses(30, fill))
    assert same(weights, plain)
    assert [record.message for record in caplog.records if "no space left" in record.message]
    assert len([record for record in caplog.records if "the training is not affected" in record.message]) == 1
    run = read_run(disk / "run")
    assert 28 <= len(run.steps) < STEPS
    assert run.info.status == "finished"
    assert "the recording ended before the training did: no space left on device" in run.warnings[0]
    assert np.array_equal(run.steps.step, np.arange(1, len(run.steps) + 1))


def test_a_disk_that_turns_read_only_is_named_once_and_everything_before_is_readable(tmp_path, plain, caplog):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        def protect():  # no kernel does it while a file is open for writing, unless the disk is failing
            patch.setattr(segments, "append", refuse)
            patch.setattr(segments, "write_file", refuse)
            patch.setattr(recording, "replace_file", refuse)

        weights, _ = train(run, at=after_pauses(30, protect))
    assert same(weights, plain)
    assert len([record for record in caplog.records if "read-only file system" in record.message]) == 1
    assert len(read_run(run).steps) >= 28


def test_a_read_only_disk_is_refused_before_the_training_begins(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(RunDirectoryError, match=r"read-only file system.*choose a run_dir that can be written"):
        train(disk / "run")


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path, plain, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        weights, _ = train(
            tmp_path / "run", at=once(5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1])))
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(weights, plain)
    assert len([record for record in caplog.records if "file too large" in record.message]) == 1


def test_a_directory_that_vanishes_costs_the_recording_only(tmp_path, plain, caplog):
    weights, _ = train(tmp_path / "run", at=once(30, lambda: shutil.rmtree(tmp_path / "run")))
    assert same(weights, plain)
    assert len([record for record in caplog.records if "removed or renamed" in record.message]) == 1


def test_a_disk_that_blocks_for_seconds_does_not_block_the_training_and_loses_nothing(tmp_path, plain, monkeypatch):
    def slowly(write):
        def delayed(*arguments, **options):
            time.sleep(1.2)
            return write(*arguments, **options)

        return delayed

    def block():
        monkeypatch.setattr(segments, "append", slowly(files.append))

    def report(step, monitor):
        once(1, block)(step, monitor)
        if step % 30 == 0:
            monitor.evaluation(loss=1.0 / step)  # wakes the writer at once

    train(tmp_path / "warm")
    weights, seconds = train(tmp_path / "run", at=report)
    assert same(weights, plain)
    assert seconds < 1.0
    run = read_run(tmp_path / "run")
    assert (len(run.steps), len(run.evaluations), run.warnings) == (STEPS, 2, ())


# -- processes


def test_forks_and_workers_of_the_loader_leave_the_recording_alone(tmp_path, plain):
    def fork(step, monitor):
        if step in {10, 40}:
            pid = os.fork()
            if pid == 0:
                monitor.step(123.0)
                monitor.evaluation(loss=123.0)
                monitor.close()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

    weights, _ = train(tmp_path / "run", workers=2, at=fork)
    assert same(weights, plain)
    run = read_run(tmp_path / "run")
    assert run.steps.step.tolist() == list(range(1, STEPS + 1))
    assert (run.steps.columns["train_loss"].values < 100).all()
    assert (len(run.evaluations), run.warnings, run.info.status) == (0, (), "finished")


_SECOND = """
import sys, torch
from lossdoctor import Monitor
from lossdoctor.errors import RunDirectoryError
model = torch.nn.Linear(2, 1)
try:
    Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), sys.argv[1])
except RunDirectoryError as error:
    print(error)
"""


def test_a_second_process_in_the_same_directory_is_refused_and_the_first_goes_on(tmp_path, plain):
    said = []

    def second():
        command = [sys.executable, "-c", _SECOND, str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        said.append(done.stdout)

    weights, _ = train(tmp_path / "run", at=once(30, second))
    assert same(weights, plain)
    assert f"is being written by process {os.getpid()}" in said[0]
    run = read_run(tmp_path / "run")
    assert (len(run.steps), run.warnings) == (STEPS, ())


# -- time


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumps_changes_no_row_but_its_time(tmp_path, plain, monkeypatch, hours):
    clock = time.time
    weights, _ = train(
        tmp_path / "run", at=once(30, lambda: monkeypatch.setattr(time, "time", lambda: clock() + 3600 * hours))
    )
    assert same(weights, plain)
    run = read_run(tmp_path / "run")
    assert run.steps.step.tolist() == list(range(1, STEPS + 1))
    assert (run.warnings, run.info.status) == ((), "finished")
    jumps = np.diff(run.steps.columns["time"].values)
    assert np.flatnonzero(np.abs(jumps) > 3000).tolist() == [28]
    assert (run.steps.columns["step_time"].values[1:] < 60).all()
    judge(tmp_path / "run", rulebook())


# -- how it ended


def test_a_run_that_is_going_on_says_so(tmp_path):
    said = []
    train(tmp_path / "run", at=once(30, lambda: said.append(headline(tmp_path / "run"))))
    assert said[0].endswith("evaluations, running")
    assert headline(tmp_path / "run") == "60 steps, no evaluations, finished"


def test_an_exception_in_the_loop_is_recorded_and_so_is_every_step_before_it(tmp_path):
    def fail():
        raise ValueError("the batch is odd\nand more")

    with pytest.raises(ValueError, match="odd"):
        train(tmp_path / "run", at=once(31, fail))
    assert headline(tmp_path / "run") == "30 steps, no evaluations, crashed (ValueError: the batch is odd)"
    assert read_run(tmp_path / "run").steps.columns["train_loss"].mask().sum() == 30


_INTERRUPTED = """
import signal, sys
import tests.test_nothing_lost as here
step_of = lambda step, monitor: print(step, flush=True)
if sys.argv[2] == "handled":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
here.train(sys.argv[1], steps=100_000, at=step_of)
"""


@pytest.mark.parametrize(
    ("number", "handler", "ending"),
    [
        (signal.SIGINT, "", "stopped (KeyboardInterrupt)"),
        (signal.SIGTERM, "handled", "stopped (SystemExit)"),
        (signal.SIGTERM, "", "killed"),
    ],
    ids=["ctrl-c", "sigterm-handled", "sigterm"],
)
def test_signals_are_told_apart(tmp_path, number, handler, ending):
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path / "run"), handler]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = []
    for line in process.stdout:
        seen.append((int(line), time.monotonic()))
        if seen[-1][0] >= 20 and seen[-1][1] - seen[0][1] > 1.5:
            break
    sent = time.monotonic()
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    last = int(rest.split()[-1]) if rest.split() else seen[-1][0]
    run = read_run(tmp_path / "run")
    if ending == "killed":
        assert len(run.steps) >= max(step for step, when in seen if when < sent - 1.0)
    else:
        assert len(run.steps) >= last - 1
    assert headline(tmp_path / "run") == f"{len(run.steps)} steps, no evaluations, {ending}"


# -- SIGKILL

_SECOND_AND_SLACK = 1.2
"""A second, and how late a thread may wake on a busy machine."""

_NURSERY = """
import json, mmap, os, random, signal, struct, sys, time
from pathlib import Path
import torch
import tests.test_nothing_lost as here
torch.set_num_threads(1)
root, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]]

def victim(seed):
    pause = random.Random(seed).choice([0.0, 0.002, 0.03, 0.2])
    with open(root / f"{seed}.log", "r+b") as file:
        log = mmap.mmap(file.fileno(), 0)
    def note(step, monitor):
        if pause:
            time.sleep(pause)
        log[8 * step : 8 * step + 8] = struct.pack("d", time.monotonic())
    here.train(root / str(seed), steps=60_000, at=note)

for begin in range(0, len(seeds), 3):
    alive = {}
    for seed in seeds[begin : begin + 3]:
        (root / f"{seed}.log").write_bytes(bytes(8 * 60_001))
        pid = os.fork()
        if pid == 0:
            victim(seed)
            os._exit(0)
        alive[pid] = (seed, time.monotonic() + random.Random(seed).uniform(0.0, 3.0))
        while seed % 5 and not (root / f"{seed}.log").read_bytes()[8:16].strip(bytes(1)):
            time.sleep(0.01)  # one in five may die before its first step
    for pid, (seed, due) in sorted(alive.items(), key=lambda item: item[1][1]):
        time.sleep(max(due - time.monotonic(), 0))
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(json.dumps([seed, killed]), flush=True)
"""


def kill(root, seeds):
    """Kill a training for each seed at a random moment, check what is left; how old the oldest lost step was."""
    command = [sys.executable, "-c", _NURSERY, str(root), *map(str, seeds)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    lost = []
    for seed, killed in map(json.loads, done.stdout.splitlines()):
        times = np.fromfile(root / f"{seed}.log", dtype=np.float64)
        reported = np.flatnonzero(times)
        due = np.flatnonzero((times > 0) & (times < killed - _SECOND_AND_SLACK))
        if not (root / str(seed) / "run.json").exists():
            assert not len(reported)
            continue
        run = read_run(root / str(seed))
        assert run.steps.step.tolist() == list(range(1, len(run.steps) + 1))
        assert len(run.steps) >= (due[-1] if len(due) else 0), f"seed {seed}"
        assert np.isfinite(run.steps.columns["train_loss"].values).all() if len(run.steps) else True
        assert run.info.status == "killed"
        assert headline(root / str(seed)).endswith("killed")
        lost.append(
            float(killed - times[len(run.steps) + 1])
            if len(times) and reported.max(initial=0) > len(run.steps)
            else 0.0
        )
    return lost


def test_sigkill_at_any_moment_costs_at_most_the_last_second(tmp_path):
    assert len(kill(tmp_path, range(10))) >= 8


@pytest.mark.slow
def test_sigkill_at_fifty_moments_costs_at_most_the_last_second(tmp_path):
    ages = kill(tmp_path, range(100, 150))
    print(f"age of the oldest lost step: median {np.median(ages):.2f} s, at most {max(ages):.2f} s")
    assert len(ages) >= 40


# -- cut off


def test_a_recorded_segment_cut_at_any_byte_is_readable_up_to_there(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    train(run, steps=5, at=lambda *_: time.sleep(1.1) or save(run, copy))  # a batch each
    (segment,) = (copy / "steps").glob("*.open.arrow")
    data = segment.read_bytes()
    lengths = [sum(map(len, decode(data[:size]).tables)) for size in range(len(data) + 1)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0] == 0
    segment.unlink()
    closed = len(read_run(copy).steps)  # a signal that appeared later began a new segment
    for size in range(0, len(data), 211):
        segment.write_bytes(data[:size])
        assert read_run(copy).steps.step.tolist() == list(range(1, closed + lengths[size] + 1))


def save(run, copy):
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".lock", "*.tmp"))
