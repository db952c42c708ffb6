"""Choosing between treatments by trying them, where the loop gives a training step."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lossdoctor import Monitor, Policy, trial
from lossdoctor.remedies import Loop
from lossdoctor.remedies.keeping.snapshots import Snapshots
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.runs.reader import read_run
from tests.remedies.patients import NAN, Judge, admit, batch, finding, network, same, values_of

RAISED = ("scale_lr", {"factor": 4.0})
CUT = ("scale_lr", {"factor": 0.01})
ONCE_MORE = ("scale_lr", {"factor": 0.0101})


class Tried:
    """A patient with a learning rate that is too low, and a training step that can be tried on it."""

    def __init__(self, *, breaks_at=None, **options):
        self.numbers, self.breaks_at = [], breaks_at
        self.model = network(norm=True, dropout=0.1)
        options = {"loop": Loop(self.step, nullcontext), "policy": Policy(trial_steps=48), **options}
        self.patient = admit(lambda parameters: torch.optim.SGD(parameters, lr=1e-3), model=self.model, **options)
        self.patient.train(20)
        self.patient.remediator.act([], 20)

    def step(self, number):
        self.numbers.append(number)
        if len(self.numbers) == self.breaks_at:
            raise RuntimeError("a batch that is not there")
        x, y = batch(500 + number)
        optimizer = self.patient.optimizer
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def fall_ill(self, *actions):
        """A finding with these treatments, each one of its own."""
        self.patient.remediator.act([finding("slow_learning", *actions, since=20)], 20)

    @property
    def multiplier(self):
        return self.patient.remediator.multipliers[0]


def everything(model, optimizer):
    state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, torch.Tensor)]
    return [*values_of(model), *(value.clone() for value in state), torch.get_rng_state()]


def test_the_treatment_that_is_better_beyond_doubt_is_chosen_and_the_trial_recorded():
    one = Tried()
    one.fall_ill(CUT, RAISED)
    assert one.multiplier == 4.0
    assert one.numbers == [*range(48)] * 3, "as it is, and each treatment"
    told = {act.id: act for act in one.patient.written}
    assert [(act.action, act.outcome) for act in told.values()] == [("trial", "tried"), ("scale_lr", "pending")]
    assert "as it is" in told[1].reason
    assert "scale_lr (factor 0.01)" in told[1].reason
    assert "scale_lr (factor 4) is the treatment to begin with: better" in told[1].outcome_reason


def test_a_trial_leaves_everything_as_it_was():
    one = Tried(also=[nn.Linear(2, 2)])
    before = everything(one.model, one.patient.optimizer)
    gradients = [parameter.grad for parameter in one.model.parameters()]
    copies = [gradient.clone() for gradient in gradients]
    one.fall_ill(CUT, RAISED)
    assert one.numbers
    assert same(everything(one.model, one.patient.optimizer), before)
    assert all(
        parameter.grad is gradient for parameter, gradient in zip(one.model.parameters(), gradients, strict=True)
    )
    assert same(gradients, copies)
    assert len(one.patient.optimizer._optimizer_step_pre_hooks) == 2


def test_where_no_difference_can_be_told_the_ladder_decides():
    one = Tried()
    one.fall_ill(ONCE_MORE, CUT)
    assert one.multiplier == 0.0101


def test_a_treatment_that_fails_is_followed_by_the_next_one():
    one = Tried()
    one.fall_ill(CUT, RAISED, ("tighten_clipping", {"max_norm": 1e-3}))
    judge = Judge(ill={"slow_learning"})
    for _ in range(2):
        one.patient.remediator.settle(judge.tick(40), 60)
    actions = [(act.action, act.outcome) for act in {act.id: act for act in one.patient.written}.values()]
    assert actions == [("trial", "tried"), ("scale_lr", "reverted"), ("tighten_clipping", "pending")]
    assert one.multiplier == 1.0


@pytest.mark.parametrize("breaks_at", [1, 60])
def test_a_training_step_that_fails_leaves_the_choice_to_the_ladder_and_is_asked_no_more(breaks_at, caplog):
    one = Tried(breaks_at=breaks_at)
    before = everything(one.model, one.patient.optimizer)
    one.fall_ill(CUT, RAISED)
    assert same(everything(one.model, one.patient.optimizer), before)
    assert one.multiplier == 0.01
    assert "train_step failed" in caplog.text
    told = {act.id: act for act in one.patient.written}
    assert [(act.action, act.outcome) for act in told.values()] == [("trial", "failed"), ("scale_lr", "pending")]
    assert "a batch that is not there" in told[1].outcome_reason
    one.patient.remediator.settle(Judge(ill={"slow_learning"}).tick(), 21)
    one.patient.remediator.act([finding("plateau", CUT, RAISED, since=21)], 21)
    assert len(one.numbers) == breaks_at


def test_one_treatment_is_no_choice_and_the_deeper_cuts_of_one_are_none_either():
    one = Tried()
    one.patient.remediator.act([finding("slow_learning", CUT, since=20, category="unstable")], 20)
    assert one.multiplier == 0.01
    assert not one.numbers


def test_a_rewind_is_tried_from_its_snapshot_which_stays_as_it_is():
    one = Tried()
    one.fall_ill(("rewind", {}), CUT, RAISED)  # rewind + cut, or a rise where it stands
    assert one.multiplier == 4.0
    assert "rewind + scale_lr (factor 0.01)" in one.patient.written[0].reason
    snapshots = one.patient.remediator._snapshots
    assert all(snapshot.verified for snapshot in snapshots._kept)
    steps = snapshots.steps
    assert steps[0] == 0


def test_what_the_policy_forbids_is_not_tried():
    one = Tried(policy=Policy(actions=["skip_step", "tighten_clipping"]))
    one.fall_ill(CUT, RAISED)
    assert not one.numbers
    assert one.multiplier == 1.0


class Company:
    """Other ranks, as a Remediator asks for them."""

    snapshots, guard = Snapshots, StepGuard

    def asked_once(self, policy):
        return policy

    def enter(self, patient, model):
        """Nobody else is there."""

    @property
    def agreement(self):
        return self

    def leave(self):
        """Nobody is told."""


def test_one_of_several_processes_does_not_train_on_alone():
    one = Tried(company=Company())
    one.fall_ill(CUT, RAISED)
    assert not one.numbers
    assert one.multiplier == 0.01


def treated(run_dir, *, rate, spoiled, steps=260, offers=True, remediate="auto"):
    """A regression whose loop offers its step; targets of the steps in `spoiled` are far off."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    tried = []

    def step(number, *, bad=False):
        x, y = batch(number)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y * 30 if bad else y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    def trying(number):
        tried.append(number)
        loss = step(number + 1)
        monitor.step(loss)  # as a loop's own step would
        return loss

    losses, options = [], {"train_step": trying} if offers else {}
    with Monitor(model, optimizer, run_dir=run_dir, scheduler=scheduler, remediate=remediate, **options) as monitor:
        for number in range(1, steps + 1):
            losses.append(step(number, bad=number in spoiled))
            monitor.step(losses[-1])
    return model, [loss.item() for loss in losses], tried, read_run(run_dir), scheduler


