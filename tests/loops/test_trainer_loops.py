"""Loops as classes: early stopping, the complete trainer, the template that clips scaled gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lossdoctor import Monitor
from tests.loops.ledger import Ledger, assert_healthy, assert_recorded, diagnosis_at
from tests.loops.problems import RegularizedNet, digits_loaders, plain_mlp


class EarlyStopping:
    """Guides B and E: stop after `patience` validations without an improvement, keep the best weights."""

    def __init__(self, patience, min_delta=1e-3):
        self.patience, self.min_delta = patience, min_delta
        self.best_loss, self.best_weights, self.waited, self.stop = float("inf"), None, 0, False

    def __call__(self, val_loss, model):
        if val_loss < self.best_loss - self.min_delta:
            self.best_loss, self.waited = val_loss, 0
            self.best_weights = copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
            self.stop = self.waited >= self.patience


def test_early_stopping_with_the_best_weights_kept(tmp_path):
    torch.manual_seed(0)
    train_loader, val_loader = digits_loaders(64)
    model = RegularizedNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    criterion = nn.CrossEntropyLoss()
    early_stopping = EarlyStopping(patience=4)
    ledger = Ledger(model, optimizer)
    with Monitor(model, optimizer, run_dir=tmp_path, remediate="off", grad_norm_every=1) as monitor:
        for _ in range(40):
            model.train()
            for images, labels in train_loader:
                optimizer.zero_grad()
                loss = criterion(model(images), labels)
                loss.backward()
                ledger.backward(loss, len(images))
                ledger.before_step()
                optimizer.step()
                ledger.after_step()
                monitor.step(loss, samples=len(images))
            model.eval()
            with torch.no_grad():
                losses = [criterion(model(images), labels).item() for images, labels in val_loader]
            val_loss = sum(losses) / len(losses)
            monitor.evaluation(loss=val_loss)
            ledger.evaluated(loss=val_loss)
            early_stopping(val_loss, model)
            if early_stopping.stop:
                break
    model.load_state_dict(early_stopping.best_weights)
    assert early_stopping.stop
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)


class Trainer:
    """Guide E 14: precision, clipping, accumulation, schedule, validation in percent, early stopping in one class."""

    def __init__(
        self, model, loaders, optimizer, *, scheduler, monitor, ledger, scaler=None, grad_clip=1.0, accumulation=1
    ):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.train_loader, self.val_loader = loaders
        self.scaler, self.grad_clip, self.accumulation = scaler, grad_clip, accumulation
        self.criterion = nn.CrossEntropyLoss()
        self.monitor, self.ledger = monitor, ledger

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.float16, enabled=self.scaler is not None)

    def train_epoch(self):
        self.model.train()
        self.optimizer.zero_grad()
        total = 0.0
        for index, (inputs, labels) in enumerate(self.monitor.batches(self.train_loader)):
            with self.autocast():
                loss = self.criterion(self.model(inputs), labels) / self.accumulation
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            self.ledger.backward(loss * self.accumulation, len(inputs))
            if (index + 1) % self.accumulation == 0:
                self.update()
            total += loss.item() * self.accumulation
            self.monitor.step(loss * self.accumulation, samples=len(inputs))
        return total / len(self.train_loader)

    def update(self):
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.ledger.before_step()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.ledger.after_step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        total, right, count = 0.0, 0, 0
        for inputs, labels in self.val_loader:
            with self.autocast():
                scores = self.model(inputs)
                total += self.criterion(scores, labels).item()
            right += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
        return total / len(self.val_loader), 100 * right / count

    def fit(self, epochs):
        early_stopping = EarlyStopping(patience=10)
        for _ in range(epochs):
            self.train_epoch()
            val_loss, val_accuracy = self.evaluate()
            self.monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            self.ledger.evaluated(loss=val_loss, accuracy=val_accuracy)
            early_stopping(val_loss, self.model)
            if early_stopping.stop:
                break
        return early_stopping.best_loss


@pytest.mark.parametrize(("use_amp", "accumulation"), [(False, 1), (True, 1), (True, 2)])
def test_the_complete_trainer(tmp_path, use_amp, accumulation):
    torch.manual_seed(1)
    loaders = digits_loaders(32)
    model = plain_mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    epochs = 8
    total = epochs * len(loaders[0]) // accumulation
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=total)
    scaler = torch.amp.GradScaler("cpu") if use_amp else None
    ledger = Ledger(model, optimizer, scaler)
    with Monitor(
        model,
        optimizer,
        scheduler=scheduler,
        scaler=scaler,
        total_steps=total,
        run_dir=tmp_path,
        remediate="off",
        grad_norm_every=1,
    ) as monitor:
        trainer = Trainer(
            model,
            loaders,
            optimizer,
            scheduler=scheduler,
            monitor=monitor,
            ledger=ledger,
            scaler=scaler,
            accumulation=accumulation,
        )
        assert trainer.fit(epochs) < 0.3
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)


class Experiment:
    """Guide A's template: with a scaler it clips gradients that are still scaled."""

    def __init__(self, model, optimizer, monitor, ledger, *, scaler=None):
        self.model, self.opt, self.scaler, self.monitor, self.ledger = model, optimizer, scaler, monitor, ledger

    def train_epoch(self, loader, loss_fn):
        self.model.train()
        for xb, yb in loader:
            self.opt.zero_grad(set_to_none=True)
            if self.scaler:
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = loss_fn(self.model(xb), yb)
                self.scaler.scale(loss).backward()
                self.ledger.backward(loss, len(xb))
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.ledger.before_step(scaled=True)
                self.scaler.step(self.opt)
                self.scaler.update()
            else:
                loss = loss_fn(self.model(xb), yb)
                loss.backward()
                self.ledger.backward(loss, len(xb))
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.ledger.before_step()
                self.opt.step()
            self.ledger.after_step()
            self.monitor.step(loss, samples=len(xb))

    @torch.no_grad()
    def evaluate(self, loader, loss_fn):
        self.model.eval()
        total, count = 0.0, 0
        for xb, yb in loader:
            total += loss_fn(self.model(xb), yb).item() * len(xb)
            count += len(xb)
        return total / count


