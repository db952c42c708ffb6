"""Whole trainings: every number of the model's instruments beside a slow reference, and a training left as it was."""

import copy
import logging
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run
from lossdoctor.runs.tables import Run


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch._dynamo.reset()  # another test may have compiled something


class Net(nn.Module):
    """A model with one of everything that is measured."""

    def __init__(self, checkpoints: str = "") -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
        self.drop, self.fc, self.tanh = nn.Dropout(0.2), nn.Linear(96, 20), nn.Tanh()
        self.head = nn.Linear(20, 3)
        self.checkpoints = checkpoints

    def stem(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpoints:
            x = checkpoint(self.stem, x.requires_grad_(), use_reentrant=self.checkpoints == "reentrant")
        else:
            x = self.stem(x)
        return self.head(self.tanh(4 * self.fc(self.drop(x).flatten(1))))


def batch(rows: int = 16) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 1, 6, 6)
    return x, (x.mean((1, 2, 3)) > 0).long()


def train(
    model: nn.Module,
    steps: int = 8,
    *,
    around: Callable[[int], None] = lambda _: None,
    optimizer: torch.optim.Optimizer | None = None,
    call: Callable[[Tensor], Tensor] | None = None,
    autocast: torch.dtype | None = None,
) -> tuple[Run, list[float]]:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for step in range(steps):
            x, y = batch()
            x = x.to(next(model.parameters()).dtype)
            with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                loss = F.cross_entropy((call or model)(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            around(step)
            optimizer.step()
            losses.append(loss.item())
            monitor.step(loss)
    return read_run(monitor.run_dir), losses


def layer(run: Run, name: str) -> np.ndarray:
    column = run.layers.columns[name]
    return np.where(column.mask(), column.values, np.nan)


def step(run: Run, name: str) -> list[float | None]:
    column = run.steps.columns[name]
    return [float(v) if seen else None for v, seen in zip(column.values, column.mask(), strict=True)]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("checkpoints", ["", "reentrant", "saved"])
def test_activations_are_those_of_the_sampled_forward(checkpoints):
    model = Net(checkpoints)
    seen: list[dict[str, float]] = []

    def spied(x: Tensor) -> Tensor:
        with torch.random.fork_rng(), torch.no_grad():
            other = copy.deepcopy(model)
            before = (other.norm.running_mean.clone(), other.norm.running_var.clone())
            conv = other.conv(x)
            norm = other.norm(conv)
            relu = norm.clamp(min=0)
            fc = other.fc(other.drop(relu).flatten(1))
            tanh = torch.tanh(4 * fc)
            mean, variance = conv.mean((0, 2, 3)), conv.var((0, 2, 3))
            shift = ((mean - before[0]).abs() / (before[1] + 1e-5).sqrt()).median()
            seen.append(
                {
                    "std": [float(one.double().numpy().std()) for one in (conv, norm, fc, other.head(tanh))],
                    "dead": float(np.mean([not (unit > 0).any() for unit in relu.movedim(1, 0)])),
                    "saturated": float((tanh.abs() > 0.99).double().mean()),
                    "shift": float(shift),
                    "ratio": float(((variance + 1e-5) / (before[1] + 1e-5)).median()),
                }
            )
        return model(x)

    with torch.no_grad():
        model.norm.bias[2] = -9.0
    model.drop.p = 0.0 if checkpoints else 0.2
    run, _ = train(model, call=spied)
    sampled = seen[::2]
    assert run.layers.step.tolist() == [1, 3, 5, 7]
    assert layer(run, "layer_activation_std") == pytest.approx(np.array([one["std"] for one in sampled]), rel=1e-4)
    assert layer(run, "layer_dead_share")[:, 1] == pytest.approx([one["dead"] for one in sampled])
    assert layer(run, "layer_dead_share")[0, 1] >= 1 / 6
    assert layer(run, "layer_saturated_share")[:, 2] == pytest.approx([one["saturated"] for one in sampled], abs=1e-6)
    for name in ("layer_dead_share", "layer_saturated_share"):
        assert np.isfinite(layer(run, name)).sum() == 4
    # A reentrant checkpoint has its gradients in the second forward: the first has moved the statistics by then.
    exact = 0.4 if checkpoints == "reentrant" else 1e-3
    assert layer(run, "layer_batch_norm_shift")[:, 1] == pytest.approx([one["shift"] for one in sampled], rel=exact)
    assert step(run, "batch_norm_shift")[::2] == pytest.approx([one["shift"] for one in sampled], rel=exact)
    assert step(run, "batch_norm_variance_ratio")[::2] == pytest.approx([one["ratio"] for one in sampled], rel=exact)
    assert run.info.checks.activation_modules == 2
    assert run.info.checks.activations_unchecked == ""


@pytest.mark.parametrize("momentum", [None, 0.001])
def test_batch_statistics_are_taken_from_the_batch_where_the_update_does_not_tell_them(momentum):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=momentum))
    x = torch.randn(32, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inside = model[0](x).detach()
    with Monitor(model, optimizer, "run") as monitor:
        loss = model(x).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        monitor.step(loss)
    expected = (inside.mean(0).abs() / math.sqrt(1 + 1e-5)).median()
    assert step(read_run(monitor.run_dir), "batch_norm_shift") == pytest.approx([float(expected)], rel=1e-4)


def test_a_shared_activation_belongs_to_the_layer_that_ran_before_it():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.first, self.second = nn.Linear(36, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.second(self.act(self.first(x.flatten(1)))))

    model = Shared()
    with torch.no_grad():
        model.first.bias[:4] = -99.0
        model.second.bias[:2] = -99.0
    run, _ = train(model)
    assert layer(run, "layer_dead_share")[0, 0] == 0.5
    assert layer(run, "layer_dead_share")[0, 1] >= 0.25


def test_an_evaluation_between_steps_is_not_what_is_measured():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    expected = []
    with Monitor(model, optimizer, "run") as monitor:
        for _ in range(5):
            model.eval()
            for gradients in (True, False):
                with torch.set_grad_enabled(gradients):
                    model(99 * batch()[0])
            model.train()
            x, y = batch()
            expected.append(float(model.conv(x).detach().double().numpy().std()))
            # What was just called is part of no training forward; the model's own call is.
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    found = layer(read_run(monitor.run_dir), "layer_activation_std")[:, 0]
    assert found == pytest.approx(expected[::2], rel=1e-4)


def test_hooks_are_gone_after_the_sampled_step():
    model = Net()
    counts = []
    run, _ = train(model, 12, around=lambda _: counts.append(hooks(model)))
    assert hooks(model) == 0
    assert all(counts[::2])
    assert not any(counts[1::2])
    assert len(run.layers) == 6


def test_a_model_may_be_copied_and_saved_while_hooks_are_in_it():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run"):
        assert hooks(model)
        copied, loaded = copy.deepcopy(model), pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
        text = pickle.dumps(model)
    assert b"lossdoctor" not in text
    for other in (copied, loaded):
        other(batch()[0]).sum().backward()


def test_a_training_is_bit_identical_with_dropout_and_batch_norm():
    model = Net()
    bare = copy.deepcopy(model)
    _, losses = train(model, 20)
    torch.manual_seed(0)
    Net()  # takes the random numbers that the model took
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.05, momentum=0.9)
    expected = []
    for _ in range(20):
        x, y = batch()
        loss = F.cross_entropy(bare(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert losses == expected
    for mine, other in zip(model.state_dict().values(), bare.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("order", ["before", "after"])
def test_under_torch_compile_nothing_is_hooked_and_nothing_compiled_twice(order):
    frames = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        from torch._dynamo.backends.debugging import aot_eager

        frames.append(graph)
        return aot_eager(graph, inputs)

    from lossdoctor.capture.faults import Faults
    from lossdoctor.capture.instruments import Instruments
    from lossdoctor.capture.names import layers_of
    from lossdoctor.capture.record import Record
    from lossdoctor.capture.ring import Drain

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend=backend, fullgraph=True) if order == "before" else None
    instruments = Instruments(model, layers_of(model), [optimizer], Drain(), Faults())
    for at in range(6):
        record = Record(samples_due=at % 2 == 0)
        record.fired = 1
        instruments.opened(record)
        if compiled is None:
            compiled = torch.compile(model, backend=backend, fullgraph=True)
        compiled(batch()[0]).sum().backward()
        optimizer.step()
        instruments.finished(record)
        assert not instruments.completed(record, [])
        assert "gradient_cosine" in record.values or not at % 2 or record.waiting
    assert len(frames) == 1
    assert instruments._sampler.unchecked == "torch.compile"
    instruments.close()
    assert hooks(model) == 0


def test_a_compiled_module_is_never_hooked():
    model = torch.compile(Net(), backend="aot_eager")
    run, _ = train(model, 4, around=lambda _: None)
    assert run.info.checks.activations_unchecked == "torch.compile"
    assert "layer_activation_std" not in run.layers.columns
    assert step(run, "modules_in_eval") == [0.0, None, 0.0, None]


def test_gradients_of_successive_steps_are_compared():
    model = Net()
    gradients = []
    run, _ = train(
        model, 8, around=lambda _: gradients.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]))
    )
    found = step(run, "gradient_cosine")
    assert [value is None for value in found] == [True, False] * 4
    expected = [F.cosine_similarity(a, b, dim=0).item() for a, b in zip(gradients[::2], gradients[1::2], strict=True)]
    assert found[1::2] == pytest.approx(expected, abs=0.06)


