"""`lossdoctor watch`: to the end of a run, once, before it begins, and interrupted."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from lossdoctor.runs import Block, Column, RunWriter, Table
from lossdoctor.runs.info import RunInfo

ROOT = Path(__file__).parents[2]


def _block(begin, end):
    step = np.arange(begin, end + 1.0)
    loss = (2.3 * np.exp(-step / 200) + 0.1).astype(np.float32)
    loss[step > 700] = np.nan
    return Block(Table({"step": Column(step), "time": Column(1.7e9 + step), "train_loss": Column(loss)}))


def _started(*arguments, stdout=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, "-m", "lossdoctor", "watch", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )


def test_an_ended_run_is_reported_as_analyze_reports_it(call, runs):
    for name in ("sound", "broken"):
        analyzed = call("analyze", f"runs/{name}")
        watched = call("watch", f"runs/{name}")
        assert watched[0] == analyzed[0]
        assert watched[1].endswith(f"\n\n{analyzed[1]}")


def test_where_there_is_no_terminal_every_change_is_a_line(call, runs):
    lines = call("watch", "runs/broken")[1].splitlines()
    assert "step 701: error[non_finite_loss]: " in lines[0]
    assert "step 1000: verdict=non_finite_loss status=finished" in lines[: lines.index("")][-1]


def test_once_prints_the_view_and_the_verdict(call, runs):
    code, out, err = call("watch", "runs/broken", "--once")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].startswith("runs/broken: finished")
    assert out.splitlines()[-1].startswith("lossdoctor: verdict=non_finite_loss ")
    assert call("watch", "runs/broken", "--once", "--fail-on", "never")[0] == 0


def test_a_run_that_is_not_there_is_an_error_after_the_wait(call):
    begun = time.monotonic()
    code, _, err = call("watch", "nowhere", "--wait", "0.3")
    assert (code, time.monotonic() - begun > 0.3) == (2, True)
    assert err == "error: nowhere: nothing to watch, neither a run nor a log that can be read\n"
    assert call("watch", "nowhere")[2].endswith("; --wait SECONDS waits for it\n")


def test_a_run_that_begins_later_is_followed_to_its_end(workplace):
    process = _started("run", "--wait", "30", "--interval", "0.1")
    time.sleep(1)
    writer = RunWriter(workplace / "run", RunInfo())
    for begin in range(1, 1000, 100):
        writer.write(_block(begin, begin + 99))
        writer.flush(wait=True)
        time.sleep(0.2)
    writer.close("crashed")
    out, err = process.communicate(timeout=60)
    text = out.decode()
    assert (process.returncode, err) == (1, b"")
    assert "error[non_finite_loss]" in text
    assert "status=crashed" in text.splitlines()[-1]


def test_ctrl_c_ends_it_without_a_traceback(workplace):
    writer = RunWriter(workplace / "run", RunInfo())
    writer.write(_block(1, 100))
    writer.flush(wait=True)
    process = _started("run", "--interval", "0.1")
    assert b"verdict=" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    writer.close()


def test_a_terminal_shows_curves_while_it_runs_and_the_report_at_the_end(workplace):
    writer = RunWriter(workplace / "run", RunInfo())
    writer.write(_block(1, 500))
    writer.flush(wait=True)
    terminal, its_side = pty.openpty()
    process = _started("run", "--interval", "0.1", stdout=its_side)
    os.close(its_side)
    shown = bytearray()

    def drain():
        try:
            while data := os.read(terminal, 65_536):
                shown.extend(data)
        except OSError:  # the other side was closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    deadline = time.monotonic() + 30
    while b"train_loss" not in shown and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"running" in shown
    writer.close()
    assert process.communicate(timeout=30) == (None, b"")
    assert process.returncode == 0
    reader.join(10)
    os.close(terminal)
    assert b"lossdoctor: verdict=" in shown.splitlines()[-1]
