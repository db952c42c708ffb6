"""Monitor against real, small trainings: every recorded number beside a slow and obvious reference."""

import copy
import logging
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from lossdoctor import Monitor
from lossdoctor.errors import RunDirectoryError, UsageError
from lossdoctor.runs.reader import read_run
from lossdoctor.runs.tables import Run, Table


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def net(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def data(rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 6)
    return x, (x.sum(1) > 0).long()


def column(table: Table, name: str) -> list[float | None]:
    """Values of a column, None where nothing was observed."""
    found = table.columns[name]
    return [float(v) if seen else None for v, seen in zip(found.values, found.mask(), strict=True)]


def observed(run: Run, name: str) -> list[float]:
    return [value for value in column(run.steps, name) if value is not None]


def total(tensors: Any, scale: float = 1.0) -> float:
    return math.sqrt(sum(float((t.detach().double() / scale).square().sum()) for t in tensors))


class Reference(dict[str, list[float]]):
    """What a loop sees beside the Monitor."""

    def note(self, **values: float) -> None:
        for name, value in values.items():
            self.setdefault(name, []).append(float(value.detach() if isinstance(value, torch.Tensor) else value))


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


# -- every recorded number


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clips", [None, "torch", "monitor", "value"])
def test_a_plain_loop_is_recorded_exactly(fused, clips):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05, betas=(0.8, 0.99), fused=fused)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    seen = Reference()
    with Monitor(model, optimizer, "run", scheduler=schedule, grad_norm_every=1) as monitor:
        for _ in range(30):
            x, y = data()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            seen.note(loss=loss, grad_norm=total(gradients(model)), learning_rate=optimizer.param_groups[0]["lr"])
            if clips == "torch":
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            elif clips == "monitor":
                monitor.clip_grad_norm_(0.1)
            elif clips == "value":
                nn.utils.clip_grad_value_(model.parameters(), 0.01)
            before = [p.detach().clone() for p in model.parameters()]
            seen.note(clipped=total(gradients(model)), param_norm=total(before))
            optimizer.step()
            change = [new - old for new, old in zip(model.parameters(), before, strict=True)]
            seen.note(update_ratio=total(change) / total(before))
            schedule.step()
            monitor.step(loss, samples=len(x), tokens=7)
    run = read_run(monitor.run_dir)
    rows = run.steps
    assert column(rows, "step") == list(range(1, 31))
    assert column(rows, "train_loss") == pytest.approx(seen["loss"], rel=1e-6)
    assert column(rows, "learning_rate") == pytest.approx(seen["learning_rate"], rel=1e-6)
    assert column(rows, "nominal_learning_rate") == column(rows, "learning_rate")
    assert column(rows, "grad_norm") == pytest.approx(seen["grad_norm"], rel=1e-5)
    assert column(rows, "grad_norm_clipped") == pytest.approx(seen["clipped"], rel=1e-5)
    assert set(column(rows, "momentum")) == {np.float32(0.8)}
    assert set(column(rows, "weight_decay")) == {np.float32(0.05)}
    assert column(rows, "samples") == [8.0] * 30
    assert column(rows, "tokens") == [7.0] * 30
    assert column(rows, "micro_batches") == [1.0] * 30
    assert "skipped" not in rows.columns
    sampled = [i for i, value in enumerate(column(rows, "param_norm")) if value is not None]
    assert sampled == list(range(0, 30, 2))
    for name in ("param_norm", "update_ratio"):
        assert observed(run, name) == pytest.approx([seen[name][i] for i in sampled], rel=1e-5)
    assert observed(run, "grad_to_param") == pytest.approx(
        [seen["grad_norm"][i] / seen["param_norm"][i] for i in sampled], rel=1e-5
    )
    assert run.info.scheduler == "ExponentialLR"