def test_gradients_that_are_never_zeroed_point_the_same_way():
    model = nn.Linear(36, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with Monitor(model, optimizer, "run") as monitor:
        for _ in range(40):
            x, y = batch()
            loss = F.cross_entropy(model(x.flatten(1)), y)
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    cosines = [value for value in step(read_run(monitor.run_dir), "gradient_cosine") if value is not None]
    assert cosines[-1] > 0.95


@pytest.mark.parametrize("kind", ["norm", "value", "none"])
def test_clipping_is_known_by_what_it_does(kind):
    model = Net()
    reduced = []

    def clip(at: int) -> None:
        before = math.sqrt(sum(p.grad.double().square().sum() for p in model.parameters()))
        limit = 1e-2 if at % 2 else 1e3
        if kind == "norm":
            nn.utils.clip_grad_norm_(model.parameters(), limit)
        elif kind == "value":
            nn.utils.clip_grad_value_(model.parameters(), limit)
        after = math.sqrt(sum(p.grad.double().square().sum() for p in model.parameters()))
        reduced.append(float(after < 0.999 * before))

    run, _ = train(model, 8, around=clip)
    assert step(run, "clipped") == reduced
    assert set(reduced) == ({0.0} if kind == "none" else {0.0, 1.0})


def test_low_precision_is_counted_entry_by_entry():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 30), nn.ReLU(), nn.Linear(30, 3)).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    kept: list[tuple[list[Tensor], list[Tensor]]] = []
    zeros, lost = [], []

    def around(_: int) -> None:
        gradients = [p.grad.clone() for p in model.parameters()]
        zeros.append(sum((g == 0).sum().item() for g in gradients) / sum(g.numel() for g in gradients))
        kept.append(([p.detach().clone() for p in model.parameters()], gradients))

    run, _ = train(model, 6, around=around, optimizer=optimizer)
    for before, gradients in kept:
        after = [p - 1e-3 * g for p, g in zip(before, gradients, strict=True)]
        pairs = list(zip(before, after, gradients, strict=True))
        same = sum(((b == a) & (g != 0)).sum().item() for b, a, g in pairs)
        lost.append(same / sum((g != 0).sum().item() for g in gradients))
    assert step(run, "grad_zero_share")[::2] == pytest.approx(zeros[::2], abs=1e-6)
    assert step(run, "lost_update_share")[::2] == pytest.approx(lost[::2], abs=0.02)
    assert lost[0] > 0.3
    assert run.info.precision == "bf16 weights"
    assert run.info.model.low_precision == 1.0


