"""Mistakes that the corpus's one loop cannot make: each a tiny training of its own, diagnosed from its recording."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lossdoctor import Monitor
from lossdoctor.capture import output
from lossdoctor.diagnosis import diagnose
from lossdoctor.runs.reader import read_run


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "_compile_was_called", lambda: False)  # whatever other tests compiled
    torch.manual_seed(0)


def found(rule):
    """The findings of one rule in what was recorded."""
    return [finding for finding in diagnose(read_run("run")).findings if finding.rule == rule]


def undecided(rule):
    return [why for why in diagnose(read_run("run")).undecided if why.rule == rule]


def classifier():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def rows(count=256, classes=3):
    x = torch.randn(count, 6)
    return x, (x[:, :classes] + 0.3 * torch.randn(count, classes)).argmax(1)


def fit(monitor, model, optimizer, loader, *, steps, criterion=F.cross_entropy, after=None):
    """Train until the Monitor has seen so many steps more."""
    done = 0
    while done < steps:
        for x, y in monitor.batches(loader):
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, samples=len(x))
            done += 1
            if after is not None:
                after(done)
            if done == steps:
                return


def test_a_label_that_is_no_class_ends_a_training_and_is_named():
    x, y = rows()
    y[200] = 3
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(IndexError), Monitor(model, optimizer, "run") as monitor:
        fit(monitor, model, optimizer, DataLoader(TensorDataset(x, y), 16), steps=100)
    (finding,) = found("invalid_labels")
    assert finding.severity == "error"
    assert "no class" in finding.message


def test_labels_of_minus_one_and_one_are_seen_at_the_first_step():
    x, y = rows(classes=2)
    model = nn.Linear(6, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(x, 2.0 * y[:, None] - 1), 16)
    with Monitor(model, optimizer, "run") as monitor:
        fit(monitor, model, optimizer, loader, steps=20, criterion=F.binary_cross_entropy_with_logits)
    assert [finding.detected for finding in found("invalid_labels")] == [1]


def test_class_ids_that_a_binary_loss_does_not_use_are_none_of_its_labels():
    x, y = rows()
    judge = nn.Linear(6, 1)
    optimizer = torch.optim.SGD(judge.parameters(), lr=0.1)

    def real_or_not(scores, _labels):
        return F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))

    with Monitor(judge, optimizer, "run") as monitor:
        fit(monitor, judge, optimizer, DataLoader(TensorDataset(x, y), 16), steps=60, criterion=real_or_not)
    assert not found("invalid_labels")


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)

    def forward(self, input_ids):
        return self.head(self.embedding(input_ids))


def tokens(*, masked, ignore_index=-100, count=128, length=12):
    """Rows of ids with padding of 0 behind, and the same as labels."""
    ids = torch.randint(1, 20, (count, length))
    mask = (torch.arange(length) < torch.randint(4, length, (count, 1))).long()
    ids = ids * mask
    labels = torch.where(mask == 1, ids, -100) if masked else ids
    parts = zip(ids, mask, labels, strict=True)
    loader = DataLoader([{"input_ids": a, "attention_mask": b, "labels": c} for a, b, c in parts], 16)
    model = Tagger()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, "run") as monitor:
        for _ in range(4):
            for batch in monitor.batches(loader):
                scores = model(batch["input_ids"])
                loss = F.cross_entropy(scores.flatten(0, 1), batch["labels"].flatten(), ignore_index=ignore_index)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss)


def test_padding_that_counts_is_found():
    tokens(masked=False)
    (finding,) = found("masked_labels")
    assert "padding" in finding.message


@pytest.mark.parametrize("how", [{"masked": True}, {"masked": False, "ignore_index": 0}])
def test_padding_that_is_left_out_is_fine_however_it_is_done(how):
    tokens(**how)
    assert not found("masked_labels")
    assert not undecided("masked_labels")


@pytest.mark.parametrize("stale", [False, True])
def test_validating_another_model_shows_in_a_loss_that_never_changes(stale):
    x, y = rows()
    model = classifier()
    validated = copy.deepcopy(model) if stale else model
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with Monitor(model, optimizer, "run") as monitor:

        def validate(step):
            if step % 10 == 0:
                with torch.no_grad():
                    monitor.evaluation(loss=F.cross_entropy(validated(x[:64]), y[:64]))

        fit(monitor, model, optimizer, DataLoader(TensorDataset(x, y), 64, shuffle=True), steps=100, after=validate)
    assert bool(found("suspicious_validation")) is stale


@pytest.mark.parametrize("forgotten", [(), ("scheduler",), ("model", "optimizer")])
def test_a_new_process_that_loads_less_than_was_saved_is_told(forgotten):
    x, y = rows(1024)
    checkpoint = {}
    for part in range(2):
        model = classifier()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 200)
        loaded = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        with Monitor(model, optimizer, "run", scheduler=scheduler) as monitor:
            if part:
                for name in {*loaded} - {*forgotten}:
                    loaded[name].load_state_dict(checkpoint[name])
                monitor.load_state_dict(checkpoint["monitor"])
            loader = DataLoader(TensorDataset(x, y), 32, shuffle=True)
            fit(monitor, model, optimizer, loader, steps=100, after=lambda _, scheduler=scheduler: scheduler.step())
            checkpoint = {
                name: copy.deepcopy(one.state_dict()) for name, one in (*loaded.items(), ("monitor", monitor))
            }
    findings = found("resume_mismatch")
    assert bool(findings) == bool(forgotten)
    assert all("resume at step 100" in finding.message for finding in findings)
    assert not undecided("resume_mismatch")


def test_a_broadcast_in_the_loss_is_told_while_the_training_runs():
    x, _ = rows()
    model = nn.Linear(6, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def criterion(predicted, y):
        return (predicted - y).square().mean()

    with Monitor(model, optimizer, "run", remediate="suggest") as monitor:
        fit(monitor, model, optimizer, DataLoader(TensorDataset(x, x.sum(1)), 16), steps=5, criterion=criterion)
        live = [finding for finding in monitor.diagnosis().findings if finding.rule == "collapsed_output"]
    assert [finding.detected for finding in live] == [1]
    assert "(N, N)" in live[0].message
