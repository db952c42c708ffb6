"""The Remediator in bare training loops: transactions, non-finite steps, early stopping, and doing nothing."""

import json
import warnings

import pytest
import torch
from torch import nn

from lossdoctor.remedies import Best, Policy, Remediator
from lossdoctor.runs.events import Intervention
from tests.remedies.patients import NAN, OPTIMIZERS, Judge, admit, batch, finding, network, same, values_of

CUT = ("scale_lr", {"factor": 0.5})
CLIP = ("tighten_clipping", {"max_norm": 1.0})
REWIND = ("rewind", {})
STOP = ("early_stop", {"to_step": 10.0})
SKIP = ("skip_step", {})


# -- doing nothing


def whole_training(optimizer, *, monitored, scaled, accumulate=1):
    """Dropout, BatchNorm, a scheduler, maybe a scaler; the losses, the weights and what was recorded."""
    model = network(norm=True, dropout=0.3)
    made = OPTIMIZERS[optimizer](list(model.parameters()))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3, enabled=scaled)
    written: list[Intervention] = []
    remediator = None
    if monitored:
        remediator = Remediator(model=model, optimizers=[made], scaler=scaler, record=written.append)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(made, 0.1, total_steps=60, cycle_momentum=False)
    losses = []
    for step in range(1, 41):
        made.zero_grad()
        for micro in range(accumulate):
            x, y = batch(100 * step + micro)
            loss = nn.functional.mse_loss(model(x), y) / accumulate
            # What fp16 does when the scale is too high: a scaled gradient overflows, the loss does not.
            if scaled and step in {1, 2, 11} and micro == 0:
                loss.register_hook(lambda gradient: gradient * float("inf"))
            scaler.scale(loss).backward()
            losses.append(loss.item())
        if step % 2:
            scaler.unscale_(made)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(made)
        scaler.update()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scaler skipped the first step, so the scheduler was first
            scheduler.step()
        if remediator is not None:
            remediator.after_step(step, finite=True)
            if step % 8 == 0:
                remediator.evaluated(step, {"val_loss": 1 / step})
                remediator.act([], step)
                remediator.settle(Judge(), step)
    if remediator is not None:
        remediator.close()
    return losses, values_of(model), written


@pytest.mark.parametrize(
    ("optimizer", "scaled"),
    [
        ("sgd_momentum_foreach", False),
        ("sgd_momentum_foreach", True),
        # Not with a scaler: fused SGD leaves its momentum uninitialized when its first step is skipped.
        ("sgd_momentum_fused", False),
        ("adamw", False),
        ("adamw", True),
        ("adamw_fused", False),
        ("adamw_fused", True),
    ],
)
def test_a_training_without_interventions_is_bit_identical(optimizer, scaled):
    losses, weights, _ = whole_training(optimizer, monitored=False, scaled=scaled)
    watched, treated, written = whole_training(optimizer, monitored=True, scaled=scaled)
    assert written == []
    assert watched == losses
    assert same(treated, weights)


def test_a_training_with_accumulation_and_a_scaler_is_bit_identical():
    losses, weights, _ = whole_training("adamw", monitored=False, scaled=True, accumulate=3)
    watched, treated, written = whole_training("adamw", monitored=True, scaled=True, accumulate=3)
    assert written == []
    assert watched == losses
    assert same(treated, weights)


# -- non-finite steps


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_momentum_fused", "adamw", "adamw_fused", "adamw_foreach"])
def test_one_nan_loss_costs_one_step_and_not_more(optimizer):
    patient = admit(optimizer)
    patient.train(30, bad=frozenset({10}))
    without = admit(optimizer)
    without.train(9)
    without.step += 1
    without.train(20)
    assert same(values_of(patient.model), values_of(without.model))
    assert patient.outcomes == [("non_finite_loss", "skip_step", "kept")]
    assert patient.written[-1].changes == {"skipped_steps": (0.0, 1.0)}
    assert patient.written[0].step == 10
    assert patient.written[-1].settled == 26


def test_batch_norm_survives_a_nan_batch():
    patient = admit("adamw", model=network(norm=True))
    patient.train(9)
    statistics = patient.model[1].running_mean.clone(), patient.model[1].running_var.clone()
    patient.train(1, bad=frozenset({10}))
    assert same([patient.model[1].running_mean, patient.model[1].running_var], list(statistics))
    patient.train(20)
    patient.model.eval()
    assert patient.model(batch(1)[0]).isfinite().all()