def test_autocast_is_seen_where_a_layer_runs():
    run, _ = train(Net(), 3, autocast=torch.bfloat16)
    assert run.info.precision == "fp32 weights, bf16 autocast"
    assert run.info.checks.autocast == "bfloat16"
    assert "lost_update_share" not in run.steps.columns
    assert "grad_zero_share" not in run.steps.columns


def test_what_takes_no_part_is_named_and_follows_the_training():
    model = Net()
    model.unused = nn.Linear(2, 2)
    model.forgotten = nn.Linear(3, 3)
    model.conv.requires_grad_(False)
    held = [p for name, p in model.named_parameters() if not name.startswith("forgotten")]
    optimizer = torch.optim.SGD(held, lr=0.05)
    forward = model.forward
    model.forward = lambda x: model.forgotten(forward(x))

    def around(at: int) -> None:
        if at == 5:
            model.conv.requires_grad_(True)
            optimizer.add_param_group({"params": list(model.forgotten.parameters()), "lr": 0.0})
        model.train(at < 7)

    run, _ = train(model, 10, around=around, optimizer=optimizer)
    checks = run.info.checks
    assert checks.parameters_without_gradient == ["unused.weight", "unused.bias"]
    assert checks.parameters_without_optimizer == []
    assert checks.parameters_never_moved == []
    assert step(run, "parameters_without_gradient")[2::2] == [2.0] * 4
    assert step(run, "parameters_without_optimizer")[2::2] == [2.0, 2.0, 0.0, 0.0]
    assert step(run, "frozen_parameters")[::2] == [2.0, 2.0, 2.0, 0.0, 0.0]
    assert step(run, "modules_in_eval")[::2] == [0.0, 0.0, 0.0, 0.0, 2.0]
    assert checks.modules_in_eval == ["norm", "drop"]
    assert checks.frozen_parameters == 0