def test_layers_are_measured_at_sample_steps():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []
    with Monitor(model, optimizer, "run") as monitor:
        for step in range(5):
            x, y = data()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            layers = [model[0], model[3]]
            norms = [total(gradients(layer)) for layer in layers]
            sizes = [total(layer.parameters()) for layer in layers]
            optimizer.step()
            if step % 2 == 0:
                expected.append([norms, sizes, [0.1 * g / s for g, s in zip(norms, sizes, strict=True)]])
            monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert [layer.name for layer in run.info.model.layers] == ["0", "3"]
    assert run.layers.step.tolist() == [1, 3, 5]
    found = [run.layers.columns[f"layer_{name}"].values for name in ("grad_norm", "param_norm", "update_ratio")]
    assert np.stack(found, axis=1) == pytest.approx(np.array(expected), rel=1e-4)


class Scaled:
    """A loop under a GradScaler, with an overflow at some steps."""

    def __init__(self, fused: bool, *, dtype: torch.dtype = torch.float16) -> None:
        self.model = net()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, fused=fused)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
        self.dtype = dtype
        self.seen = Reference()

    def backward(self, overflow: bool, parts: int = 1) -> torch.Tensor:
        x, y = data()
        with torch.autocast("cpu", dtype=self.dtype):
            loss = F.cross_entropy(self.model(x * math.inf if overflow else x), y)
        self.scaler.scale(loss / parts).backward()
        return loss


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [None, "after unscale_", "before unscale_", "monitor"])
@pytest.mark.parametrize("early", [False, True], ids=["step after update", "step before update"])
def test_a_scaled_loop_is_recorded_unscaled_with_its_skipped_steps(fused, clip, early):
    loop = Scaled(fused)
    overflows = {3, 7, 8}
    with Monitor(loop.model, loop.optimizer, "run", scaler=loop.scaler, grad_norm_every=1) as monitor:
        for step in range(14):
            loss = loop.backward(step in overflows)
            scale = loop.scaler.get_scale()
            loop.seen.note(loss=loss, scale=scale, norm=total(gradients(loop.model), scale))
            if clip == "after unscale_":
                loop.scaler.unscale_(loop.optimizer)
                nn.utils.clip_grad_norm_(loop.model.parameters(), 0.05)
            elif clip == "before unscale_":
                nn.utils.clip_grad_norm_(loop.model.parameters(), 0.05)
            elif clip == "monitor":
                monitor.clip_grad_norm_(0.05)
            used = {None: loop.seen["norm"][-1], "before unscale_": 0.05 / scale}.get(clip, 0.05)
            loop.seen.note(clipped=math.nan if step in overflows else used)
            loop.scaler.step(loop.optimizer)
            if early:
                monitor.step(loss)
            loop.scaler.update()
            loop.optimizer.zero_grad()
            if not early:
                monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert column(run.steps, "step") == list(range(1, 15))
    assert column(run.steps, "skipped") == [float(step in overflows) for step in range(14)]
    assert column(run.steps, "loss_scale") == loop.seen["scale"]
    assert column(run.steps, "train_loss") == pytest.approx(loop.seen["loss"], rel=1e-6, nan_ok=True)
    finite = [step for step in range(14) if step not in overflows]
    norms, clipped = column(run.steps, "grad_norm"), column(run.steps, "grad_norm_clipped")
    assert [norms[i] for i in finite] == pytest.approx([loop.seen["norm"][i] for i in finite], rel=1e-5)
    assert [clipped[i] for i in finite] == pytest.approx([loop.seen["clipped"][i] for i in finite], rel=1e-4)
    assert not any(math.isfinite(norms[i]) for i in overflows)
    wrong = column(run.steps, "clip_scaled")
    assert {wrong[i] for i in finite} == {float(clip == "before unscale_")}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("every_batch", [False, True], ids=["a call a step", "a call a micro-batch"])