def test_batch_norm_survives_a_nan_in_the_very_first_batch():
    patient = admit("sgd", model=network(norm=True))
    patient.train(20, bad=frozenset({1}))
    assert all(tensor.isfinite().all() for tensor in values_of(patient.model))
    assert patient.remediator._snapshots.steps[0] == 0


def test_batch_norm_survives_a_batch_that_the_scaler_skips():
    model = network(norm=True)
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    remediator = Remediator(model=model, optimizers=[optimizer], scaler=scaler, record=lambda _: None)
    for step in range(1, 6):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x * NAN if step == 3 else x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        remediator.after_step(step, finite=None)
    assert all(tensor.isfinite().all() for tensor in values_of(model))


def test_bad_steps_close_together_are_one_intervention_with_a_count():
    patient = admit("adamw")
    patient.train(60, bad=frozenset({10, 11, 14, 20}))
    assert patient.outcomes == [("non_finite_loss", "skip_step", "kept")]
    assert patient.written[-1].changes == {"skipped_steps": (0.0, 4.0)}
    assert "4 kept from the weights" in patient.written[-1].outcome_reason
    assert len(patient.written) == 2
    patient.train(40, bad=frozenset({61}))
    assert len(patient.outcomes) == 2


def test_a_non_finite_loss_with_finite_gradients_is_told_and_not_more():
    patient = admit("sgd")
    patient.train(5)
    patient.remediator.after_step(6, finite=False)
    patient.step += 1
    patient.train(20)
    assert patient.outcomes == [("non_finite_loss", "skip_step", "kept")]
    assert "finite gradients" in patient.written[-1].outcome_reason


def test_nothing_but_skipping_happens_up_to_eight_in_a_row():
    patient = admit("adamw")
    patient.train(60, bad=frozenset(range(20, 28)))
    assert patient.outcomes == [("non_finite_loss", "skip_step", "kept")]
    assert patient.remediator.multipliers == [1.0]


def test_more_than_eight_in_a_row_rewind_and_lower_the_learning_rate():
    patient = admit("adamw")
    patient.train(17)
    weights = values_of(patient.model)  # the snapshot of step 16 and one step more
    patient.train(60, bad=frozenset(range(20, 29)))
    rewound = patient.written[1]
    assert (rewound.rule, rewound.action, rewound.step) == ("non_finite_loss", "rewind+scale_lr", 28)
    assert rewound.changes["weights"] == (28, 16)
    assert rewound.changes["learning_rate"] == (0.01, 0.005)
    assert patient.outcomes[1] == ("non_finite_loss", "rewind+scale_lr", "kept")
    assert patient.remediator.multipliers == [0.5]
    assert not same(weights, values_of(patient.model))


def test_if_even_sound_weights_give_no_finite_step_the_learning_rate_is_given_back():
    patient = admit("adamw")
    patient.train(90, bad=frozenset(range(20, 50)))
    assert patient.outcomes == [
        ("non_finite_loss", "skip_step", "kept"),
        ("non_finite_loss", "rewind+scale_lr", "reverted"),
    ]
    assert patient.remediator.multipliers == [1.0]
    assert not patient.remediator.should_stop
    assert patient.losses[-1] < 1


def test_bad_steps_without_end_stop_the_run_with_the_best_weights():
    patient = admit("adamw")
    patient.train(20)
    patient.remediator.evaluated(20, {"val_loss": 0.5})
    best = values_of(patient.model)
    patient.train(10)
    patient.train(64, bad=frozenset(range(100)))
    assert patient.remediator.should_stop
    assert same(values_of(patient.model), best)
    assert ("non_finite_loss", "early_stop", "kept") in patient.outcomes
    assert ("non_finite_loss", "skip_step", "failed") in patient.outcomes
    patient.train(80, bad=frozenset(range(300)))
    assert [action for _, action, _ in patient.outcomes].count("early_stop") == 1


def test_without_an_evaluation_the_last_sound_weights_are_left():
    patient = admit("adamw")
    patient.train(100, bad=frozenset(range(30, 100)))
    assert patient.remediator.should_stop
    assert all(tensor.isfinite().all() for tensor in values_of(patient.model))


def test_what_a_rule_prescribes_after_skipping_replaces_the_default():
    patient = admit("sgd")
    patient.train(17)
    patient.remediator.act([finding("non_finite_loss", SKIP, REWIND, ("scale_lr", {"factor": 0.1}), since=5)], 17)
    assert patient.written == []  # one bad step is the guard's affair
    patient.train(20, bad=frozenset(range(18, 40)))
    assert patient.remediator.multipliers in ([0.1], [1.0])
    assert patient.written[1].changes["lr_multiplier"] == (1.0, 0.1)