def run_experiment(directory, *, scaler, optimizer):
    torch.manual_seed(2)
    train_loader, val_loader = digits_loaders(32)
    model = plain_mlp()
    opt = optimizer(model.parameters())
    loss_fn = nn.CrossEntropyLoss()
    ledger = Ledger(model, opt, scaler)
    with Monitor(model, opt, scaler=scaler, run_dir=directory, remediate="off", grad_norm_every=1) as monitor:
        experiment = Experiment(model, opt, monitor, ledger, scaler=scaler)
        for _ in range(6):
            experiment.train_epoch(train_loader, loss_fn)
            val_loss = experiment.evaluate(val_loader, loss_fn)
            monitor.evaluation(loss=val_loss)
            ledger.evaluated(loss=val_loss)
    return ledger


def adamw(weights):
    return torch.optim.AdamW(weights, lr=2e-3)


def momentum(weights):
    return torch.optim.SGD(weights, lr=0.05, momentum=0.9)


@pytest.mark.parametrize("optimizer", [adamw, momentum])
def test_the_template_that_clips_scaled_gradients_is_named(tmp_path, optimizer):
    ledger = run_experiment(tmp_path, scaler=torch.amp.GradScaler("cpu"), optimizer=optimizer)
    assert_recorded(tmp_path, ledger)
    found = diagnosis_at(tmp_path)
    assert found.verdict == "clip_before_unscale"
    assert found.findings[0].since <= 10
    assert found.findings[0].severity == ("error" if optimizer is momentum else "warning")


@pytest.mark.parametrize("optimizer", [adamw, momentum])
def test_the_same_template_without_a_scaler_is_sound(tmp_path, optimizer):
    ledger = run_experiment(tmp_path, scaler=None, optimizer=optimizer)
    assert_recorded(tmp_path, ledger)
    assert_healthy(tmp_path)
