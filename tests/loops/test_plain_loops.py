"""Full precision: mini-batches, schedules by step and by epoch, clipping, other optimizers."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lossdoctor import Monitor
from tests.loops.ledger import Ledger, assert_healthy, assert_recorded
from tests.loops.problems import ConvNet, RegularizedNet, digits_loaders, plain_mlp
from tests.pathologies.optimizers import Lion


@torch.no_grad()
def validate(model, loader, criterion):
    model.eval()
    total, right, count = 0.0, 0, 0
    for images, labels in loader:
        scores = model(images)
        total += criterion(scores, labels).item() * len(labels)
        right += (scores.argmax(1) == labels).sum().item()
        count += len(labels)
    model.train()
    return total / count, right / count


def test_mini_batch_descent_on_slices_of_a_permutation(tmp_path):
    """Guide E 1.3: no loader; the loop slices a permutation, and reports an epoch's mean."""
    torch.manual_seed(42)
    X = torch.randn(512, 10)
    y = X @ torch.randn(10, 1) + 0.1 * torch.randn(512, 1)
    X, X_val, y, y_val = X[:384], X[384:], y[:384], y[384:]
    model = nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    criterion = nn.MSELoss()
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, run_dir=tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(20):
            order = torch.randperm(len(X))
            for start in range(0, len(X), 32):
                rows = order[start : start + 32]
                optimizer.zero_grad()
                loss = criterion(model(X[rows]), y[rows])
                loss.backward()
                ledger.backward(loss, len(rows))
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                monitor.step(loss, samples=len(rows))
            with torch.no_grad():
                val_loss = criterion(model(X_val), y_val).item()
            monitor.evaluation(loss=val_loss)
            ledger.evaluated(loss=val_loss)
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)


OPTIMIZERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.02),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.02, momentum=0.9),
    "nesterov": lambda weights: torch.optim.SGD(weights, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adam": lambda weights: torch.optim.Adam(weights, lr=3e-3, weight_decay=1e-4),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01),
    "adagrad": lambda weights: torch.optim.Adagrad(weights, lr=0.02),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=1e-3),
    "lion": lambda weights: Lion(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_loop_for_every_optimizer(tmp_path, name):
    """Guide E 2.8: the same full-batch loop, once an optimizer, with nothing but the loss to report."""
    torch.manual_seed(0)
    X = torch.randn(300, 2)
    y = (X[:, 0] * 2 + X[:, 1] * 3 + torch.randn(300) * 0.1).unsqueeze(1)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = OPTIMIZERS[name](model.parameters())
    criterion = nn.MSELoss()
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, run_dir=tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(200):
            optimizer.zero_grad()
            loss = criterion(model(X), y)
            loss.backward()
            ledger.backward(loss, 300)
            ledger.before_step()
            optimizer.step()
            ledger.after_step()
            monitor.step(loss, samples=300)
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)


def warmup_then_cosine(optimizer, warmup, total):
    def factor(step):
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))

    return lr_scheduler.LambdaLR(optimizer, factor)