def test_poisoned_weights_are_rewound_at_once_and_the_second_time_with_a_lower_rate():
    patient = admit("sgd")
    patient.train(20)
    with torch.no_grad():
        patient.model[0].weight[0, 0] = NAN
    patient.train(1)
    assert patient.written[1].action == "rewind"
    assert all(tensor.isfinite().all() for tensor in values_of(patient.model))
    assert patient.remediator.multipliers == [1.0]
    patient.train(3)
    with torch.no_grad():
        patient.model[0].weight[0, 0] = NAN
    patient.train(20)
    assert patient.remediator.multipliers == [0.5]
    assert [outcome for outcome in patient.outcomes if outcome[1] != "skip_step"] == [
        ("non_finite_loss", "rewind", "kept"),
        ("non_finite_loss", "rewind+scale_lr", "kept"),
    ]


def test_a_closure_that_makes_nan_is_repaired_by_a_rewind():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    written = []
    remediator = Remediator(model=model, optimizers=[optimizer], record=written.append)
    for step in range(1, 20):
        x, y = batch(step)
        x = x * NAN if step == 10 else x

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        remediator.after_step(step, finite=bool(loss.isfinite()))
    assert all(tensor.isfinite().all() for tensor in values_of(model))


def test_an_observer_hooked_in_later_sees_the_gradients_of_a_skipped_step():
    patient = admit("sgd")
    seen = []
    patient.optimizer.register_step_pre_hook(lambda *_: seen.append(patient.model[0].weight.grad is not None))
    patient.remediator.block_last()
    patient.train(3, bad=frozenset({1, 3}))
    assert seen == [True, True, True]


def test_two_optimizers_are_guarded_each_for_itself():
    one, other = network(seed=1), network(seed=2)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1), torch.optim.AdamW(other.parameters())]
    written = []
    both = nn.ModuleList([one, other])
    remediator = Remediator(model=both, optimizers=optimizers, record=written.append)
    x, y = batch(1)
    before = values_of(one), values_of(other)
    for model, factor in ((one, NAN), (other, 1.0)):
        nn.functional.mse_loss(model(x * factor), y).backward()
    for optimizer in optimizers:
        optimizer.step()
    remediator.after_step(1, finite=None)
    assert same(values_of(one), before[0])
    assert not same(values_of(other), before[1])
    assert [event.rule for event in written] == ["non_finite_gradient"]


# -- transactions


def test_a_treatment_is_kept_when_its_verification_holds():
    patient, judge = admit(), Judge(ill={"exploding_gradient"})
    patient.train(20)
    patient.remediator.act([finding("exploding_gradient", CUT, verify="ratio < 1", within=5)], 20)
    assert patient.remediator.multipliers == [0.5]
    assert patient.outcomes == [("exploding_gradient", "scale_lr", "pending")]
    patient.remediator.settle(judge, 20)
    judge.holds = True
    patient.remediator.settle(judge, 20)  # what the judge knows is older than the treatment
    assert patient.outcomes[0][2] == "pending"
    patient.remediator.settle(judge.tick(), 21)
    assert patient.outcomes == [("exploding_gradient", "scale_lr", "kept")]
    assert patient.remediator.multipliers == [0.5]
    assert "ratio < 1 holds" in patient.written[-1].outcome_reason


def test_a_treatment_that_does_not_help_in_time_is_turned_back_and_another_follows():
    patient, judge = admit(), Judge(ill={"exploding_gradient"})
    patient.train(40)
    patient.remediator.act([finding("exploding_gradient", CUT, CLIP, since=30, verify="ratio < 1", within=5)], 40)
    patient.remediator.settle(judge, 40)
    patient.remediator.settle(judge.tick(4), 44)
    assert patient.outcomes == [("exploding_gradient", "scale_lr", "pending")]
    patient.remediator.settle(judge.tick(), 45)
    assert patient.outcomes == [
        ("exploding_gradient", "scale_lr", "reverted"),
        ("exploding_gradient", "tighten_clipping", "pending"),
    ]
    assert patient.remediator.multipliers == [1.0]
    assert patient.remediator._knobs[0].max_norm == 1.0
    patient.remediator.settle(judge, 45)
    patient.remediator.settle(judge.tick(5), 50)
    assert patient.outcomes[1][2] == "reverted"
    assert patient.remediator._knobs[0].max_norm is None
    patient.remediator.act([finding("exploding_gradient", CUT, CLIP, since=60)], 60)  # nothing of it again
    assert len(patient.outcomes) == 2


