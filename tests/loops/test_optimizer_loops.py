"""Optimizers that are not one plain call: several, closures, sparse ones, and some that torch does not have."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run
from tests.loops.ledger import Ledger, assert_recorded
from tests.loops.test_model_loops import STEPS, batches

TWO_LAYERS = (12, 24, 4)


def small_net(sizes=TWO_LAYERS):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2]))


@pytest.mark.parametrize("order", ["discriminator first", "generator first"])
def test_a_gan_has_a_row_a_round_with_both_gradients_as_they_were_used(tmp_path, order):
    """The generator's backward pass fills the discriminator's gradients too; they are thrown away, and not counted."""
    generator, judge = small_net((6, 16, 12)), small_net((12, 16, 1))
    optimizers = [torch.optim.Adam(judge.parameters(), lr=2e-3), torch.optim.Adam(generator.parameters(), lr=1e-3)]
    ledgers = {"judge": Ledger(judge, optimizers[0]), "generator": Ledger(generator, optimizers[1])}
    draw = torch.Generator().manual_seed(3)
    losses = []

    def step_judge(real):
        optimizers[0].zero_grad()
        fake = generator(torch.randn(16, 6, generator=draw)).detach()
        loss = binary_cross_entropy_with_logits(judge(real), torch.ones(16, 1))
        loss = loss + binary_cross_entropy_with_logits(judge(fake), torch.zeros(16, 1))
        return loss, optimizers[0], ledgers["judge"]

    def step_generator(real):
        optimizers[1].zero_grad()
        fake = generator(torch.randn(16, 6, generator=draw))
        loss = binary_cross_entropy_with_logits(judge(fake), torch.ones(16, 1))
        return loss, optimizers[1], ledgers["generator"]

    turns = [step_judge, step_generator] if order == "discriminator first" else [step_generator, step_judge]
    both = nn.ModuleDict({"judge": judge, "generator": generator})
    with Monitor(both, optimizers, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for real, _ in batches():
            row = []
            for turn in turns:
                loss, optimizer, ledger = turn(real)
                loss.backward()
                ledger.backward(loss, 16)
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                row.append(loss.detach())
            losses.append(row)
            monitor.step(dict(zip([turn.__name__.removeprefix("step_") for turn in turns], row, strict=True)))
    run = read_run(tmp_path)
    steps = run.steps.columns
    assert steps["step"].values.tolist() == list(range(1, STEPS + 1))
    for name in ("grad_norm", "grad_norm_clipped", "param_norm"):
        column = steps[name]
        pairs = zip(ledgers["judge"].rows, ledgers["generator"].rows, strict=True)
        wanted = np.array([np.hypot(judged[name], made[name]) for judged, made in pairs])[column.mask()]
        np.testing.assert_allclose(column.values[column.mask()], wanted, rtol=2e-5, err_msg=name)
    assert steps["grad_norm"].mask().all()
    for at, name in enumerate(turn.__name__.removeprefix("step_") for turn in turns):
        np.testing.assert_allclose(steps[f"train_loss_{name}"].values, [float(row[at]) for row in losses], rtol=1e-6)
    assert set(steps["learning_rate_group0"].values) == {np.float32(2e-3)}
    assert set(steps["learning_rate_group1"].values) == {np.float32(1e-3)}
    names = [layer.name for layer in run.info.model.layers]
    at_step = run.layers.step.astype(int) - 1
    for owner, ledger in ledgers.items():
        for layer in ("0", "2"):
            column = run.layers.columns["layer_grad_norm"].values[:, names.index(f"{owner}.{layer}")]
            wanted = [ledger.layer_rows[step]["layer_grad_norm"][layer] for step in at_step]
            np.testing.assert_allclose(column, wanted, rtol=2e-5)


def test_lbfgs_is_recorded_by_the_first_evaluation_of_its_closure(tmp_path):
    model = small_net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for x, y in batches(10):
            evaluations = []

            def closure(x=x, y=y, evaluations=evaluations):
                optimizer.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                if not evaluations:
                    ledger.backward(loss, len(x))
                    ledger.before_step()
                evaluations.append(loss)
                return loss

            loss = optimizer.step(closure)
            ledger.after_step()
            monitor.step(loss, samples=len(x))
            assert len(evaluations) > 1
    assert_recorded(tmp_path, ledger)


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.items, self.head = nn.Embedding(50, 8, sparse=True), nn.Linear(8, 4)

    def forward(self, items):
        return self.head(self.items(items).mean(1))


def test_sparse_gradients_are_measured_with_repeated_rows_added_up(tmp_path):
    """Embedding(sparse=True) with SparseAdam, the rest with Adam."""
    torch.manual_seed(0)
    model = Recommender()
    optimizers = [
        torch.optim.SparseAdam(model.items.parameters(), lr=1e-2),
        torch.optim.Adam(model.head.parameters(), lr=1e-2),
    ]
    ledgers = [Ledger(model, optimizer) for optimizer in optimizers]
    draw = torch.Generator().manual_seed(5)
    with Monitor(model, optimizers, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(STEPS):
            items = torch.randint(6, (16, 4), generator=draw)  # few of them: every row several times
            loss = cross_entropy(model(items), items[:, 0] % 4)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer, ledger in zip(optimizers, ledgers, strict=True):
                ledger.backward(loss, 16)
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
            monitor.step(loss, samples=16)
    run = read_run(tmp_path)
    for name in ("grad_norm", "grad_norm_clipped", "param_norm"):
        column = run.steps.columns[name]
        wanted = [np.hypot(*(ledger.rows[step][name] for ledger in ledgers)) for step in range(STEPS)]
        np.testing.assert_allclose(column.values[column.mask()], np.array(wanted)[column.mask()], rtol=2e-5)
    wanted = [ledgers[0].layer_rows[int(step) - 1]["layer_update_ratio"]["items"] for step in run.layers.step]
    np.testing.assert_allclose(run.layers.columns["layer_update_ratio"].values[:, 0], wanted, rtol=2e-5)


class EvenDescent(torch.optim.Optimizer):
    """An optimizer as people write their own: Lion, in ten lines."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(momentum.lerp(p.grad, 1 - group["betas"][0]).sign_(), alpha=group["lr"])
                momentum.lerp_(p.grad, 1 - group["betas"][1])