@pytest.mark.parametrize("scaled", [False, True])
def test_accumulation_is_merged_into_its_optimizer_step(fused, every_batch, scaled):
    loop = Scaled(fused)
    if not scaled:
        loop.scaler = torch.amp.GradScaler("cpu", enabled=False)
    losses, norms = [], []
    with Monitor(loop.model, loop.optimizer, "run", scaler=loop.scaler, grad_norm_every=1) as monitor:
        for step in range(9):
            parts = 2 if step == 5 else 3
            reported = []
            for part in range(parts):
                loss = loop.backward(scaled and step == 4, parts)
                if part < parts - 1 and every_batch:
                    monitor.step(loss, samples=8)
                    reported.append(loss.item())
            reported.append(loss.item())
            losses.append(sum(reported) / len(reported))
            norms.append(total(gradients(loop.model), loop.scaler.get_scale() if scaled else 1.0))
            loop.scaler.step(loop.optimizer)
            loop.scaler.update()
            loop.optimizer.zero_grad()
            monitor.step(loss, samples=8 if every_batch else 8 * parts)
    run = read_run(monitor.run_dir)
    assert column(run.steps, "step") == list(range(1, 10))
    assert column(run.steps, "micro_batches") == [3.0] * 5 + [2.0] + [3.0] * 3
    assert column(run.steps, "samples") == [24.0] * 5 + [16.0] + [24.0] * 3
    assert column(run.steps, "train_loss") == pytest.approx(losses, rel=1e-5, nan_ok=True)
    found = column(run.steps, "grad_norm")
    finite = [i for i in range(9) if not (scaled and i == 4)]
    assert [found[i] for i in finite] == pytest.approx([norms[i] for i in finite], rel=1e-5)


def test_a_loop_that_reports_before_its_optimizer_step_is_recorded_alike():
    def run(before: bool) -> Run:
        torch.manual_seed(1)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Monitor(model, optimizer, f"run-{before}", grad_norm_every=1) as monitor:
            for _ in range(12):
                x, y = data()
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                if before:
                    monitor.step(loss)
                optimizer.step()
                if not before:
                    monitor.step(loss)
        return read_run(monitor.run_dir)

    one, other = run(before=True), run(before=False)
    for name in ("step", "train_loss", "grad_norm", "update_ratio", "learning_rate"):
        assert column(one.steps, name) == column(other.steps, name), name


def test_two_optimizers_have_a_loss_each_and_a_norm_together():
    generator, critic = nn.Linear(3, 6), nn.Linear(6, 1)
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    opt_d = torch.optim.SGD(critic.parameters(), lr=1e-2)
    norms, losses = [], []
    with Monitor(both, [opt_g, opt_d], "run", grad_norm_every=1) as monitor:
        for _ in range(6):
            z = torch.randn(4, 3)
            opt_d.zero_grad()
            loss_d = critic(generator(z).detach()).mean()
            loss_d.backward()
            of_critic = total(gradients(critic))
            opt_d.step()
            opt_g.zero_grad()
            loss_g = -critic(generator(z)).mean()
            loss_g.backward()
            norms.append(math.hypot(of_critic, total(gradients(generator))))
            losses.append(loss_g.item())
            opt_g.step()
            monitor.step({"g": loss_g, "d": loss_d})
    run = read_run(monitor.run_dir)
    assert column(run.steps, "step") == [1, 2, 3, 4, 5, 6]
    assert column(run.steps, "train_loss_g") == pytest.approx(losses)
    assert "train_loss" not in run.steps.columns
    assert column(run.steps, "grad_norm") == pytest.approx(norms, rel=1e-5)
    assert set(column(run.steps, "learning_rate")) == {np.float32(1e-2)}
    assert set(column(run.steps, "learning_rate_group0")) == {np.float32(1e-3)}
    assert set(column(run.steps, "learning_rate_group1")) == {np.float32(1e-2)}


def test_a_closure_is_measured_at_its_first_evaluation():
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    norms, losses = [], []
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for _ in range(5):
            norms.append(total(torch.autograd.grad(F.mse_loss(model(x), y), list(model.parameters()))))

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                return loss

            loss = optimizer.step(closure)
            losses.append(loss.item())
            monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert column(run.steps, "step") == [1, 2, 3, 4, 5]
    assert column(run.steps, "train_loss") == pytest.approx(losses)
    assert column(run.steps, "grad_norm") == pytest.approx(norms, rel=1e-4)
    assert column(run.steps, "grad_norm_clipped") == column(run.steps, "grad_norm")