def test_a_second_failure_after_a_rewind_goes_elsewhere():
    patient, judge = admit(), Judge(ill={"divergence"})
    patient.train(60)
    ill = finding("divergence", REWIND, CUT, since=55, verify="ok", within=2, category="unstable")
    patient.remediator.act([ill], 60)
    first = patient.written[-1]
    assert first.changes["weights"] == (60, 48)
    patient.remediator.settle(judge, 60)
    patient.remediator.settle(judge.tick(2), 62)
    second = patient.written[-1]
    assert patient.written[-2].outcome == "reverted"
    assert second.changes["weights"][1] < 48
    assert second.changes["learning_rate"] == (0.1, 0.025)
    assert patient.remediator.multipliers == [0.25]
    patient.remediator.settle(judge, 62)
    patient.remediator.settle(judge.tick(2), 64)
    assert patient.remediator.multipliers == [0.0625]


def test_a_second_failure_takes_what_the_rule_lists_next():
    patient, judge = admit(), Judge(ill={"divergence"})
    patient.train(60)
    patient.remediator.act([finding("divergence", REWIND, CUT, REWIND, CLIP, since=55, verify="ok", within=2)], 60)
    patient.remediator.settle(judge, 60)
    patient.remediator.settle(judge.tick(2), 62)
    assert [action for _, action, _ in patient.outcomes] == ["rewind+scale_lr", "rewind+tighten_clipping"]


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_tensor_lr", "adamw", "adamw_fused"])
def test_rewind_restores_the_state_and_not_the_schedule(optimizer):
    patient = admit(optimizer, model=network(norm=True))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(patient.optimizer, 0.99)
    for _ in range(20):
        patient.train(1)
        scheduler.step()
        if patient.step == 16:
            weights = values_of(patient.model)
    rate = float(patient.optimizer.param_groups[0]["lr"])
    patient.remediator.act([finding("divergence", REWIND, since=19)], 20)
    assert same(values_of(patient.model), weights)
    assert float(patient.optimizer.param_groups[0]["lr"]) == rate
    assert scheduler.last_epoch == 20
    assert patient.remediator._snapshots.steps == [0, 16]


def test_a_clipping_that_is_no_remedy_is_passed_over_and_said_so():
    patient = admit("adamw")
    patient.train(20)
    patient.remediator.act([finding("exploding_gradient", CLIP, CUT)], 20)
    assert patient.outcomes == [("exploding_gradient", "scale_lr", "pending")]
    assert "AdamW" in patient.written[0].reason


def test_a_treatment_happens_wholly_or_not_at_all():
    patient = admit("sgd")
    patient.train(3)
    weights = values_of(patient.model)
    patient.remediator.act([finding("divergence", CUT, REWIND, since=0), finding("other", REWIND, CUT, since=0)], 3)
    assert patient.outcomes == [("divergence", "scale_lr", "pending")]
    other = admit("sgd")
    other.train(3)
    other.remediator.act([finding("other", REWIND, CUT, since=0)], 3)
    assert other.remediator.multipliers == [1.0]
    assert other.written == []
    assert same(values_of(other.model), weights)


def test_without_a_verification_the_end_of_the_finding_decides():
    for ill, outcome in (({"a"}, "reverted"), (set(), "kept")):
        patient, judge = admit(), Judge(ill={"a"})
        patient.train(20)
        patient.remediator.act([finding("a", CUT, within=3)], 20)
        patient.remediator.settle(judge, 20)
        judge.ill = ill
        patient.remediator.settle(judge.tick(3), 23)
        assert patient.outcomes == [("a", "scale_lr", outcome)]


def test_what_cannot_be_verified_is_kept_if_the_finding_has_ended():
    patient, judge = admit(), Judge(ill={"a"}, holds=None)
    patient.train(20)
    patient.remediator.act([finding("a", CUT, verify="x", within=3)], 20)
    patient.remediator.settle(judge, 20)
    judge.ill = set()
    patient.remediator.settle(judge.tick(2), 22)
    assert patient.outcomes[0][2] == "pending"
    patient.remediator.settle(judge.tick(1), 23)
    assert patient.outcomes[0][2] == "kept"


