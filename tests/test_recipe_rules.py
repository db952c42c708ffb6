"""Advice on the recipe, and how runs end: small real trainings under a Monitor, live and as read again."""

import logging
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lossdoctor import Monitor
from lossdoctor.diagnosis import diagnose
from lossdoctor.findings import ADVICE
from lossdoctor.reports import markdown, text
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.info import RunInfo, facts
from lossdoctor.runs.reader import read_run

BOOK = Rulebook.load()
RECIPE = {rule.id for rule in BOOK.rules.values() if rule.family == ADVICE}
SHORT = {f"{rule}.long": 20.0 for rule in RECIPE if "long" in BOOK.rules[rule].thresholds}
SOON = Rulebook.load((), SHORT)
"""The same rules, for trainings that are not too short for advice in 40 steps."""


class Attending(nn.Module):
    """A model with attention, LayerNorm and dropout."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        attended, _ = self.attention(inputs, inputs, inputs)
        return self.out(self.norm(attended + inputs)).mean(1)


def attending(dropout=0.1):
    return Attending(dropout)


def deep(*, norm=False):
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)]
    return nn.Sequential(*([nn.Linear(8, 8), nn.BatchNorm1d(8), *layers[1:]] if norm else layers))


def adamw(model, **settings):
    return torch.optim.AdamW(model.parameters(), **{"lr": 1e-3, **settings})


def sgd(model, **settings):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **settings})


def trained(
    directory, *, model=deep, optimizer=adamw, seed=0, steps=40, rows=32, validates=True, outlier=None, ends=None
):
    """A run of a loop as people write it; `outlier` is a step with targets a thousand times as large."""
    torch.manual_seed(seed)
    model = model()
    optimizer = optimizer(model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sequences = isinstance(model, Attending)
    ending = nullcontext() if ends is None else pytest.raises(type(ends))
    with ending, Monitor(model, optimizer, directory, scheduler=schedule, grad_norm_every=1) as monitor:
        for step in range(steps):
            inputs = torch.randn(rows, 5, 8) if sequences else torch.randn(rows, 8)
            targets = inputs.flatten(1)[:, :1] * (1000 if step == outlier else 1)
            loss = (model(inputs) - targets).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            monitor.step(loss, samples=rows)
            if ends is not None and step == steps - 2:
                raise ends
            if validates and step % 10 == 9:
                monitor.evaluation(loss=loss.detach())
    return monitor


def advice(directory, book=SOON):
    return {finding.rule: finding for finding in diagnose(read_run(directory), book).findings if finding.rule in RECIPE}


def test_the_recipe_the_guides_recommend_gets_no_advice(tmp_path):
    trained(tmp_path, model=attending)
    assert advice(tmp_path) == {}


def test_a_short_trial_gets_no_advice_whatever_its_recipe(tmp_path):
    trained(tmp_path, optimizer=lambda model: sgd(model, momentum=0), seed=2**40, validates=False)
    assert advice(tmp_path, BOOK) == {}


@pytest.mark.parametrize(
    ("settings", "expected", "words"),
    [
        ({"validates": False}, "no_validation", "40 steps"),
        ({"seed": 2**40}, "no_seed", "not seeded"),
        ({"optimizer": lambda m: sgd(m, momentum=0)}, "sgd_without_momentum", "0.05"),
        ({"optimizer": lambda m: torch.optim.Adam(m.parameters(), weight_decay=0.01)}, "coupled_weight_decay", "0.01"),
        ({"optimizer": lambda m: adamw(m, lr=0.2)}, "lr_outside_usual_range", "0.2 at its peak"),
        ({"optimizer": lambda m: sgd(m, lr=1e-7)}, "lr_outside_usual_range", "1e-07"),
        ({"model": lambda: attending(0.7)}, "high_dropout", "0.7"),
        ({"model": attending, "outlier": 30}, "no_clipping", "No gradient was clipped"),
        ({"model": lambda: deep(norm=True), "rows": 4}, "batch_norm_small_batch", "4 samples"),
        ({"optimizer": lambda m: sgd(m, lr=0.005), "rows": 2048}, "effective_batch_vs_lr", "2048 samples"),
    ],
)
def test_what_differs_from_the_usual_is_said_in_one_finding(tmp_path, settings, expected, words):
    trained(tmp_path, **settings)
    found = advice(tmp_path)
    assert set(found) == {expected}
    assert words in found[expected].message
    assert found[expected].severity == "info"
    assert found[expected].prescriptions


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda model: adamw(model, weight_decay=0.3),
        lambda model: torch.optim.Adam(model.parameters(), weight_decay=0.01, decoupled_weight_decay=True),
        lambda model: sgd(model, weight_decay=1e-4),
    ],
)
def test_decay_that_acts_on_the_weights_themselves_is_not_coupled(tmp_path, optimizer):
    trained(tmp_path, optimizer=optimizer)
    assert "coupled_weight_decay" not in advice(tmp_path)
    assert facts(read_run(tmp_path).info)["coupled_weight_decay"] == 0


def grouped(model):
    norms = {id(parameter) for parameter in model.norm.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in norms]
    return torch.optim.AdamW([{"params": rest}, {"params": model.norm.parameters(), "weight_decay": 0.0}], lr=1e-3)


def test_weight_decay_on_normalization_is_seen_where_it_adds_up(tmp_path):
    strict = Rulebook.load((), {"weight_decay_on_norm.enough": 1e-5})
    trained(tmp_path / "all", model=attending)
    trained(tmp_path / "grouped", model=attending, optimizer=grouped)
    assert "0.01" in advice(tmp_path / "all", strict)["weight_decay_on_norm"].message
    assert "weight_decay_on_norm" not in advice(tmp_path / "grouped", strict)


def test_a_constant_rate_is_told_of_on_long_runs_only(tmp_path):
    torch.manual_seed(0)
    model = deep()
    optimizer = adamw(model)
    with Monitor(model, optimizer, tmp_path) as monitor:
        for _ in range(40):
            loss = model(torch.randn(8, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, samples=32)
        monitor.evaluation(loss=0.1)
    assert "constant_lr" not in advice(tmp_path, BOOK)
    assert "0.001" in advice(tmp_path)["constant_lr"].message


def test_a_seed_in_the_configuration_is_a_seed():
    assert facts(RunInfo(seeds={"torch": 2**50}))["seeded"] == 0
    assert facts(RunInfo(seeds={"torch": 2**50}, config={"rng_seed": 3}))["seeded"] == 1
    assert facts(RunInfo(seeds={"torch": 42}))["seeded"] == 1
    assert "seeded" not in facts(RunInfo())


def test_advice_on_gpus_is_neither_given_nor_missed_without_one(tmp_path):
    trained(tmp_path)
    diagnosis = diagnose(read_run(tmp_path), SOON)
    told = {*diagnosis.passed, *(why.rule for why in diagnosis.undecided), *(one.rule for one in diagnosis.findings)}
    assert not told & {"mixed_precision_unused", "fp16_where_bf16_runs", "low_gpu_utilization"}


def test_advice_changes_no_verdict_and_stands_apart_in_reports(tmp_path):
    trained(tmp_path, model=lambda: attending(0.7), seed=2**40, validates=False)
    run = read_run(tmp_path)
    diagnosis = diagnose(run, SOON)
    assert {finding.rule for finding in diagnosis.findings} >= {"high_dropout", "no_seed", "no_validation"}
    assert diagnosis.severity == "info"
    report = text.render(diagnosis, run, rules=SOON.rules).plain
    assert "advice:\n  - " in report
    assert "info[no_seed]" not in report
    assert report.index("advice:") < report.index("passed (")
    assert "findings=0" in text.verdict_line(diagnosis)
    written = markdown.render([diagnosis])
    assert "Advice:" in written
    assert "### info: no_seed" not in written


def test_advice_that_cannot_be_given_is_not_listed_in_the_reports_for_people(tmp_path):
    trained(tmp_path)
    run = read_run(tmp_path)
    run.info.seeds = {}
    diagnosis = diagnose(run, SOON)
    assert "no_seed" in {why.rule for why in diagnosis.undecided}
    assert "no_seed" not in text.render(diagnosis, run).plain
    assert "no_seed" not in markdown.render([diagnosis])


# -- how a run ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("Unable to allocate 1 TiB"),
    ],
)
def test_an_end_for_want_of_memory_is_told_live_and_offline(tmp_path, caplog, error):
    with caplog.at_level(logging.ERROR, "lossdoctor"):
        monitor = trained(tmp_path, ends=error)
    live, read = monitor.diagnosis(), diagnose(read_run(tmp_path))
    for diagnosis in (live, read):
        (found,) = [finding for finding in diagnosis.findings if finding.rule == "out_of_memory"]
        assert diagnosis.verdict == "out_of_memory"
        assert "after 39 steps" in found.message
        assert "32 -> 16 samples, 2 backward passes" in found.prescriptions[0].advice
    assert any("ran out of memory" in record.message for record in caplog.records)


def test_another_exception_is_not_an_end_for_want_of_memory(tmp_path):
    monitor = trained(tmp_path, ends=RuntimeError("shape mismatch"))
    assert "out_of_memory" in diagnose(read_run(tmp_path)).passed
    assert "out_of_memory" in monitor.diagnosis().passed


def test_a_process_that_vanished_is_only_told_of_where_memory_was_nearly_full(tmp_path):
    trained(tmp_path)
    run = read_run(tmp_path)
    used = run.steps.columns["process_memory"]
    last = float(used.values[used.mask()][-1])
    run.info.status = "killed"
    for memory, expected in ((20 * last, set()), (1.1 * last, {"out_of_memory"})):
        run.info.hardware = {"memory": memory}
        assert {one.rule for one in diagnose(run).findings} & {"out_of_memory"} == expected


def test_rules_on_the_whole_run_are_provisional_while_it_runs(tmp_path):
    torch.manual_seed(0)
    model = deep()
    optimizer = sgd(model)
    with Monitor(model, optimizer, tmp_path) as monitor:
        for step in range(1200):
            loss = model(torch.randn(4, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, samples=4)
            if step in {100, 1100}:
                found = {finding.rule for finding in monitor.diagnosis().findings}
                assert ("no_validation" in found) == (step == 1100)
                assert "out_of_memory" in {why.rule for why in monitor.diagnosis().undecided}
        monitor.evaluation(loss=0.1)
    assert "no_validation" in monitor.diagnosis().passed
    assert "out_of_memory" in monitor.diagnosis().passed
