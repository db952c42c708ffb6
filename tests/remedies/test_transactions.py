"""The paths of a transaction beyond keep and revert: time on probation, the last resort, the end of a run.

What peers were found to do wrong is tested where it belongs: one NaN costs one step, BatchNorm survives a NaN batch, a
second failure takes a different action (test_remediator); a rewind never lands on a snapshot younger than the fault and
never rewinds the learning rate (test_snapshots); an exception inside optimizer.step leaves no multiplier behind
(test_knobs); a vetoed act leaves no trace (test_policy). Here: one NaN late in a run, letting go of a schedule, and
resuming again and again under a standing cut.
"""

import pytest
import torch

from lossdoctor.remedies import Policy
from tests.remedies.patients import Judge, admit, finding, same, values_of

CUT = ("scale_lr", {"factor": 0.5})
RAISE = ("scale_lr", {"factor": 4.0})
REWIND = ("rewind", {})
STOP = ("early_stop", {"to_step": 10.0})


def diverged(*actions, since=55, within=2, category="unstable", severity="error"):
    return finding(
        "divergence", *actions, since=since, verify="ok", within=within, category=category, severity=severity
    )


def test_one_nan_after_two_hundred_steps_costs_one_step_and_not_129():
    patient = admit("sgd")
    patient.train(360, bad=frozenset({200}))
    without = admit("sgd")
    without.train(199)
    without.step += 1
    without.train(160)
    assert same(values_of(patient.model), values_of(without.model))


@pytest.mark.parametrize("kept", [True, False])
def test_when_the_doctor_lets_go_the_schedule_is_what_it_would_have_been(kept):
    patient, plain = admit("sgd"), admit("sgd")
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(one.optimizer, 100) for one in (patient, plain)]
    rates = []
    for step in range(1, 61):
        for one, schedule in zip((patient, plain), schedules, strict=True):
            one.train(1)
            schedule.step()
        if step == 20:
            patient.remediator.act([diverged(REWIND, CUT, since=18)], 20)
            patient.remediator.settle(Judge(ill={"divergence"}, holds=kept), 20)
        rates.append([one.optimizer.param_groups[0]["lr"] for one in (patient, plain)])
    patient.remediator.close()
    assert all(one == other for one, other in rates)
    assert schedules[0].state_dict() == schedules[1].state_dict()
    weights = values_of(patient.model)
    patient.optimizer.step()  # gradients are still there: the rate in force is the schedule's again
    moved = (values_of(patient.model)[0] - weights[0]).abs().max()
    expected = patient.optimizer.param_groups[0]["lr"] * patient.model[0].weight.grad.abs().max()
    assert torch.isclose(moved, expected, rtol=1e-3)


def test_resuming_again_and_again_does_not_cut_the_learning_rate_again():
    patient = admit("adamw")
    patient.train(60)
    patient.remediator.act([diverged(CUT)], 60)
    for _ in range(3):
        weights, moments, state = (
            patient.model.state_dict(),
            patient.optimizer.state_dict(),
            patient.remediator.state_dict(),
        )
        resumed = admit("adamw")
        resumed.model.load_state_dict(weights)
        resumed.optimizer.load_state_dict(moments)
        resumed.remediator.load_state_dict(state)
        resumed.step = patient.step
        resumed.train(10)
        assert resumed.optimizer.param_groups[0]["lr"] == 0.01, "a checkpoint holds the loop's own rate"
        assert resumed.remediator.multipliers == [0.5]
        patient = resumed


def test_a_warm_up_is_judged_when_it_is_over():
    patient, judge = admit(), Judge(ill={"divergence"}, holds=True)
    patient.train(60)
    patient.remediator.act([diverged(("rewind", {"before": 1.0}), ("warm_up_again", {"steps": 20.0}))], 60)
    for _ in range(3):
        patient.train(5)
        patient.remediator.settle(judge.tick(5), patient.step)
        assert patient.outcomes == [("divergence", "rewind+warm_up_again", "pending")]
    patient.train(6)
    patient.remediator.settle(judge.tick(5), patient.step)
    patient.remediator.settle(judge.tick(1), patient.step)
    assert patient.outcomes == [("divergence", "rewind+warm_up_again", "kept")]