def test_one_treatment_at_a_time_and_the_others_wait():
    patient, judge = admit(policy=Policy(cool_down=0)), Judge(ill={"a", "b", "c"})
    patient.train(20)
    patient.remediator.act([finding("b", CUT, since=12), finding("a", CUT, since=11), finding("c", CUT, since=13)], 20)
    assert [rule for rule, _, _ in patient.outcomes] == ["a"]
    patient.remediator.settle(judge, 20)
    judge.ill = {"c"}  # b went away by itself
    patient.remediator.settle(judge.tick(), 22)
    assert [(rule, outcome) for rule, _, outcome in patient.outcomes] == [("a", "kept"), ("c", "pending")]


def test_a_graver_finding_ends_the_probation_of_a_lesser_one():
    patient = admit()
    patient.train(20)
    patient.remediator.act([finding("slow_learning", ("scale_lr", {"factor": 2.0}), severity="warning")], 20)
    assert patient.remediator.multipliers == [2.0]
    patient.remediator.act([finding("divergence", REWIND, CUT, since=19)], 24)
    assert [(rule, outcome) for rule, _, outcome in patient.outcomes] == [
        ("slow_learning", "reverted"),
        ("divergence", "pending"),
    ]
    assert patient.remediator.multipliers == [0.5]
    patient.remediator.act([finding("exploding_gradient", CLIP, since=19)], 25)  # as grave: it waits
    assert len(patient.outcomes) == 2


def test_after_a_success_only_errors_are_treated_for_a_while():
    patient, judge = admit(policy=Policy(cool_down=10)), Judge()
    patient.train(20)
    patient.remediator.act([finding("a", CUT)], 20)
    patient.remediator.settle(judge, 20)
    patient.remediator.settle(judge.tick(), 21)
    judge.ill = {"b", "c"}
    patient.remediator.act([finding("b", CUT, severity="warning")], 22)
    patient.remediator.settle(judge, 30)
    assert len(patient.outcomes) == 1
    patient.remediator.settle(judge, 31)
    assert [rule for rule, _, _ in patient.outcomes] == ["a", "b"]
    patient.remediator.settle(judge, 31)
    judge.ill = {"c"}
    patient.remediator.settle(judge.tick(), 32)
    patient.remediator.act([finding("c", CUT)], 33)
    assert [rule for rule, _, _ in patient.outcomes] == ["a", "b", "c"]


def test_the_budget_bounds_a_run(caplog):
    patient, judge = admit(policy=Policy(budget=2, cool_down=0)), Judge()
    for number in range(5):
        patient.train(10)
        patient.remediator.act([finding(f"rule_{number}", CUT, since=patient.step - 5)], patient.step)
        patient.remediator.settle(judge, patient.step)
        patient.remediator.settle(judge.tick(), patient.step)
    assert len(patient.outcomes) == 2
    assert patient.remediator.multipliers == [0.25]
    assert "budget of 2" in caplog.text


def test_a_finding_of_no_consequence_or_with_unsafe_advice_only_changes_nothing():
    import msgspec

    patient = admit()
    patient.train(5)
    unsafe = [msgspec.structs.replace(one, applicability="maybe") for one in finding("a", CUT).prescriptions]
    patient.remediator.act(
        [finding("a", CUT, severity="info"), msgspec.structs.replace(finding("b", CUT), prescriptions=unsafe)], 5
    )
    assert patient.written == []


# -- early stopping


def test_early_stop_has_the_best_weights_in_place_before_it_says_so():
    patient = admit()
    patient.train(10)
    patient.remediator.evaluated(10, {"val_loss": 0.5, "val_accuracy": 0.1})
    best = values_of(patient.model)
    for value in (0.6, NAN, float("inf"), 0.5):
        patient.train(5)
        patient.remediator.evaluated(patient.step, {"val_loss": value})
    assert patient.remediator.best == Best(10, 0.5)
    assert not patient.remediator.should_stop
    patient.remediator.act([finding("overfitting", STOP, severity="warning", clock="evaluation")], 30)
    assert patient.remediator.should_stop
    assert same(values_of(patient.model), best)
    assert patient.outcomes == [("overfitting", "early_stop", "kept")]
    assert patient.written[0].changes == {"weights": (30.0, 10.0)}
    patient.remediator.act([finding("divergence", CUT)], 31)
    assert len(patient.outcomes) == 1


def test_nan_is_never_best_even_as_the_first_and_nan_weights_never_are():
    patient = admit()
    patient.train(3)
    patient.remediator.evaluated(3, {"val_loss": NAN})
    patient.remediator.evaluated(3, {"val_accuracy": 0.9})
    assert patient.remediator.best is None
    with torch.no_grad():
        patient.model[0].weight[0, 0] = NAN
    patient.remediator.evaluated(3, {"val_loss": 0.1})
    assert patient.remediator.best is None


