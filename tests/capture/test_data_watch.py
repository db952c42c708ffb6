"""Whole trainings whose data and outputs are watched."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lossdoctor import Monitor
from lossdoctor.capture import output, ring
from lossdoctor.errors import UsageError
from lossdoctor.runs.info import facts
from lossdoctor.runs.reader import read_run

DATA_SIGNALS = ("input_mean", "input_std", "label_entropy", "output_std", "top_prediction_share", "shape_mismatch")


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output, "_compile_was_called", lambda: False)  # whatever other tests compiled


def observed(table, name):
    if name not in table.columns:
        return []
    column = table.columns[name]
    return column.values[column.mask()].tolist()


def steps_of(table, name):
    return table.step[table.columns[name].mask()].tolist()


def classifier(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), *last)


def rows(count=192, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return x, torch.randint(0, classes, (count,), generator=generator)


def train(loader, model=None, *, criterion=F.cross_entropy, epochs=2, validation=None, directory="run", **options):
    model = model or classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    seen = []
    with Monitor(model, optimizer, directory, **options) as monitor:
        for _ in range(epochs):
            for x, y in monitor.batches(loader):
                seen.append((x, y))
                loss = criterion(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss)
            if validation is not None:
                with torch.no_grad():
                    losses = [criterion(model(x), y) for x, y in monitor.batches(validation, split="val")]
                monitor.evaluation(loss=torch.stack(losses).mean())
    return read_run(monitor.run_dir), seen, model


def test_batches_and_outputs_are_measured_at_sample_steps():
    loader = DataLoader(TensorDataset(*rows()), 16, shuffle=True)
    outputs = []

    def criterion(predicted, y):
        outputs.append(predicted.detach())
        return F.cross_entropy(predicted, y)

    run, seen, model = train(loader, criterion=criterion)
    table = run.steps
    sampled = [int(step) - 1 for step in steps_of(table, "param_norm")]
    for name in (*DATA_SIGNALS, "input_min", "labels_distinct", "supervised_share", "output_classes"):
        assert steps_of(table, name) == [at + 1 for at in sampled], name
    batches = [seen[at] for at in sampled]
    assert observed(table, "input_mean") == pytest.approx([x.mean().item() for x, _ in batches], rel=1e-4, abs=1e-6)
    assert observed(table, "input_std") == pytest.approx([x.std(correction=0).item() for x, _ in batches], rel=1e-5)
    assert observed(table, "input_min") == [x.min().item() for x, _ in batches]
    assert observed(table, "labels_distinct") == [len(y.unique()) for _, y in batches]
    entropies = []
    for _, y in batches:
        shares = [(y == label).float().mean().item() for label in y.unique()]
        entropies.append(-sum(share * math.log(share) for share in shares) / math.log(3))
    assert observed(table, "label_entropy")[1:] == pytest.approx(entropies[1:], rel=1e-5)
    assert observed(table, "output_std") == pytest.approx(
        [outputs[at].std(0, correction=0).mean().item() for at in sampled], rel=1e-5
    )
    tops = [torch.bincount(outputs[at].argmax(1)).max().item() / 16 for at in sampled]
    assert observed(table, "top_prediction_share") == tops
    assert set(observed(table, "output_classes")) == {3.0}
    assert run.info.classes == 3
    assert facts(run.info)["classes"] == 3
    assert not model._forward_hooks


def test_watching_changes_neither_the_training_nor_the_order_of_the_loader():
    def weights(watched):
        torch.manual_seed(5)
        loader = DataLoader(TensorDataset(*rows()), 16, shuffle=True)
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.Linear(16, 3))
        optimizer = torch.optim.AdamW(model.parameters())
        monitor = Monitor(model, optimizer, "run") if watched else None
        for _ in range(3):
            for x, y in monitor.batches(loader) if monitor else loader:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if monitor:
                    monitor.step(loss)
            for x, y in monitor.batches(loader, split="val") if monitor else loader:
                loss = F.cross_entropy(model(x), y)
        if monitor:
            monitor.close()
        return [*model.parameters(), torch.rand(3)]

    for bare, watched in zip(weights(watched=False), weights(watched=True), strict=True):
        assert torch.equal(bare, watched)


def test_validation_batches_are_neither_epochs_nor_waits_of_the_training():
    loader = DataLoader(TensorDataset(*rows()), 16)
    shifted, labels = rows(seed=1)
    validation = DataLoader(TensorDataset(shifted * 5 + 3, labels), 48)
    run, _, _ = train(loader, validation=validation)
    assert [mark.name for mark in run.marks] == ["epoch", "epoch"]
    assert observed(run.steps, "samples") == [16.0] * 24
    first = (shifted * 5 + 3)[:48]
    assert observed(run.evaluations, "val_input_mean") == pytest.approx([first.mean().item()] * 2, rel=1e-5)
    assert observed(run.evaluations, "val_input_std") == pytest.approx([first.std(correction=0).item()] * 2, rel=1e-5)
    assert observed(run.evaluations, "val_labels_distinct") == [3.0, 3.0]
    assert "val_input_mean" not in run.steps.columns


def test_a_split_that_is_none_is_a_usage_error():
    model = classifier()
    monitor = Monitor(model, torch.optim.SGD(model.parameters()), "run")
    with monitor, pytest.raises(UsageError, match="split='test'"):
        monitor.batches([], split="test")
    assert list(monitor.batches([1], split="val")) == [1]


def test_leaked_rows_are_found_and_separate_splits_are_clean():
    x, y = rows(400)
    train_loader = DataLoader(TensorDataset(x[:300], y[:300]), 20, shuffle=True)
    for start, share in ((300, 0.0), (250, 1 / 3), (0, 1.0)):
        stop = min(start + 150, 400)
        validation = DataLoader(TensorDataset(x[start:stop], y[start:stop]), 25)
        run, _, _ = train(train_loader, validation=validation, directory=f"run-{start}")
        assert observed(run.evaluations, "val_rows_in_train") == pytest.approx([share] * 2)
        assert run.info.validation_rows_seen == pytest.approx(share)
        assert run.info.train_rows_repeated == 0.0
        assert facts(run.info)["validation_rows_seen"] == pytest.approx(share)


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_same_order_in_each_epoch_shows(shuffle):
    run, _, _ = train(DataLoader(TensorDataset(*rows(320)), 16, shuffle=shuffle), epochs=4)
    orders = observed(run.steps, "epoch_order")
    assert len(orders) == 4
    assert len(set(orders)) == (4 if shuffle else 1)
    assert set(observed(run.steps, "epochs_in_same_order")) == ({1.0} if shuffle else {1.0, 2.0, 3.0, 4.0})


def test_one_class_batches_show():
    x, y = rows()
    order = y.argsort()
    run, _, _ = train(DataLoader(TensorDataset(x[order], y[order]), 16))
    assert np.median(observed(run.steps, "labels_distinct")) == 1
    assert min(observed(run.steps, "label_entropy")) == 0


@pytest.mark.parametrize("softmax", [False, True])
def test_a_softmax_before_the_cross_entropy_shows(softmax):
    model = classifier(*([nn.Softmax(1)] if softmax else []))
    run, _, _ = train(DataLoader(TensorDataset(*rows()), 16), model)
    assert set(observed(run.steps, "rows_sum_to_one")) == {float(softmax)}
    assert set(observed(run.steps, "softmax_twice")) == {float(softmax)}
    assert set(observed(run.steps, "ignore_index")) == {-100.0}


def test_of_a_single_row_neither_a_spread_nor_a_most_frequent_prediction_is_told():
    run, _, _ = train(DataLoader(TensorDataset(*rows(32)), 1))
    assert "output_std" not in run.steps.columns
    assert "top_prediction_share" not in run.steps.columns
    assert set(observed(run.steps, "output_classes")) == {3.0}


@pytest.mark.parametrize("trapped", [False, True])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_broadcast_target_shows_only_where_the_loss_was_really_broadcast(trapped):
    x, _ = rows()
    model = nn.Linear(6, 1)

    def criterion(predicted, y):
        return F.mse_loss(predicted if trapped else predicted.squeeze(1), y)

    run, _, _ = train(DataLoader(TensorDataset(x, x.sum(1)), 16), model, criterion=criterion)
    assert set(observed(run.steps, "shape_mismatch")) == {float(trapped)}
    assert "top_prediction_share" not in run.steps.columns  # numbers, not classes
    assert "label_entropy" not in run.steps.columns
    assert run.info.classes is None


def test_a_layer_as_wide_as_the_batch_is_no_broadcast():
    x, _ = rows()
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    loader = DataLoader(TensorDataset(x, x.sum(1)), 16)
    run, _, _ = train(loader, model, criterion=lambda predicted, y: F.mse_loss(predicted.squeeze(1), y))
    assert set(observed(run.steps, "shape_mismatch")) == {0.0}


def test_one_logit_for_two_classes_predicts():
    x, y = rows(classes=2)
    loader = DataLoader(TensorDataset(x, y.float().unsqueeze(1)), 16)
    run, _, _ = train(loader, nn.Linear(6, 1), criterion=F.binary_cross_entropy_with_logits)
    assert min(observed(run.steps, "top_prediction_share")) >= 0.5
    assert set(observed(run.steps, "shape_mismatch")) == {0.0}
    assert set(observed(run.steps, "labels_distinct")) == {2.0}


class Language(nn.Module):
    """Returns what transformers' models return."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.head(self.embedding(input_ids))
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def test_a_dict_batch_of_tokens_is_read():
    torch.manual_seed(0)
    model = Language()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.randint(1, 50, (8, 12))
    ids[:4, 6:] = 0
    mask = (ids != 0).long()
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :3] = -100
    with Monitor(model, optimizer, "run") as monitor:
        for batch in monitor.batches(iter([{"input_ids": ids, "attention_mask": mask, "labels": labels}] * 6)):
            loss = model(**batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert set(observed(run.steps, "padding_share")) == {0.25}
    assert observed(run.steps, "supervised_share") == pytest.approx([(labels != -100).float().mean().item()] * 3)
    assert set(observed(run.steps, "label_min")) == {labels[labels >= 0].min().item()}
    assert set(observed(run.steps, "output_classes")) == {50.0}
    assert run.info.classes == 50
    assert "input_mean" not in run.steps.columns


class Broken:
    """A batch that cannot even be asked what it is."""

    @property
    def __dict__(self):
        raise RuntimeError("odd")


@pytest.mark.parametrize(
    "batch",
    [None, "text", (), {}, Broken(), [torch.empty(0, 6), torch.empty(0)], (torch.ones(4, 6).to_sparse(), [1, 2])],
    ids=["none", "text", "empty tuple", "empty dict", "raises", "empty tensors", "sparse"],
)
def test_odd_batches_are_handed_on(batch, caplog):
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run") as monitor:
        for split in ("train", "val"):
            for got in monitor.batches((batch for _ in range(3)), split=split):
                assert got is batch
                loss = model(torch.randn(4, 6)).square().mean()
                loss.backward()
                optimizer.step()
                monitor.step(loss)
            monitor.evaluation(loss=1.0)
    run = read_run(monitor.run_dir)
    assert len(run.steps) == 6
    assert observed(run.steps, "output_std")
    assert not [name for name in run.steps.columns if name.startswith(("input_", "label"))]


def test_of_accumulated_micro_batches_the_first_is_measured():
    loader = DataLoader(TensorDataset(*rows()), 16)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    seen, firsts = [], []
    with Monitor(model, optimizer, "run") as monitor:
        for number, (x, y) in enumerate(monitor.batches(loader)):
            if number % 3 == 0:
                firsts.append(x.mean().item())
            predicted = model(x)
            seen.append(predicted.detach().std(0, correction=0).mean().item())
            loss = F.cross_entropy(predicted, y) / 3
            loss.backward()
            if number % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
            monitor.step(loss)
    run = read_run(monitor.run_dir)
    assert len(run.steps) == 4
    assert observed(run.steps, "input_mean") == pytest.approx(firsts[::2], rel=1e-4, abs=1e-6)
    assert observed(run.steps, "output_std") == pytest.approx(seen[::6], rel=1e-5)


def test_a_loop_that_reports_before_its_step_is_measured_alike():
    def run_of(early):
        torch.manual_seed(0)
        loader = DataLoader(TensorDataset(*rows()), 16)
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with Monitor(model, optimizer, f"run-{early}") as monitor:
            for x, y in itertools.chain.from_iterable(monitor.batches(loader) for _ in range(2)):
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                if early:
                    monitor.step(loss)
                optimizer.step()
                if not early:
                    monitor.step(loss)
        return read_run(monitor.run_dir).steps

    late, early = run_of(early=False), run_of(early=True)
    for name in (*DATA_SIGNALS, "samples", "epoch_order"):
        assert observed(late, name) == observed(early, name), name
        assert steps_of(late, name) == steps_of(early, name), name


def test_a_validation_is_not_taken_for_a_training_step():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = rows(16)
    spreads = []
    with Monitor(model, optimizer, "run") as monitor:
        for _ in range(6):
            model.eval()
            model(x * 100)  # with a graph, in eval mode
            model.train()
            with torch.no_grad():
                model(x * 100)
            predicted = model(x)
            spreads.append(predicted.detach().std(0, correction=0).mean().item())
            loss = F.cross_entropy(predicted, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    found = observed(read_run(monitor.run_dir).steps, "output_std")
    # Without batches() nothing tells that the first step is about to begin: it is not watched.
    assert found == pytest.approx(spreads[2::2], rel=1e-5)


def test_a_wrapped_model_is_tapped_through_its_wrapper():
    class Wrapper(nn.Module):
        def __init__(self, module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    run, _, _ = train(DataLoader(TensorDataset(*rows()), 16), Wrapper(classifier()))
    assert set(observed(run.steps, "output_classes")) == {3.0}


def test_a_compiled_model_is_trained_without_output_signals():
    model = torch.compile(classifier(), backend="eager")
    run, _, _ = train(DataLoader(TensorDataset(*rows()), 16), model, epochs=1)
    assert "output_std" not in run.steps.columns
    assert observed(run.steps, "input_mean")
    torch._dynamo.reset()


class LateEvent:
    """An event of a slow device: it is only found at the third look."""

    def __init__(self) -> None:
        self.looks = 0

    def record(self) -> None:
        self.looks = 0

    def query(self) -> bool:
        self.looks += 1
        return self.looks > 2

    def synchronize(self) -> None:
        pass


def test_numbers_that_come_late_from_a_device_end_in_the_same_rows(monkeypatch):
    loader = DataLoader(TensorDataset(*rows()), 16)
    validation = DataLoader(TensorDataset(*rows(seed=1)), 16)
    expected, _, _ = train(loader, validation=validation, directory="host")
    monkeypatch.setattr(ring, "Ring", partial(ring.Ring, event=LateEvent, pinned=False))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.Tensor, "is_cpu", property(lambda _: False), raising=False)
        found, _, _ = train(loader, validation=validation, directory="device")
    for name in DATA_SIGNALS:
        assert observed(found.steps, name) == pytest.approx(observed(expected.steps, name), rel=1e-5), name
        assert steps_of(found.steps, name) == steps_of(expected.steps, name)
    for name in ("val_input_mean", "val_label_entropy"):
        assert observed(found.evaluations, name) == pytest.approx(observed(expected.evaluations, name), rel=1e-5)


def test_a_training_on_a_device_without_numbers_is_never_waited_for():
    with torch.device("meta"):
        model = nn.Linear(6, 3)
        batches = [(torch.empty(8, 6), torch.zeros(8, dtype=torch.long))] * 12
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, "run", grad_norm_every=1) as monitor:
        for x, y in monitor.batches(batches):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            monitor.step(loss)
        for x, _ in monitor.batches(batches, split="val"):
            model(x)
        monitor.evaluation(loss=0.5)
    ours = {"model outputs", "batches", "batch measures", "epoch order", "row hashes", "validation batches"}
    assert not monitor._faults.off & ours
    run = read_run(monitor.run_dir)
    assert len(run.steps) == 12
    assert "input_mean" not in run.steps.columns
    assert set(observed(run.steps, "shape_mismatch")) == {0.0}