def test_a_fault_of_the_very_first_steps_goes_back_to_the_beginning():
    patient = admit()
    patient.train(60)
    first = finding("missing_warmup", ("rewind", {"before": 1.0, "factor": 0.5}), since=2, clock="interval")
    patient.remediator.act([first], 60)
    assert patient.outcomes == [("missing_warmup", "rewind+scale_lr", "pending")]
    assert patient.written[0].changes["weights"] == (60, 0)


def test_a_training_is_begun_afresh_once():
    afresh = ("rewind", {"before": 1.0, "factor": 0.5})
    patient, judge = admit(), Judge(holds=True)
    patient.train(60)
    patient.remediator.act([diverged(afresh)], 60)
    patient.remediator.settle(judge.tick(), 60)
    patient.remediator.settle(judge.tick(), 61)
    patient.train(140)
    patient.remediator.act([finding("missing_warmup", afresh, CUT, since=150)], 200)
    assert patient.outcomes[-1] == ("missing_warmup", "scale_lr", "pending")
    assert "begun afresh already" in patient.written[-1].reason


def test_who_is_on_the_way_gets_more_time_and_who_is_not_does_not():
    patient, judge = admit(), Judge(ill={"divergence"}, peak=1.0)
    patient.train(60)
    patient.remediator.act([diverged(REWIND, CUT, within=10)], 60)
    patient.remediator.settle(judge, 60)
    patient.remediator.settle(judge.tick(4), 64)
    judge.peak = 0.45  # less than half of the worst since the treatment
    patient.remediator.settle(judge.tick(6), 70)
    assert patient.outcomes == [("divergence", "rewind+scale_lr", "pending")]
    judge.peak = 0.4
    patient.remediator.settle(judge.tick(10), 80)  # it has not halved again
    assert [outcome for _, _, outcome in patient.outcomes] == ["reverted", "pending"]


def test_a_run_that_nothing_helps_is_stopped_with_its_best_weights():
    patient, judge = admit(), Judge(ill={"divergence"})
    patient.train(20)
    patient.remediator.evaluated(20, {"val_loss": 0.5})
    best = values_of(patient.model)
    patient.train(40)
    patient.remediator.act([diverged(REWIND, CUT)], 60)
    for step in range(60, 80):
        patient.remediator.settle(judge.tick(1), step)
    assert patient.remediator.should_stop
    assert same(values_of(patient.model), best)
    assert patient.outcomes[-1] == ("divergence", "early_stop", "kept")


def test_the_budget_does_not_forbid_to_stop():
    patient, judge = admit(policy=Policy(budget=1)), Judge(ill={"divergence"})
    patient.train(20)
    patient.remediator.evaluated(20, {"val_loss": 0.5})
    patient.train(40)
    patient.remediator.act([diverged(REWIND, CUT)], 60)
    for step in range(60, 70):
        patient.remediator.settle(judge.tick(1), step)
    assert [action for _, action, _ in patient.outcomes] == ["rewind+scale_lr", "early_stop"]


def test_what_was_done_in_vain_is_not_done_again_at_the_floor():
    patient, judge = admit(), Judge(ill={"divergence"})
    patient.train(60)
    patient.remediator.act([diverged(REWIND, ("scale_lr", {"factor": 1e-3}), since=5)], 60)
    for step in range(60, 90):
        patient.remediator.settle(judge.tick(1), step)
    told = [one.changes for one in patient.written if one.outcome == "pending"]
    acts = [(one["lr_multiplier"][1], one["weights"][1]) for one in told]
    assert len(acts) == len(set(acts))
    assert patient.remediator.multipliers == [1.0]