def test_a_training_in_which_nothing_is_found_is_bit_identical_and_tries_nothing(tmp_path):
    plain, losses, *_ = treated(tmp_path / "off", rate=0.005, spoiled=(), offers=False, remediate="off")
    model, watched, tried, run, _ = treated(tmp_path / "auto", rate=0.005, spoiled=())
    assert run.interventions == ()
    assert not tried
    assert watched == losses
    assert same(values_of(model), values_of(plain))


def test_a_loop_that_offers_its_step_is_treated_by_trial(tmp_path):
    _, losses, tried, run, scheduler = treated(tmp_path / "run", rate=0.005, spoiled=(150, 151))
    assert run.steps.step.tolist() == list(range(1, 261)), "what was tried is no part of the run"
    trials = [act for act in run.interventions if act.action == "trial"]
    assert trials
    assert trials[0].outcome == "tried"
    assert tried[:5] == [0, 1, 2, 3, 4]
    assert sum(losses[-20:]) / 20 < losses[0] / 4
    assert scheduler.last_epoch == 260


def test_a_trial_begins_from_the_learning_rate_in_force(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(number):
        x, y = batch(number)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    with Monitor(model, optimizer, run_dir=tmp_path / "run", remediate="auto") as monitor:
        monitor.step(step(0))
        candidates = {"none": [("scale_lr", {"factor": 0.5})]}
        as_it_was = trial(monitor, step, candidates, steps=16).outcomes[1].losses
        monitor._remediator._knobs[0].multiplier = 0.5
        as_it_is = trial(monitor, step, candidates, steps=16).outcomes[0].losses
    assert as_it_is.tolist() == as_it_was.tolist()


def test_a_step_whose_loss_is_no_number_ends_a_trial_without_a_choice():
    one = Tried(loop=Loop(lambda number: NAN, nullcontext))
    one.fall_ill(CUT, RAISED)
    assert one.multiplier == 0.01
