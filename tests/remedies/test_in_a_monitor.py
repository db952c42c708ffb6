"""What the doctor does in a monitored training: real findings, real records."""

import torch
from torch import nn

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run
from tests.remedies.patients import NAN, batch, network, same, values_of


def treated(run_dir, *, steps, rate, bad=frozenset(), remediate="auto", raised_at=None, optimizer="sgd", far=None):
    """A regression; at `raised_at` the loop multiplies its learning rate by 40, targets are `far` off at some steps."""
    model = network(norm=optimizer == "adamw")
    if optimizer == "sgd":
        made = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    else:
        made = torch.optim.AdamW(model.parameters(), lr=rate)
    losses = []
    with Monitor(model, made, run_dir=run_dir, remediate=remediate) as monitor:
        for step in range(1, steps + 1):
            if step == raised_at:
                made.param_groups[0]["lr"] *= 40
            x, y = batch(step)
            y = y * (far or {}).get(step, 1.0)
            made.zero_grad()
            loss = nn.functional.mse_loss(model(x * NAN if step in bad else x), y)
            loss.backward()
            made.step()
            monitor.step(loss, samples=len(x))
            losses.append(loss.item())
            if monitor.should_stop:
                break
    return model, losses, read_run(run_dir)


def test_a_nan_batch_is_skipped_recorded_and_its_gradient_norm_seen(tmp_path):
    model, losses, run = treated(tmp_path / "a", steps=60, rate=0.01, bad={1, 30}, optimizer="adamw")
    assert all(tensor.isfinite().all() for tensor in values_of(model))
    assert losses[-1] < losses[5]
    assert [(one.step, one.action, one.outcome) for one in run.interventions] == [
        (1, "skip_step", "kept"),
        (30, "skip_step", "kept"),
    ]
    norms = run.steps.columns["grad_norm"]
    assert norms.mask()[[0, 29]].all()
    assert not (norms.values[[0, 29]] < float("inf")).any()


def test_a_divergence_is_rewound_and_the_effective_rate_recorded(tmp_path):
    _, untreated, _ = treated(tmp_path / "off", steps=400, rate=0.02, raised_at=200, remediate="off")
    _, losses, run = treated(tmp_path / "auto", steps=400, rate=0.02, raised_at=200)
    assert not sum(untreated[-20:]) < 20 * untreated[0]
    assert sum(losses[-20:]) / 20 < losses[0] / 4
    cuts = [one for one in run.interventions if "scale_lr" in one.action]
    assert cuts
    assert cuts[-1].outcome in {"kept", "pending"}
    nominal = run.steps.columns["nominal_learning_rate"].values[-1]
    effective = run.steps.columns["learning_rate"].values[-1]
    assert effective < 0.5 * nominal


def test_a_healthy_training_is_bit_identical_in_auto(tmp_path):
    plain, losses, _ = treated(tmp_path / "off", steps=120, rate=0.005, remediate="off", optimizer="adamw")
    model, watched, run = treated(tmp_path / "auto", steps=120, rate=0.005, optimizer="adamw")
    assert run.interventions == ()
    assert watched == losses
    assert same(values_of(model), values_of(plain))


def test_spikes_that_come_again_are_a_habit_from_the_third_on(tmp_path):
    far = {100 + 25 * number: 3.0 * 2**number for number in range(6)}
    _, untreated, _ = treated(tmp_path / "off", steps=300, rate=0.01, far=far, remediate="off", optimizer="adamw")
    _, losses, run = treated(tmp_path / "auto", steps=300, rate=0.01, far=far, optimizer="adamw")
    acts = [one for one in run.interventions if one.rule == "loss_spike"]
    assert {(one.action, one.outcome) for one in acts} == {("skip_batch", "kept")}
    assert acts[0].step >= sorted(far)[2]
    assert sum(losses[-20:]) < 0.5 * sum(untreated[-20:])


def test_a_start_that_threw_the_weights_is_made_again_with_a_warm_up(tmp_path):
    _, untreated, _ = treated(tmp_path / "off", steps=200, rate=3.0, optimizer="adamw", remediate="off")
    _, losses, run = treated(tmp_path / "auto", steps=200, rate=3.0, optimizer="adamw")
    first, *_ = run.interventions
    assert (first.action, first.outcome) == ("rewind+scale_lr+warm_up_again", "kept")
    assert first.changes["weights"] == (first.step, 0)
    assert sum(losses[-20:]) < 0.5 * sum(untreated[-20:])
