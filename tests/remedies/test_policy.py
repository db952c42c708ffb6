"""What the user allows: actions, budgets, vetoes, dry runs, and which weights are the best."""

import pytest
import torch
from torch import nn

from lossdoctor import Monitor, Policy
from lossdoctor.errors import UsageError
from lossdoctor.runs.reader import read_run
from tests.remedies.patients import NAN, Judge, admit, batch, finding, network, same, values_of

CUT = ("scale_lr", {"factor": 0.5})
CLIP = ("tighten_clipping", {"max_norm": 1.0})
ILL = "exploding_gradient"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"actions": ["scale_rl"]}, "no action 'scale_rl'; did you mean 'scale_lr'"),
        ({"budget": -1}, "budget=-1"),
        ({"generations": 1}, "at least 2"),
        ({"trial_steps": 8}, "tell nothing apart"),
        ({"hopeless": 8}, "above bad_in_a_row"),
        ({"best_by": "val_zeal"}, "higher_is_better"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_the_remedy(settings, message):
    with pytest.raises(UsageError, match=message):
        Policy(**settings)


def test_only_allowed_actions_are_taken():
    patient = admit(policy=Policy(actions=["tighten_clipping"]))
    patient.train(40)
    patient.remediator.act([finding(ILL, CUT, CLIP, since=30)], 40)
    assert patient.outcomes == [(ILL, "tighten_clipping", "pending")]
    assert patient.remediator.multipliers == [1.0]


def test_without_skip_step_a_nan_reaches_the_weights_as_it_would_without_a_doctor():
    patient = admit(policy=Policy(actions=["scale_lr"]))
    patient.train(20, bad=frozenset({10}))
    assert not all(tensor.isfinite().all() for tensor in values_of(patient.model))
    assert patient.outcomes == []


def test_a_vetoed_act_leaves_no_trace():
    asked = []

    def veto(proposal):
        asked.append(proposal)
        return False

    patient, plain = admit(policy=Policy(before_act=veto)), admit()
    for one in (patient, plain):
        one.train(40)
    patient.remediator.act([finding(ILL, CUT, CLIP, since=30)], 40)
    for one in (patient, plain):
        one.train(20)
    assert [proposal.actions[0][0] for proposal in asked] == ["scale_lr", "tighten_clipping"]
    assert (asked[0].rule, asked[0].step) == (ILL, 40)
    assert patient.written == []
    assert same(values_of(patient.model), values_of(plain.model))


def test_a_callback_that_raises_vetoes(caplog):
    def fails(proposal):
        raise ZeroDivisionError

    patient = admit(policy=Policy(before_act=fails))
    patient.train(40)
    patient.remediator.act([finding(ILL, CUT, since=30)], 40)
    assert patient.written == []
    assert "before_act failed" in caplog.text


def test_a_callback_that_says_nothing_agrees():
    patient = admit(policy=Policy(before_act=lambda proposal: None))
    patient.train(40)
    patient.remediator.act([finding(ILL, CUT, since=30)], 40)
    assert patient.outcomes == [(ILL, "scale_lr", "pending")]


def test_the_best_weights_are_those_of_the_chosen_metric():
    patient = admit(policy=Policy(best_by="val_accuracy"))
    patient.train(10)
    for step, (loss, accuracy) in enumerate([(0.5, 0.6), (0.4, 0.9), (0.1, 0.7), (0.0, NAN)], start=11):
        patient.train(1)
        patient.remediator.evaluated(step, {"val_loss": loss, "val_accuracy": accuracy})
    best = patient.remediator.best
    assert (best.step, best.value, best.metric) == (12, 0.9, "val_accuracy")


def test_an_outcome_tells_what_became_of_the_evidence():
    patient, judge = admit(), Judge(ill={ILL})
    patient.train(40)
    found = finding(ILL, CUT, since=30, verify="ratio < 1", within=2)
    found = type(found)(
        **{name: getattr(found, name) for name in found.__struct_fields__} | {"evidence": {"ratio": 9.0}}
    )
    patient.remediator.act([found], 40)
    patient.remediator.settle(judge, 40)
    judge.holds, judge.numbers = True, {"ratio": 0.5, "other": 3.0}
    patient.remediator.settle(judge.tick(), 41)
    assert patient.written[-1].outcome == "kept"
    assert patient.written[-1].effect == {"ratio": (9.0, 0.5)}


def test_weights_are_sound_until_they_are_not():
    patient = admit()
    patient.train(10)
    assert patient.remediator.is_sound()
    patient.remediator.act([finding("divergence", since=10)], 10)
    assert not patient.remediator.is_sound(), "an error is going on"
    patient.remediator.settle(Judge(), 11)
    assert patient.remediator.is_sound()
    patient.train(1, bad=frozenset({11}))
    assert not patient.remediator.is_sound(), "the last step was not finite"
    patient.train(1)
    assert patient.remediator.is_sound()
    with torch.no_grad():
        next(patient.model.parameters()).fill_(NAN)
    assert not patient.remediator.is_sound()


def _diverging(run_dir, remediate, policy=None):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    with Monitor(model, optimizer, run_dir=run_dir, remediate=remediate, policy=policy) as monitor:
        for step in range(1, 260):
            if step == 150:
                optimizer.param_groups[0]["lr"] *= 40
            x, y = batch(step)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            monitor.clip_grad_norm_(1e6)
            optimizer.step()
            monitor.step(loss)
    return values_of(model), read_run(run_dir)


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(tmp_path):
    plain, _ = _diverging(tmp_path / "off", "off")
    weights, run = _diverging(tmp_path / "dry", "auto", Policy(dry_run=True))
    assert all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(weights, plain, strict=True))
    assert {act.outcome for act in run.interventions} == {"proposed"}
    assert any("scale_lr" in act.action for act in run.interventions)


def test_the_configuration_file_sets_the_policy(tmp_path, monkeypatch):
    (tmp_path / "lossdoctor.toml").write_text("[remedies]\ndry_run = true\n")
    monkeypatch.chdir(tmp_path)
    _, run = _diverging(tmp_path / "run", "auto")
    assert {act.outcome for act in run.interventions} == {"proposed"}


def test_a_monitor_without_remedies_still_guards_a_save(tmp_path):
    model = network()
    with Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), run_dir=tmp_path / "run") as monitor:
        assert monitor.is_sound()
        with torch.no_grad():
            next(model.parameters()).fill_(NAN)
        assert not monitor.is_sound()
