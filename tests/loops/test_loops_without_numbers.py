"""Every kind of loop on the meta device, where asking a tensor for its value is an error: the Monitor never does."""

import importlib

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run
from tests.loops.test_model_loops import Checkpointed, LoRALinear, TiedLanguageModel
from tests.loops.test_optimizer_loops import EvenDescent

STEPS = 14


def net():
    return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 4))


def frozen():
    model = net()
    model[0].requires_grad_(False)
    return model


def adapted():
    return nn.Sequential(LoRALinear(nn.Linear(12, 24)), nn.Tanh(), LoRALinear(nn.Linear(24, 4)))


def groups(model):
    rates = [1e-5, 1e-3]
    return torch.optim.AdamW([{"params": model[at].parameters(), "lr": rates[at > 0]} for at in (0, 2)])


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def package(module, name, **settings):
    return lambda model: getattr(importlib.import_module(module), name)(model.parameters(), lr=1e-3, **settings)


VARIANTS = {
    "plain": (net, adamw),
    "groups": (net, groups),
    "frozen": (frozen, adamw),
    "LoRA": (adapted, adamw),
    "tied": (TiedLanguageModel, adamw),
    "checkpointed": (lambda: Checkpointed(reentrant=False), adamw),
    "reentrant": (lambda: Checkpointed(reentrant=True), adamw),
    "own optimizer": (net, lambda model: EvenDescent(model.parameters())),
    "Lion": (net, package("pytorch_optimizer", "Lion")),
    "LARS": (net, package("pytorch_optimizer", "LARS")),
    "schedule-free": (net, package("schedulefree", "AdamWScheduleFree")),
}


def batch(model):
    if isinstance(model, TiedLanguageModel):
        return torch.zeros(8, 5, dtype=torch.long, device="meta"), torch.zeros(8, dtype=torch.long, device="meta")
    return torch.empty(8, 12, device="meta"), torch.empty(8, dtype=torch.long, device="meta")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("variant", "accumulation"), [*((name, 1) for name in VARIANTS), ("plain", 2), ("reentrant", 2)]
)
def test_a_loop_of_any_kind_is_recorded_without_a_question_to_a_tensor(tmp_path, caplog, variant, accumulation):
    make_model, make_optimizer = VARIANTS[variant]
    model = make_model().to("meta")
    optimizer = make_optimizer(model)
    if hasattr(optimizer, "train"):
        optimizer.train()
    with Monitor(model, optimizer, tmp_path, remediate="suggest", grad_norm_every=1) as monitor:
        for step in range(STEPS):
            for _ in range(accumulation):
                x, y = batch(model)
                loss = cross_entropy(model(x), y)
                loss.backward()
                monitor.step(loss, samples=8, metrics={"accuracy": loss})
            if step % 2:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
            optimizer.step()
            optimizer.zero_grad()
        monitor.evaluation(loss=loss)
    assert caplog.text == ""
    run = read_run(tmp_path)
    assert run.steps.step.tolist() == list(range(1, STEPS + 1))
    assert set(run.steps.columns["micro_batches"].values) == {accumulation}
    assert "train_loss" not in run.steps.columns, "there was no number to be had"


def test_a_gan_with_an_average_is_recorded_without_a_question_to_a_tensor(tmp_path, caplog):
    generator, judge = (nn.Linear(6, 12).to("meta"), nn.Linear(12, 1).to("meta"))
    optimizers = [torch.optim.Adam(judge.parameters()), torch.optim.Adam(generator.parameters())]
    average = AveragedModel(generator, device="meta", multi_avg_fn=get_ema_multi_avg_fn(0.99))
    with Monitor(nn.ModuleList([judge, generator]), optimizers, tmp_path, grad_norm_every=1) as monitor:
        for _ in range(STEPS):
            losses = {}
            for name, optimizer in zip(("judge", "generator"), optimizers, strict=True):
                optimizer.zero_grad()
                losses[name] = judge(generator(torch.empty(8, 6, device="meta"))).mean()
                losses[name].backward()
                optimizer.step()
            average.module.load_state_dict(generator.state_dict())
            monitor.step(losses)
    assert caplog.text == ""
    assert read_run(tmp_path).steps.step.tolist() == list(range(1, STEPS + 1))