def test_a_parameter_without_gradient_does_not_blind_the_monitor():
    model = nn.ModuleDict({"used": nn.Linear(6, 3), "unused": nn.Linear(1, 1), "frozen": nn.Linear(6, 3)})
    model["frozen"].requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for _ in range(4):
            x, y = data()
            loss = F.cross_entropy(model["used"](x), y)
            optimizer.zero_grad()
            loss.backward()
            norms.append(total(gradients(model)))
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert column(run.steps, "grad_norm")[0] is None  # the first step: nobody saw the gradient before it was clipped
    assert column(run.steps, "grad_norm")[1:] == pytest.approx(norms[1:], rel=1e-5)
    assert column(run.steps, "grad_norm_clipped") == pytest.approx([0.1] * 4, rel=1e-4)
    unused = run.layers.columns["layer_grad_norm"].mask()[-1]
    assert unused.tolist() == [True, False, False]


def test_a_group_that_is_added_later_is_measured_from_then_on():
    model = net()
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)
    norms = []
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for step in range(6):
            if step == 3:
                optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.05})
            x, y = data()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            norms.append(total(gradients(model[3] if step < 3 else model)))
            optimizer.step()
            monitor.step(loss)
    found = column(read_run(monitor.run_dir).steps, "grad_norm")
    assert [found[i] for i in (0, 1, 2, 4, 5)] == pytest.approx([norms[i] for i in (0, 1, 2, 4, 5)], rel=1e-5)


def test_sparse_gradients_are_measured():
    model = nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with torch.sparse.check_sparse_tensor_invariants(), Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for _ in range(3):
            loss = model(torch.randint(0, 20, (5, 2))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            norms.append(total(g.to_dense() for g in gradients(model)))
            optimizer.step()
            monitor.step(loss)
    assert column(read_run(monitor.run_dir).steps, "grad_norm") == pytest.approx(norms, rel=1e-5)


def test_the_layers_of_a_non_finite_gradient_are_recorded_at_its_step():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run", grad_norm_every=1, remediate="off") as monitor:
        for step in range(8):
            x, y = data()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if step == 5:
                model[0].weight.grad.fill_(math.nan)
            optimizer.step()
            monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert math.isnan(column(run.steps, "train_loss")[6])
    at = run.layers.step.tolist().index(7)
    assert np.isnan(run.layers.columns["layer_grad_norm"].values[at]).all()


# -- the API around it


def test_evaluations_metrics_and_epochs_are_recorded():
    model, (x, y) = net(), data(40)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    with Monitor(model, optimizer, "run") as monitor:
        batches = monitor.batches(loader)
        assert len(batches) == 3
        assert batches.dataset is loader.dataset
        for epoch in range(2):
            for bx, by in batches:
                out = model(bx)
                loss = F.cross_entropy(out, by)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss, metrics={"accuracy": (out.argmax(1) == by).float().mean()})
            monitor.evaluation(loss=1.0 - epoch / 4, accuracy=torch.tensor(0.5))
        assert monitor.best.step == 6
        assert monitor.best.value == 0.75
        assert not monitor.should_stop
    run = read_run(monitor.run_dir)
    assert column(run.evaluations, "step") == [3.0, 6.0]
    assert column(run.evaluations, "val_loss") == [1.0, 0.75]
    assert column(run.evaluations, "val_accuracy") == [0.5, 0.5]
    assert column(run.steps, "samples") == [16.0, 16.0, 8.0] * 2
    assert all(0 < value < 1 for value in observed(run, "data_wait"))
    assert all(0 <= value <= 1 for value in observed(run, "train_accuracy"))
    times = column(run.steps, "step_time")
    assert times[0] is None
    assert all(value > 0 for value in times[1:])
    assert [(mark.name, mark.step) for mark in run.marks] == [("epoch", 0.0), ("epoch", 3.0)]
    assert run.info.status == "finished"