def test_after_a_rewind_a_loss_that_is_not_yet_back_is_no_new_finding():
    patient, judge = admit(policy=Policy(cool_down=0)), Judge(ill={"exploding_gradient", "divergence"}, holds=True)
    patient.train(60)
    patient.remediator.act([finding("exploding_gradient", REWIND, CUT, since=40, verify="ok")], 60)
    went_back_to = patient.written[-1].changes["weights"][1]
    patient.remediator.settle(judge, 60)
    patient.remediator.settle(judge.tick(1), 61)
    assert patient.outcomes == [("exploding_gradient", "rewind+scale_lr", "kept")]
    patient.remediator.act([diverged(CUT, since=62)], 62)
    assert len(patient.outcomes) == 1
    patient.remediator.settle(judge, 2 * 60 - went_back_to)  # by now it should be
    assert [rule for rule, _, _ in patient.outcomes] == ["exploding_gradient", "divergence"]


def test_steps_that_are_still_too_small_are_raised_again_when_it_is_quiet():
    patient, judge = admit(policy=Policy(cool_down=8)), Judge(ill={"slow"}, holds=True)
    patient.train(40)
    slow = finding("slow", RAISE, severity="warning", category="undertrained", verify="ok")
    patient.remediator.act([slow], 40)
    patient.remediator.settle(judge, 40)
    patient.remediator.settle(judge.tick(1), 41)
    assert patient.remediator.multipliers == [4.0]
    patient.remediator.settle(judge.tick(1), 50)
    assert patient.remediator.multipliers == [16.0]
    judge.ill.clear()
    patient.remediator.settle(judge.tick(1), 51)
    patient.remediator.settle(judge.tick(1), 70)
    assert patient.remediator.multipliers == [16.0]


# -- the end of a run


def ended(value, *, at=60, crashed=False, ill=True, severity="error", category="unstable", **policy):
    """A run whose best evaluation was at step 20 and whose latest one, at step `at`, had this value."""
    patient = admit(policy=Policy(**policy))
    patient.train(20)
    patient.remediator.evaluated(20, {"val_loss": 0.5})
    best = values_of(patient.model)
    patient.train(40)
    patient.remediator.evaluated(at, {"val_loss": value})
    if ill:
        patient.remediator.act([finding("divergence", severity=severity, category=category)], 60)
    patient.remediator.close(crashed=crashed)
    return patient, same(values_of(patient.model), best)


@pytest.mark.parametrize("how", [("error", "unstable"), ("warning", "overfit"), ("error", "invalid")])
@pytest.mark.parametrize("value", [0.9, float("nan")])
def test_a_run_that_ends_ill_is_left_with_its_best_weights(how, value):
    patient, has_best = ended(value, severity=how[0], category=how[1])
    assert has_best
    assert patient.outcomes == [("divergence", "early_stop", "kept")]
    assert "0.5 at step 20" in patient.written[0].reason


@pytest.mark.parametrize(
    "how",
    [
        {"value": 0.4},
        {"value": 0.9, "ill": False},
        {"value": 0.9, "crashed": True},
        {"value": 0.9, "severity": "info"},
        {"value": 0.9, "severity": "warning", "category": "inefficient"},
        {"value": 0.9, "best_at_end": False},
        {"value": 0.9, "actions": ["scale_lr"]},
        {"value": 0.9, "at": 50, "severity": "warning"},  # nothing is known of the weights it ends with
    ],
)
def test_a_run_that_ends_well_or_as_its_owner_wants_keeps_its_weights(how):
    patient, has_best = ended(**how)
    assert not has_best
    assert patient.outcomes == []


def test_what_was_treated_with_success_is_no_reason_to_be_left_with_the_best_weights():
    patient, judge = admit(), Judge(ill={"divergence"}, holds=True)
    patient.train(20)
    patient.remediator.evaluated(20, {"val_loss": 0.5})
    patient.train(40)
    patient.remediator.act([diverged(CUT)], 60)
    assert not patient.remediator.is_sound()
    patient.remediator.settle(judge, 60)
    patient.remediator.settle(judge.tick(1), 61)  # it holds, though the finding, of things past, never ends
    assert patient.remediator.is_sound()
    patient.remediator.evaluated(61, {"val_loss": 0.6})
    weights = values_of(patient.model)
    patient.remediator.close()
    assert same(values_of(patient.model), weights)
    assert patient.outcomes == [("divergence", "scale_lr", "kept")]
