"""Models with something special about their parameters: tied, frozen, adapted, checkpointed, averaged."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint

from lossdoctor import Monitor
from tests.loops.ledger import Ledger, assert_recorded
from tests.loops.problems import RegularizedNet, digits_loaders, plain_mlp

STEPS = 16


def batches(count=STEPS, *, seed=0):
    """Random rows with a rule to learn: inputs (16, 12), labels (16,)."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.randn(16, 12, generator=draw)
        yield x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


def train(directory, model, optimizer, *, data=batches, after=lambda step: None, before=lambda step: None):
    """The plain loop, with a ledger."""
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, directory, remediate="off", grad_norm_every=1) as monitor:
        for step, (x, y) in enumerate(data()):
            before(step)
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            ledger.backward(loss, len(x))
            ledger.before_step()
            optimizer.step()
            ledger.after_step()
            monitor.step(loss, samples=len(x))
            after(step)
    return assert_recorded(directory, ledger)


class TiedLanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.mix = nn.Embedding(20, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.mix(self.embedding(tokens).mean(1))))


def test_a_tied_weight_counts_once(tmp_path):
    torch.manual_seed(0)
    model = TiedLanguageModel()

    def tokens():
        draw = torch.Generator().manual_seed(1)
        for _ in range(STEPS):
            text = torch.randint(20, (8, 5), generator=draw)
            yield text, text[:, 0]

    run = train(tmp_path, model, torch.optim.AdamW(model.parameters(), lr=1e-2), data=tokens)
    assert [layer.name for layer in run.info.model.layers] == ["embedding", "mix"]
    assert run.info.model.parameters == 20 * 8 + 8 * 8 + 8


@pytest.mark.parametrize("given", ["all parameters", "those that train"])
def test_a_frozen_backbone_is_in_no_norm(tmp_path, given):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    model[0].requires_grad_(False)
    parameters = model.parameters() if given == "all parameters" else model[2].parameters()
    run = train(tmp_path, model, torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    norm = math.sqrt(sum(run.layers.columns["layer_param_norm"].values[0, 1:] ** 2))
    assert run.steps.columns["param_norm"].values[0] == pytest.approx(norm, rel=1e-6)
    assert run.info.model.trainable == 32 * 4 + 4


def test_progressive_unfreezing_is_measured_from_the_step_it_happens(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    model[0].requires_grad_(False)

    def before(step):
        if step == 6:
            model[0].requires_grad_(True)

    run = train(tmp_path, model, torch.optim.Adam(model.parameters(), lr=1e-2), before=before)
    seen = run.layers.columns["layer_grad_norm"].mask()[:, 0]
    assert (seen == (run.layers.step > 6)).all()


class LoRALinear(nn.Module):
    def __init__(self, linear, rank=2):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) / rank)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + x @ self.a.T @ self.b.T


@pytest.mark.parametrize("given", ["all parameters", "those that train"])
def test_lora_adapters_are_measured_without_the_weights_they_adapt(tmp_path, given):
    """B starts at zero: the first gradient of A is exactly zero, and is recorded as that."""
    torch.manual_seed(0)
    model = nn.Sequential(LoRALinear(nn.Linear(12, 32)), nn.ReLU(), LoRALinear(nn.Linear(32, 4)))
    parameters = [one for one in model.parameters() if one.requires_grad or given == "all parameters"]
    first = {}

    def after(step):
        if not step:
            first.update(a=model[2].a.grad.norm().item(), b=model[2].b.grad.norm().item())

    run = train(tmp_path, model, torch.optim.AdamW(parameters, lr=1e-2), after=after)
    assert first["a"] == 0.0
    assert run.steps.columns["param_norm"].values[0] < 10
    names = [layer.name for layer in run.info.model.layers]
    row = run.layers.columns["layer_grad_norm"].values[0]
    assert row[names.index("2")] == pytest.approx(first["b"], rel=1e-5)


