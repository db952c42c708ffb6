"""Two processes on gloo: what is recorded of them together is what one process on all their data would have."""

import math
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from lossdoctor.diagnosis import diagnose
from lossdoctor.runs.reader import find_runs, read_run
from lossdoctor.runs.tables import Run
from tests.loops.ranks import MAX_NORM, ROWS, STEPS, batch, make_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Every training of tests/loops/ranks.py, by two processes."""
    here = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("LOSSDOCTOR_RUN_DIR", None)
    with ExitStack() as stack:
        processes = []
        for rank in range(2):
            stderr = stack.enter_context((here / f"stderr-{rank}").open("wb"))
            command = [sys.executable, "-m", "tests.loops.ranks", str(rank), "2", str(here / "store"), str(here)]
            processes.append(subprocess.Popen(command, cwd=here, env=environment, stderr=stderr))
            stack.callback(processes[-1].kill)
        codes = [process.wait(120) for process in processes]
    assert codes == [0, 0], [(here / f"stderr-{rank}").read_text() for rank in range(2)]
    return here


def norm(tensors) -> float:
    return math.sqrt(sum(tensor.double().square().sum().item() for tensor in tensors))


def reference(*, clip: bool) -> tuple[list[dict[str, float]], list[dict[str, np.ndarray]]]:
    """The same training in one process, on the batches of both ranks: rows of steps, and of layers."""
    model = make_model()
    parameters = list(model.parameters())
    layers = [list(module.parameters()) for module in model if isinstance(module, nn.Linear)]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    rows, layer_rows = [], []
    for step in range(STEPS):
        inputs, targets = batch(step)
        optimizer.zero_grad()
        mse_loss(model(inputs), targets).backward()
        row = {"grad_norm": norm(p.grad for p in parameters), "param_norm": norm(parameters)}
        layer_row = {
            "layer_grad_norm": np.array([norm(p.grad for p in layer) for layer in layers]),
            "layer_param_norm": np.array([norm(layer) for layer in layers]),
        }
        if clip:
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        row["grad_norm_clipped"] = norm(p.grad for p in parameters)
        before = [[p.detach().clone() for p in layer] for layer in layers]
        optimizer.step()
        changes = [
            [new.detach() - old for new, old in zip(*pair, strict=True)] for pair in zip(layers, before, strict=True)
        ]
        row["update_ratio"] = norm(change for layer in changes for change in layer) / row["param_norm"]
        row["grad_to_param"] = row["grad_norm"] / row["param_norm"]
        layer_row["layer_update_ratio"] = np.array([norm(layer) for layer in changes]) / layer_row["layer_param_norm"]
        layer_row["layer_grad_to_param"] = layer_row["layer_grad_norm"] / layer_row["layer_param_norm"]
        rows.append(row)
        layer_rows.append(layer_row)
    return rows, layer_rows


def assert_is_the_reference(run: Run, *, clip: bool, layers: bool = True, by_hand: bool = False) -> None:
    """Float32 arithmetic in another order: 1e-4. Reduced `by_hand`, gradients are whole only where the optimizer is."""
    rows, layer_rows = reference(clip=clip)
    unknown = {"grad_norm", "grad_to_param", "layer_grad_norm", "layer_grad_to_param"} if by_hand else set()
    assert run.steps.step.tolist() == list(range(1, STEPS + 1))
    for name in rows[0].keys() - unknown:
        column = run.steps.columns[name]
        seen = column.mask()
        assert seen.all() if name.startswith("grad_norm") else seen.sum() >= 5, name
        wanted = np.array([row[name] for row in rows])[seen]
        np.testing.assert_allclose(column.values[seen], wanted, rtol=1e-4, err_msg=name)
    if clip:
        assert (run.steps.columns["grad_norm_clipped"].values < 0.999 * run.steps.columns["grad_norm"].values).any()
    if not layers:
        return
    steps = run.layers.step.astype(int) - 1
    for name in layer_rows[0].keys() - unknown:
        column = run.layers.columns[name]
        assert column.mask().all(), name
        wanted = np.stack([layer_rows[step][name] for step in steps])
        np.testing.assert_allclose(column.values, wanted, rtol=1e-4, err_msg=name)


def losses(rank: int, directory: Path) -> np.ndarray:
    return read_run(directory / f"rank-{rank}" if rank else directory).steps.columns["train_loss"].values


@pytest.mark.parametrize(("name", "clip"), [("ddp", True), ("ddp_accumulated", False)])
def test_the_global_norm_of_replicas_is_that_of_one_process_on_the_whole_batch(runs, name, clip):
    run = read_run(runs / name)
    assert run.warnings == ()
    assert (run.info.world_size, run.info.rank, run.info.sharded) == (2, 0, False)
    assert_is_the_reference(run, clip=clip)
    assert set(run.steps.columns["samples"].values) == {ROWS}
    assert set(run.steps.columns["micro_batches"].values) == {1 if clip else 2}
    for signal in ("rank_grad_norm_spread", "rank_param_norm_spread", "rank_learning_rate_spread"):
        column = run.steps.columns[signal]
        assert column.mask().any()
        assert set(column.values[column.mask()]) == {0.0}


@pytest.mark.parametrize(
    ("name", "clip", "layers"),
    [("fsdp1", True, False), ("fsdp1_original", True, True), ("fsdp2", True, True), ("partly", False, True)],
)
def test_the_norms_of_all_shards_together_are_those_of_one_process(runs, name, clip, layers):
    run = read_run(runs / name)
    assert run.warnings == ()
    assert run.info.sharded
    assert_is_the_reference(run, clip=clip, layers=layers, by_hand=name == "partly")
    assert "rank_grad_norm_spread" not in run.steps.columns
    alone = read_run(runs / name / "rank-1")
    assert alone.info.rank == 1
    assert (alone.steps.columns["grad_norm"].values < run.steps.columns["grad_norm"].values).all()


def test_each_rank_writes_its_own_recording_and_they_are_one_run(runs):
    assert {path.name for path in find_runs(runs)} >= {"ddp", "fsdp1", "fsdp1_original", "fsdp2", "partly", "slow"}
    assert not [path for path in find_runs(runs) if path.name == "rank-1"]
    spread = read_run(runs / "ddp").steps.columns["rank_loss_spread"].values
    apart = np.abs(losses(0, runs / "ddp").astype(float) - losses(1, runs / "ddp"))
    np.testing.assert_allclose(spread, apart, rtol=1e-6)
    assert (spread > 0).all()


def test_a_slow_rank_shows_although_all_ranks_wait_for_it(runs):
    slow, even = (read_run(runs / name).steps.columns["slowest_rank_step_time_ratio"] for name in ("slow", "ddp"))
    assert slow.mask()[1:].all()
    assert np.median(slow.values[1:]) > 3
    assert np.median(even.values[1:]) < 3
    times = read_run(runs / "slow").steps.columns["step_time"].values[1:]
    assert np.median(times) > 0.025, "rank 0 waited too, so its step time alone says nothing"


def test_a_replica_out_of_step_shows_from_the_first_sample_behind_it(runs):
    column = read_run(runs / "apart").steps.columns["rank_param_norm_spread"]
    steps = read_run(runs / "apart").steps.step[column.mask()]
    values = column.values[column.mask()]
    assert set(values[steps <= 5]) == {0.0}
    assert (values[steps > 5] > 1e-6).all()


def test_replicas_out_of_step_are_found_and_replicas_in_step_are_not(runs):
    for name in ("ddp", "ddp_accumulated", "slow", "fsdp2", "apart"):
        findings = {finding.rule: finding for finding in diagnose(read_run(runs / name)).findings}
        assert ("rank_desync" in findings) == (name == "apart"), name
        if name == "apart":
            assert findings["rank_desync"].severity == "error"
            assert 5 <= findings["rank_desync"].since <= 8


def test_the_norms_of_shards_are_not_passed_for_norms_where_a_rank_is_missing(runs, tmp_path):
    for name in ("run.json", "events.jsonl", "steps", "layers"):
        (tmp_path / name).symlink_to(runs / "fsdp2" / name)
    run = read_run(tmp_path)
    assert "grad_norm" not in run.steps.columns
    assert "layer_grad_norm" not in run.layers.columns
    assert "train_loss" in run.steps.columns
    assert any("1 rank is not recorded" in warning for warning in run.warnings)


def test_a_rank_that_was_given_no_directory_says_so_once_and_records_nothing(runs):
    (default,) = find_runs(runs / "runs")
    assert read_run(default).steps.step.tolist() == [1, 2]
    assert not (default / "rank-1").exists()
    assert (runs / "stderr-1").read_text().count("was given no run_dir") == 1
    assert "lossdoctor" not in (runs / "stderr-0").read_text()