def from_package(name, **settings):
    return lambda parameters: getattr(importlib.import_module("pytorch_optimizer"), name)(parameters, **settings)


OPTIMIZERS = {
    "own Lion": lambda parameters: EvenDescent(parameters, lr=1e-3, weight_decay=0.1),
    "Lion": from_package("Lion", lr=1e-3),
    "LARS": from_package("LARS", lr=0.1, momentum=0.9, weight_decay=1e-4),
    "LAMB": from_package("Lamb", lr=1e-2),
    "NAdam": lambda parameters: torch.optim.NAdam(parameters, lr=1e-2),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=1e-2),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_any_kind_has_its_true_update_recorded(tmp_path, name):
    model = small_net()
    optimizer = OPTIMIZERS[name](model.parameters())
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for x, y in batches():
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            ledger.backward(loss, len(x))
            ledger.before_step()
            optimizer.step()
            ledger.after_step()
            monitor.step(loss, samples=len(x))
    run = assert_recorded(tmp_path, ledger)
    assert run.info.optimizers[0].scale_invariant == (name != "own Lion"), "known by the names of optimizers"


@pytest.mark.parametrize("kind", ["AdamWScheduleFree", "SGDScheduleFree"])
def test_a_schedule_free_optimizer_is_recorded_at_the_point_it_trains_at(tmp_path, kind):
    """Gradients and updates are of y, the weights in train mode; validation is at x, in eval mode."""
    schedulefree = importlib.import_module("schedulefree")
    model = small_net()
    optimizer = getattr(schedulefree, kind)(model.parameters(), lr=0.02, warmup_steps=4)
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(3):
            optimizer.train()
            for x, y in batches(8):
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                ledger.backward(loss, len(x))
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                monitor.step(loss, samples=len(x))
            optimizer.eval()
            with torch.no_grad():
                val_loss = np.mean([cross_entropy(model(x), y).item() for x, y in batches(3, seed=9)])
            monitor.evaluation(loss=val_loss)
            ledger.evaluated(loss=val_loss)
    assert_recorded(tmp_path, ledger)