def test_a_better_evaluation_after_a_nan_counts():
    patient = admit()
    for value, best in ((1.0, 1.0), (NAN, 1.0), (0.5, 0.5)):
        patient.train(1)
        patient.remediator.evaluated(patient.step, {"val_loss": value})
        assert patient.remediator.best.value == best


# -- going on elsewhere, and letting go


def test_the_state_goes_through_json_and_back():
    patient, judge = admit(), Judge()
    patient.train(20)
    patient.remediator.evaluated(20, {"val_loss": 0.5})
    patient.remediator.act([finding("a", CUT, CLIP)], 20)
    patient.remediator.settle(judge, 20)
    patient.remediator.settle(judge.tick(), 21)
    patient.remediator.act([finding("b", CLIP)], 22)
    state = json.loads(json.dumps(patient.remediator.state_dict()))
    other = admit()
    other.remediator.load_state_dict(state)
    assert other.remediator.multipliers == [0.5]
    assert other.remediator._knobs[0].max_norm == 1.0
    assert other.remediator.best == Best(20, 0.5)
    assert other.remediator.state_dict() == patient.remediator.state_dict()
    other.step = 22
    other.train(1)
    assert other.remediator._snapshots.steps == [22]
    other.remediator.evaluated(23, {"val_loss": 0.7})
    assert other.remediator.best == Best(20, 0.5)
    other.remediator.act([finding("overfitting", STOP)], 24)
    assert not other.remediator.should_stop
    other.remediator.act([finding("divergence", CUT, since=30)], 32)
    assert other.written[0].id == 3


def test_closing_lets_go():
    patient = admit()
    patient.train(20, bad=frozenset({20}))
    patient.remediator.act([finding("a", CUT)], 20)
    patient.remediator.close()
    assert patient.outcomes == [("non_finite_loss", "skip_step", "kept"), ("a", "scale_lr", "pending")]
    assert "before the outcome" in patient.written[-2].outcome_reason
    assert not patient.optimizer._optimizer_step_pre_hooks
    assert not patient.optimizer._optimizer_step_post_hooks
    assert patient.remediator.multipliers == [1.0]


def test_a_cut_cures_a_learning_rate_that_is_too_high():
    def diverging(**options):
        return admit(lambda p: torch.optim.SGD(p, lr=1.2, momentum=0.9), model=nn.Linear(4, 1), **options)

    ill = diverging()
    ill.train(40)
    assert not ill.losses[-1] < 1e3
    patient, judge = diverging(total_steps=120), Judge(ill={"divergence"})
    since = None
    for _ in range(120):
        patient.train(1)
        too_high = patient.losses[-1] > 3 * patient.losses[0]
        judge.tick()
        judge.holds = patient.losses[-1] < patient.losses[0]
        judge.ill = {"divergence"} if too_high else set()
        if too_high and since is None:
            since = patient.step
            ill = finding("divergence", REWIND, CUT, since=since, verify="ok", within=12, category="unstable")
            patient.remediator.act([ill], patient.step)
        if not too_high:
            since = None
        patient.remediator.settle(judge, patient.step)
    assert patient.losses[-1] < 0.1
    assert patient.outcomes[-1][2] == "kept"


def test_a_meta_model_is_trained_without_reading_anything():
    model = network(norm=True).to("meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    remediator = Remediator(model=model, optimizers=[optimizer], record=lambda _: None)
    for step in range(1, 20):
        optimizer.zero_grad()
        model(torch.ones(3, 4, device="meta")).sum().backward()
        optimizer.step()
        remediator.after_step(step, finite=None)
    remediator.close()


@pytest.mark.parametrize("compiled", ["step", "model"])
def test_a_compiled_training_skips_bad_steps_too(compiled):
    torch._dynamo.reset()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    written = []
    remediator = Remediator(model=model, optimizers=[optimizer], record=written.append)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forward = torch.compile(model, backend="aot_eager") if compiled == "model" else model
        update = torch.compile(optimizer.step, backend="aot_eager") if compiled == "step" else optimizer.step
        for step in range(1, 8):
            x, y = batch(step)
            before = values_of(model)
            optimizer.zero_grad()
            nn.functional.mse_loss(forward(x * NAN if step == 4 else x), y).backward()
            update()
            remediator.after_step(step, finite=None)
            assert same(values_of(model), before) == (step == 4)
    assert len(written) == 1