def train(steps: int, directory: str, *, start: int = 0, state: dict[str, Any] | None = None) -> Monitor:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer, directory)
    if state is not None:
        monitor.load_state_dict(state)
    with monitor:
        for _ in range(start, steps):
            x, y = data()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    return monitor


def test_a_resumed_training_goes_on_in_its_run_and_supersedes_what_came_after_the_checkpoint():
    first = train(20, "run")
    resumed = train(25, "run", start=15, state={"step": 15})
    assert resumed.run_dir == first.run_dir
    run = read_run(resumed.run_dir)
    assert column(run.steps, "step") == list(range(1, 26))
    assert [mark.name for mark in run.marks] == ["resume"]
    assert run.steps.step[run.steps.columns["resumed"].mask()].tolist() == [16]


def test_a_second_training_in_a_directory_is_a_new_attempt():
    assert train(3, "run").run_dir == Path("run")
    assert train(3, "run").run_dir == Path("run/attempt-2")


def test_two_monitors_on_one_directory_are_an_error():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run"), pytest.raises(RunDirectoryError, match="is being written by"):
        Monitor(model, optimizer, "run")


def test_lossdoctor_off_makes_it_nothing(monkeypatch):
    monkeypatch.setenv("LOSSDOCTOR", "off")
    model, loader = net(), [1, 2]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run") as monitor:
        assert monitor.batches(loader) is loader
        model(data()[0]).sum().backward()
        assert monitor.clip_grad_norm_(0.1) > 0.1
        assert total(gradients(model)) == pytest.approx(0.1, rel=1e-4)
        optimizer.step()
        monitor.step(torch.ones(()))
        monitor.evaluation(loss=1.0)
        assert monitor.run_dir is None
        assert not monitor.should_stop
        assert monitor.best is None
    assert list(Path().iterdir()) == []
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    ("error", "status", "mark", "detail"),
    [
        (ValueError("bad batch"), "crashed", "exception", "ValueError: bad batch"),
        (KeyboardInterrupt(), "stopped", "stop", "KeyboardInterrupt"),
    ],
)
def test_how_a_training_ended_is_recorded(error, status, mark, detail):
    model = net()
    monitor = Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), "run")
    with pytest.raises(type(error)), monitor:
        raise error
    run = read_run(Path("run"))
    assert run.info.status == status
    assert [(m.name, m.detail) for m in run.marks] == [(mark, detail)]


def test_closing_takes_out_every_hook_and_a_forgotten_monitor_closes_itself():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer, "run")
    assert optimizer._optimizer_step_pre_hooks
    del monitor
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert read_run(Path("run")).info.status == "finished"


def test_a_watched_model_can_be_copied_and_saved():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run"):
        copied = copy.deepcopy(model)
        assert not any(p._post_accumulate_grad_hooks for p in copied.parameters())
        torch.save(model, "model.pt")
        torch.save(optimizer, "optimizer.pt")


# -- wrong use


def test_wrong_arguments_are_one_line_errors():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for arguments, options, message in [
        ((optimizer, model), {}, "expected a torch module first, got SGD"),
        ((model, model), {}, "expected a torch optimizer or several, got Sequential"),
        ((model, optimizer), {"remediate": "please"}, "expected one of off, suggest, auto"),
        ((model, optimizer), {"grad_norm_every": 0}, "expected a positive number"),
    ]:
        with pytest.raises(UsageError, match=message) as raised:
            Monitor(*arguments, **options)
        assert "\n" not in str(raised.value)
    assert list(Path().iterdir()) == []