def test_a_weight_too_large_for_its_steps_never_moves():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.LayerNorm(4), nn.Linear(4, 3)).bfloat16()
    with torch.no_grad():
        model[2].weight.fill_(4.0)
    run, _ = train(model, 12, optimizer=torch.optim.SGD(model.parameters(), lr=1e-3))
    assert "2.weight" in run.info.checks.parameters_never_moved
    assert step(run, "parameters_never_moved")[-2] == len(run.info.checks.parameters_never_moved)


def test_beta2_is_recorded():
    model = Net()
    run, _ = train(model, 3, optimizer=torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95)))
    assert step(run, "beta2") == pytest.approx([0.95] * 3)
    run, _ = train(model, 3, optimizer=torch.optim.RMSprop(model.parameters(), alpha=0.98))
    assert step(run, "beta2") == pytest.approx([0.98] * 3)


@pytest.mark.parametrize(
    ("place", "instrument"),
    [
        ("forwards.activation_std", "activation samples"),
        ("instruments.lost_updates", "low-precision updates"),
        ("instruments.nonzero", "gradient samples"),
        ("instruments.in_eval", "gradient samples"),
        ("probe.cosine_of", "model signals"),
    ],
)
def test_a_fault_switches_off_one_instrument_and_no_training(place, instrument, monkeypatch, caplog):
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(f"lossdoctor.capture.{place}", broken)
    run, losses = train(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).bfloat16(), 8)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([line for line in warnings if "failed" in line]) == 1
    assert f"lossdoctor: {instrument} failed (MemoryError: none left)" in warnings[0]
    assert len(run.steps) == len(losses) == 8
    assert all(value is not None for value in step(run, "grad_norm"))
