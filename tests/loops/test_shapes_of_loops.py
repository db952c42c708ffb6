"""Loops of unusual shape: leftovers, calls in another order, begun midway, ended and gone on with, compiled."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run
from tests.loops.ledger import Ledger, assert_recorded
from tests.loops.test_model_loops import batches
from tests.loops.test_optimizer_loops import small_net

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("patient", [False, True], ids=["losses read at once", "losses read later"])
def test_micro_batches_left_over_at_the_end_of_an_epoch_are_in_no_row(tmp_path, patient):
    """Seven micro-batches, accumulated by three: the seventh is thrown away by zero_grad at the next epoch's start."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger = Ledger(model, optimizer)
    epochs = 50 if patient else 6  # losses are read later once 64 were seen to be left alone
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for epoch in range(epochs):
            optimizer.zero_grad()
            ledger.dropped()
            for index, (x, y) in enumerate(batches(7, seed=epoch)):
                loss = cross_entropy(model(x), y)
                (loss / 3).backward()
                ledger.backward(loss, len(x))
                if (index + 1) % 3 == 0:
                    ledger.before_step()
                    optimizer.step()
                    ledger.after_step()
                    optimizer.zero_grad()
                monitor.step(loss, samples=len(x))
    run = assert_recorded(tmp_path, ledger)
    assert set(run.steps.columns["micro_batches"].values) == {3}
    assert set(run.steps.columns["samples"].values) == {48}


def test_a_loss_that_is_not_finite_is_recorded_even_if_its_gradient_is_thrown_away(tmp_path):
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, tmp_path, remediate="off") as monitor:
        for index, (x, y) in enumerate(batches(9)):
            loss = cross_entropy(model(x), y) * (math.nan if index == 4 else 1)
            loss.backward()
            if loss.isfinite():
                optimizer.step()
            optimizer.zero_grad()
            monitor.step(loss)
    losses = read_run(tmp_path).steps.columns["train_loss"].values
    assert np.isnan(losses).tolist() == [False] * 4 + [True] + [False] * 3


def test_calls_before_the_optimizer_step_are_the_same_rows(tmp_path):
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for x, y in batches():
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            monitor.step(loss, samples=len(x))
            ledger.backward(loss, len(x))
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            ledger.before_step()
            optimizer.step()
            ledger.after_step()
    assert_recorded(tmp_path, ledger)


def test_a_monitor_attached_midway_counts_from_one_and_is_right_at_once(tmp_path):
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for x, y in batches(9, seed=4):
        cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    ledger = Ledger(model, optimizer)
    cross_entropy(model(x), y).backward()  # and even behind a backward pass
    optimizer.zero_grad()
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for x, y in batches():
            loss = cross_entropy(model(x), y)
            loss.backward()
            ledger.backward(loss, len(x))
            ledger.before_step()
            optimizer.step()
            ledger.after_step()
            optimizer.zero_grad()
            monitor.step(loss, samples=len(x))
    assert_recorded(tmp_path, ledger)


FIRST_PROCESS = """
import os, sys, torch
from torch.nn.functional import cross_entropy
from lossdoctor import Monitor
from tests.loops.test_model_loops import batches
from tests.loops.test_optimizer_loops import small_net

model = small_net()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
monitor = Monitor(model, optimizer, sys.argv[1], remediate="off", grad_norm_every=1)
for step, (x, y) in enumerate(batches(14), 1):
    loss = cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    monitor.step(loss, samples=len(x))
    if step == 8:
        parts = {"model": model, "optimizer": optimizer, "monitor": monitor}
        torch.save({name: part.state_dict() for name, part in parts.items()}, sys.argv[2])
monitor._session.flush(lag=0)
monitor._session.writer.flush(wait=True)
os._exit(1)  # as a node that is taken away
"""


def test_a_training_resumed_in_a_new_process_is_one_run_without_what_came_after_the_checkpoint(tmp_path):
    command = [sys.executable, "-c", FIRST_PROCESS, str(tmp_path / "run"), str(tmp_path / "checkpoint")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1
    assert read_run(tmp_path / "run").steps.step.tolist() == list(range(1, 15))

    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    reference = Ledger(model, optimizer)
    saved = torch.load(tmp_path / "checkpoint")
    with Monitor(model, optimizer, tmp_path / "run", remediate="off", grad_norm_every=1) as monitor:
        for part, name in ((model, "model"), (optimizer, "optimizer"), (monitor, "monitor")):
            part.load_state_dict(saved[name])
        for x, y in list(batches(14))[8:]:
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            reference.backward(loss, len(x))
            reference.before_step()
            optimizer.step()
            reference.after_step()
            monitor.step(loss, samples=len(x))
        monitor.evaluation(loss=loss)
    assert monitor.run_dir == tmp_path / "run"
    run = read_run(tmp_path / "run")
    assert run.warnings == ()
    assert run.steps.step.tolist() == list(range(1, 15))
    assert [(mark.name, mark.step) for mark in run.marks] == [("resume", 8.0)]
    assert run.evaluations.step.tolist() == [14]
    for name in ("train_loss", "grad_norm", "grad_norm_clipped", "learning_rate"):
        wanted = [row[name] for row in reference.rows]
        np.testing.assert_allclose(run.steps.columns[name].values[8:], wanted, rtol=2e-5, err_msg=name)


@pytest.fixture
def _fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("compiled", ["model", "optimizer step", "forward and backward"])
def test_compiled_loops_are_recorded_right_and_compile_as_often_as_without_a_monitor(tmp_path, compiled):
    def run(directory):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = small_net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2), foreach=False)
        forward, step = model, optimizer.step
        if compiled == "model":
            forward = torch.compile(model, backend="aot_eager")
        elif compiled == "optimizer step":
            step = torch.compile(optimizer.step, backend="aot_eager")

        def gradients(x, y):
            loss = cross_entropy(forward(x), y)
            loss.backward()
            return loss.detach()

        if compiled == "forward and backward":
            gradients = torch.compile(gradients, backend="aot_eager")
        ledger = Ledger(model, optimizer)
        monitor = directory and Monitor(forward, optimizer, directory, remediate="off", grad_norm_every=1)
        for x, y in batches():
            optimizer.zero_grad()
            loss = gradients(x, y)
            ledger.backward(loss, len(x))
            ledger.before_step()
            step()
            ledger.after_step()
            if monitor:
                monitor.step(loss, samples=len(x))
        if monitor:
            monitor.close()
        counters = torch._dynamo.utils.counters
        return ledger, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())

    _, *bare = run(None)
    ledger, *watched = run(tmp_path)
    assert all(count <= without for count, without in zip(watched, bare, strict=True)), (watched, bare)
    assert_recorded(tmp_path, ledger)