SCHEDULES = {
    "warmup_cosine": lambda optimizer, total: warmup_then_cosine(optimizer, total // 20, total),
    "onecycle": lambda optimizer, total: lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=total),
    "restarts": lambda optimizer, total: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=total // 3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_stepped_after_every_batch(tmp_path, name):
    """Guides B and E 3: the schedule moves before the Monitor is told; the rate in force is recorded all the same."""
    torch.manual_seed(1)
    train_loader, val_loader = digits_loaders(64)
    model = plain_mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
    epochs = 10
    scheduler = SCHEDULES[name](optimizer, epochs * len(train_loader))
    criterion = nn.CrossEntropyLoss()
    ledger = Ledger(model, optimizer)
    total = epochs * len(train_loader)
    with Monitor(
        model, optimizer, scheduler=scheduler, total_steps=total, run_dir=tmp_path, remediate="off", grad_norm_every=1
    ) as monitor:
        for _ in range(epochs):
            for images, labels in monitor.batches(train_loader):
                optimizer.zero_grad()
                loss = criterion(model(images), labels)
                loss.backward()
                ledger.backward(loss, len(images))
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                scheduler.step()
                monitor.step(loss, samples=len(images))
            val_loss, val_accuracy = validate(model, val_loader, criterion)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    run = assert_recorded(tmp_path, ledger)
    assert (run.steps.columns["data_wait"].values >= 0).all()
    assert_healthy(tmp_path)


@pytest.mark.parametrize("clip", ["torch", "monitor"])
def test_cosine_by_epoch_with_clipping(tmp_path, clip):
    """Guide A: AdamW, cosine over the epochs, clipping to 1 between backward and step."""
    torch.manual_seed(2)
    train_loader, val_loader = digits_loaders(32)
    model = ConvNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    epochs = 6
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    loss_fn = nn.CrossEntropyLoss()
    ledger = Ledger(model, optimizer)
    with Monitor(
        model, optimizer, scheduler=scheduler, run_dir=tmp_path, remediate="off", grad_norm_every=1
    ) as monitor:
        for _ in range(epochs):
            model.train()
            for xb, yb in train_loader:
                optimizer.zero_grad(set_to_none=True)
                loss = loss_fn(model(xb), yb)
                loss.backward()
                ledger.backward(loss, len(xb))
                if clip == "torch":
                    nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
                else:
                    monitor.clip_grad_norm_(1.0)
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                monitor.step(loss, samples=len(xb))
            scheduler.step()
            val_loss, val_accuracy = validate(model, val_loader, loss_fn)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    run = assert_recorded(tmp_path, ledger)
    clipped = run.steps.columns["grad_norm"].values > 1.001
    assert clipped.any()
    np.testing.assert_allclose(run.steps.columns["grad_norm_clipped"].values[clipped], 1.0, rtol=1e-4)
    assert_healthy(tmp_path)


def test_halving_the_rate_where_validation_stands_still(tmp_path):
    """Guide B: batch norm and dropout, two parameter groups, ReduceLROnPlateau fed by the validation loss."""
    torch.manual_seed(3)
    train_loader, val_loader = digits_loaders(64)
    model = RegularizedNet()
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("scores")]
    optimizer = torch.optim.AdamW(
        [{"params": rest, "lr": 2e-3}, {"params": model.scores.parameters(), "lr": 4e-3}], weight_decay=0.01
    )
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=2)
    criterion = nn.CrossEntropyLoss()
    ledger = Ledger(model, optimizer)
    with Monitor(
        model, optimizer, scheduler=scheduler, run_dir=tmp_path, remediate="off", grad_norm_every=1
    ) as monitor:
        for _ in range(12):
            for images, labels in train_loader:
                optimizer.zero_grad()
                loss = criterion(model(images), labels)
                loss.backward()
                ledger.backward(loss, len(images))
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                monitor.step(loss, samples=len(images))
            val_loss, val_accuracy = validate(model, val_loader, criterion)
            scheduler.step(val_loss)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)


def test_the_default_recipe_of_the_guides(tmp_path):
    """Guide D: AdamW, linear warm-up and cosine, bf16, clipping at 1, label smoothing 0.1, decay 0.05."""
    torch.manual_seed(4)
    train_loader, val_loader = digits_loaders(32)
    model = ConvNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    epochs = 6
    total = epochs * len(train_loader)
    scheduler = lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / (0.05 * total), 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))),
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    ledger = Ledger(model, optimizer)
    with Monitor(
        model, optimizer, scheduler=scheduler, total_steps=total, run_dir=tmp_path, remediate="off", grad_norm_every=1
    ) as monitor:
        for _ in range(epochs):
            model.train()
            for images, labels in monitor.batches(train_loader):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = criterion(model(images), labels)
                loss.backward()
                ledger.backward(loss, len(images))
                monitor.clip_grad_norm_(1.0)
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
                monitor.step(loss, samples=len(images))
            val_loss, val_accuracy = validate(model, val_loader, criterion)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)
