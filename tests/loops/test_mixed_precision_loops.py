"""fp16 with a GradScaler: plain, with clipping where it belongs, with accumulation."""

import pytest
import torch
from torch import nn

from lossdoctor import Monitor
from tests.loops.ledger import Ledger, assert_healthy, assert_recorded
from tests.loops.problems import digits_loaders, plain_mlp


@torch.no_grad()
def validate(model, loader, criterion):
    model.eval()
    with torch.autocast("cpu", dtype=torch.float16):
        batches = [(model(images), labels) for images, labels in loader]
    model.train()
    rows = sum(len(labels) for _, labels in batches)
    loss = sum(criterion(scores.float(), labels).item() * len(labels) for scores, labels in batches) / rows
    return loss, sum((scores.argmax(1) == labels).sum().item() for scores, labels in batches) / rows


@pytest.mark.parametrize("initial_scale", [2.0**16, 2.0**22])
def test_autocast_with_a_scaler(tmp_path, initial_scale):
    """Guide A: scale, backward, step, update. From a high first scale it skips a few steps, which is no fault."""
    torch.manual_seed(0)
    train_loader, val_loader = digits_loaders(64)
    model = plain_mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=initial_scale)
    loss_fn = nn.CrossEntropyLoss()
    ledger = Ledger(model, optimizer, scaler)
    with Monitor(model, optimizer, scaler=scaler, run_dir=tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(10):
            for xb, yb in monitor.batches(train_loader):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = loss_fn(model(xb), yb)
                scaler.scale(loss).backward()
                ledger.backward(loss, len(xb))
                ledger.before_step(scaled=True)
                scaler.step(optimizer)
                scaler.update()
                ledger.after_step()
                monitor.step(loss, samples=len(xb))
            val_loss, val_accuracy = validate(model, val_loader, loss_fn)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    assert any(row["skipped"] for row in ledger.rows) == (initial_scale > 2.0**16)
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_after_unscale(tmp_path, fused):
    """Guide E 11.2: unscale_, clip, step, update: the norm before clipping is recorded unscaled, fused or not."""
    torch.manual_seed(1)
    train_loader, val_loader = digits_loaders(32)
    model = plain_mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    criterion = nn.CrossEntropyLoss()
    ledger = Ledger(model, optimizer, scaler)
    with Monitor(model, optimizer, scaler=scaler, run_dir=tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(8):
            for inputs, labels in train_loader:
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = criterion(model(inputs), labels)
                scaler.scale(loss).backward()
                ledger.backward(loss, len(inputs))
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
                ledger.before_step()
                scaler.step(optimizer)
                scaler.update()
                ledger.after_step()
                monitor.step(loss, samples=len(inputs))
            val_loss, val_accuracy = validate(model, val_loader, criterion)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    run = assert_recorded(tmp_path, ledger)
    assert run.steps.columns["grad_norm"].values.max() > 1.0
    assert_healthy(tmp_path)


@pytest.mark.parametrize("use_scaler", [False, True])
def test_accumulation(tmp_path, use_scaler):
    """Guide E 12.3: the loss is divided, four backward passes make one step, and one row."""
    torch.manual_seed(2)
    train_loader, val_loader = digits_loaders(16)
    model = plain_mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=use_scaler)
    criterion = nn.CrossEntropyLoss()
    ledger = Ledger(model, optimizer, scaler if use_scaler else None)
    accumulation_steps = 4
    with Monitor(model, optimizer, scaler=scaler, run_dir=tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(10):
            optimizer.zero_grad()
            for index, (inputs, labels) in enumerate(monitor.batches(train_loader)):
                with torch.autocast("cpu", dtype=torch.float16, enabled=use_scaler):
                    loss = criterion(model(inputs), labels) / accumulation_steps
                scaler.scale(loss).backward()
                ledger.backward(loss * accumulation_steps, len(inputs))
                if (index + 1) % accumulation_steps == 0:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    ledger.before_step()
                    scaler.step(optimizer)
                    scaler.update()
                    ledger.after_step()
                    optimizer.zero_grad()
                monitor.step(loss * accumulation_steps, samples=len(inputs))
            val_loss, val_accuracy = validate(model, val_loader, criterion)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
    run = assert_recorded(tmp_path, ledger)
    assert set(run.steps.columns["micro_batches"].values.tolist()) == {4.0}
    assert set(run.steps.columns["samples"].values.tolist()) == {64.0}
    assert_healthy(tmp_path)