def test_a_loss_that_is_not_a_scalar_is_named_once_and_the_rest_is_recorded(caplog):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for _ in range(3):
            x, y = data()
            loss = F.cross_entropy(model(x), y, reduction="none")
            loss.mean().backward()
            optimizer.step()
            monitor.step(loss)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "lossdoctor: train_loss of shape (8,) is not one number and is not recorded; report its mean, e.g. value.mean()"
    ]
    run = read_run(monitor.run_dir)
    assert "train_loss" not in run.steps.columns
    assert len(observed(run, "grad_norm")) == 3


def test_calls_without_any_optimizer_step_are_mentioned_once_and_recorded(caplog):
    model = net()
    stranger = torch.optim.SGD(net().parameters(), lr=0.1)
    with Monitor(model, stranger, "run") as monitor:
        for _ in range(40):
            monitor.step(1.0)
    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "give Monitor the optimizer that the loop steps" in warnings[0]
    run = read_run(monitor.run_dir)
    assert column(run.steps, "step") == list(range(1, 26))
    assert column(run.steps, "train_loss") == [1.0] * 25


def test_a_model_without_parameters_has_its_loss_recorded(caplog):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with Monitor(nn.ReLU(), optimizer, "run") as monitor:
        for _ in range(20):
            monitor.step(0.5)
    assert "ReLU has no parameters" in caplog.text
    assert len(read_run(monitor.run_dir).steps) == 5


# -- it never changes a training