def test_discriminative_rates_are_recorded_group_by_group(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    rates = [1e-7, 1e-5, 1e-3]
    groups = [{"params": model[2 * at].parameters(), "lr": rate} for at, rate in enumerate(rates)]
    optimizer = torch.optim.AdamW(groups)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    run = train(tmp_path, model, optimizer, after=lambda step: scheduler.step())
    decay = 0.9 ** np.arange(STEPS)
    for at, rate in enumerate(rates):
        np.testing.assert_allclose(run.steps.columns[f"learning_rate_group{at}"].values, rate * decay, rtol=1e-6)
    np.testing.assert_allclose(run.steps.columns["learning_rate"].values, 1e-3 * decay, rtol=1e-6)


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.first = nn.Linear(12, 16)
        # The smallest parameters are in the middle: the groups' norms have one, the linear layers have more.
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.GroupNorm(1, 16), nn.PReLU()) for _ in range(3)
        )
        self.last = nn.Linear(16, 4)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.last(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_recorded_as_a_run_without(tmp_path, reentrant):
    torch.manual_seed(0)
    model = Checkpointed(reentrant=reentrant)
    run = train(tmp_path, model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert set(run.steps.columns["micro_batches"].values) == {1}


@pytest.mark.parametrize("reentrant", [False, True])
def test_clipping_after_checkpointing_is_told_from_what_came_before(tmp_path, reentrant):
    torch.manual_seed(0)
    model = Checkpointed(reentrant=reentrant)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for x, y in batches():
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            ledger.backward(loss, len(x))
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            ledger.before_step()
            optimizer.step()
            ledger.after_step()
            monitor.step(loss, samples=len(x))
    run = assert_recorded(tmp_path, ledger)
    np.testing.assert_allclose(run.steps.columns["grad_norm_clipped"].values, 0.1, rtol=1e-4)


def test_an_average_of_the_weights_is_no_part_of_the_training(tmp_path):
    """EMA, validated with the averaged model."""
    torch.manual_seed(0)
    train_loader, val_loader = digits_loaders(64)
    model = plain_mlp()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, remediate="off", grad_norm_every=1, also=[ema]) as monitor:
        for _ in range(2):
            for x, y in train_loader:
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                ledger.backward(loss, len(x))
                ledger.before_step()
                optimizer.step()
                ema.update_parameters(model)
                ledger.after_step()
                monitor.step(loss, samples=len(x))
            with torch.no_grad():
                val_loss = np.mean([cross_entropy(ema(x), y).item() for x, y in val_loader])
            monitor.evaluation(loss=val_loss)
            ledger.evaluated(loss=val_loss)
    run = assert_recorded(tmp_path, ledger)
    assert run.info.model.parameters == sum(one.numel() for one in model.parameters())


def test_stochastic_weight_averaging_is_recorded_with_the_rate_that_was_in_force(tmp_path):
    """torch's recipe: cosine, then SWALR and an average, at last the batch norm statistics of the average."""
    torch.manual_seed(0)
    train_loader, val_loader = digits_loaders(128)
    model = RegularizedNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    swa, swa_start = AveragedModel(model), 2
    swa_scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, tmp_path, scheduler=cosine, remediate="off", grad_norm_every=1) as monitor:
        for epoch in range(4):
            for x, y in train_loader:
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                ledger.backward(loss, len(x))
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                monitor.step(loss, samples=len(x))
            if epoch >= swa_start:
                swa.update_parameters(model)
                swa_scheduler.step()
            else:
                cosine.step()
        update_bn(train_loader, swa)
        swa.eval()
        with torch.no_grad():
            val_loss = np.mean([cross_entropy(swa(x), y).item() for x, y in val_loader])
        monitor.evaluation(loss=val_loss)
        ledger.evaluated(loss=val_loss)
    run = assert_recorded(tmp_path, ledger)
    rates = run.steps.columns["learning_rate"].values[::10]
    np.testing.assert_allclose(rates[:3], [0.1, 0.1 * (1 + math.cos(math.pi / 4)) / 2, 0.05], rtol=1e-6)