def trained(remediate: str | None, make: Callable[[nn.Module], torch.optim.Optimizer], amp: torch.dtype | None) -> Any:
    """Losses and weights of a training with dropout, a scheduler and shuffling workers."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global generator must not be touched either
    model = net(dropout=0.3)
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=40)
    scaler = torch.amp.GradScaler("cpu", enabled=amp == torch.float16, init_scale=2.0**18)
    x, y = torch.randn(80, 6), torch.randint(0, 3, (80,))
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, num_workers=1)
    monitor = None
    if remediate is not None:
        monitor = Monitor(model, optimizer, "run", scheduler=schedule, scaler=scaler, remediate=remediate)
    losses = []
    for _ in range(4):
        for bx, by in loader if monitor is None else monitor.batches(loader):
            with torch.autocast("cpu", dtype=amp or torch.bfloat16, enabled=amp is not None):
                loss = F.cross_entropy(model(bx), by)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            if monitor is None:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            else:
                monitor.clip_grad_norm_(0.5)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            if monitor is not None:
                monitor.step(loss, samples=len(bx))
            losses.append(loss.detach().clone())
        if monitor is not None:
            monitor.evaluation(loss=losses[-1])
    if monitor is not None:
        monitor.close()
    draws = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    return torch.stack(losses), [p.detach().clone() for p in model.parameters()], draws


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("remediate", ["off", "suggest"])
@pytest.mark.parametrize(
    ("make", "amp"),
    [
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True), None),
        (lambda model: torch.optim.AdamW(model.parameters(), lr=0.1), torch.bfloat16),
        (lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, fused=True), torch.float16),
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1), torch.float16),
    ],
    ids=["sgd", "adamw-bf16", "fused-fp16-scaler", "sgd-fp16-scaler"],
)
def test_a_monitored_training_is_bit_identical_to_an_unmonitored_one(make, amp, remediate):
    losses, weights, draws = trained(None, make, amp)
    watched_losses, watched_weights, watched_draws = trained(remediate, make, amp)
    assert torch.equal(losses, watched_losses)
    assert all(torch.equal(a, b) for a, b in zip(weights, watched_weights, strict=True))
    assert torch.equal(draws[0], watched_draws[0])
    assert draws[1:] == watched_draws[1:]


@pytest.mark.parametrize(
    "place",
    [
        "settings.SettingsReader.read",
        "hooks.copies",
        "hooks.subtract",
        "ring.norms",
        "recorder.complete",
        "record._layer_row",
        "session.Session.flush",
        "timing._samples",
    ],
)
def test_a_fault_of_our_own_is_named_once_and_never_reaches_the_loop(place, monkeypatch, caplog):
    def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError("broken on purpose")

    model, (x, y) = net(), data(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monkeypatch.setattr(f"lossdoctor.capture.{place}", broken)
    losses = []
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for _ in range(3):
            for bx, by in monitor.batches(DataLoader(TensorDataset(x, y), batch_size=8)):
                loss = F.cross_entropy(model(bx), by)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss)
                losses.append(loss.item())
            monitor.evaluation(loss=1.0)
    assert len(losses) == 12
    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert all("broken on purpose" in warning and "\n" not in warning for warning in warnings)
    assert len(set(warnings)) == len(warnings) <= 3


def test_a_directory_that_vanishes_is_mentioned_once_and_the_training_goes_on(caplog):
    import shutil
    import time

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run") as monitor:
        for _ in range(4):
            model(data()[0]).mean().backward()
            optimizer.step()
            monitor.step(0.1)
            monitor.evaluation(loss=1.0)
            shutil.rmtree("run", ignore_errors=True)
            time.sleep(0.2)
    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "the training is not affected" in warnings[0]


# -- it never waits for a device


class Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] = self.calls.get(str(func), 0) + 1
        return func(*args, **(kwargs or {}))


def test_nothing_is_asked_of_a_tensor_in_steady_state():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    calls: dict[str, int] = {}
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for step in range(150):
            x, y = data()
            with Counter() as counter:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                monitor.step(loss, samples=8, metrics={"accuracy": loss.detach()})
            calls = {**calls, **counter.calls} if step else {}
        monitor.evaluation(loss=loss)
    assert "aten._foreach_norm.Scalar" in calls
    assert not any("_local_scalar_dense" in call for call in calls)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("remediate", ["off", "suggest"])
def test_a_whole_loop_on_the_meta_device_asks_no_tensor_for_its_value(make, remediate, caplog):
    model = net().to("meta")
    optimizer = make(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run", grad_norm_every=1, remediate=remediate) as monitor:
        for _ in range(30):
            x, y = torch.empty(8, 6, device="meta"), torch.empty(8, dtype=torch.long, device="meta")
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            monitor.step(loss, samples=8, metrics={"accuracy": loss})
        monitor.evaluation(loss=loss)
    assert caplog.text == ""
    run = read_run(monitor.run_dir)
    assert column(run.steps, "step") == list(range(1, 31))
    assert "train_loss" not in run.steps.columns
    assert set(column(run.steps, "learning_rate")) == {np.float32(0.1)}


# -- torch.compile


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("compiled", ["model", "step"])
@pytest.mark.parametrize("first", ["monitor", "compile"])
def test_compiled_code_is_recorded_without_graph_breaks_or_recompilation(compiled, first):
    def run(watched: bool) -> tuple[int, int, Run | None]:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2), foreach=False, capturable=False)
        monitor = Monitor(model, optimizer, "run", grad_norm_every=1) if watched and first == "monitor" else None
        forward = torch.compile(model, backend="aot_eager") if compiled == "model" else model
        step = torch.compile(optimizer.step, backend="aot_eager") if compiled == "step" else optimizer.step
        if watched and monitor is None:
            monitor = Monitor(forward, optimizer, "run", grad_norm_every=1)
        for _ in range(6):
            x, y = data()
            loss = F.cross_entropy(forward(x), y)
            optimizer.zero_grad()
            loss.backward()
            step()
            if monitor is not None:
                monitor.step(loss)
        if monitor is not None:
            monitor.close()
        counters = torch._dynamo.utils.counters
        frames = counters["stats"].get("unique_graphs", 0)
        return sum(counters["graph_break"].values()), frames, None if monitor is None else read_run(Path("run"))

    breaks, graphs, _ = run(watched=False)
    watched_breaks, watched_graphs, record = run(watched=True)
    assert watched_breaks <= breaks
    assert watched_graphs == graphs
    assert column(record.steps, "step") == [1, 2, 3, 4, 5, 6]
    assert len(observed(record, "grad_norm")) == 6
