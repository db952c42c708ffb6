"""What is made of columns: totals, splits, seams, hidden NaNs, losses that cannot be compared, the user's word."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import Log, Series, runs_of


def log(config=None, **columns):
    """A log of columns, NaN where nothing was logged; a double underscore in a name is a slash."""
    series = {}
    for name, logged in columns.items():
        values = np.array([np.nan if value is None else value for value in logged], dtype=float)
        present = np.array([value is not None for value in logged])
        series[name.replace("__", "/")] = Series(values[present], np.flatnonzero(present))
    rows = max(len(values) for values in columns.values())
    return Log(Path("log"), "test", series, rows, config=config or {})


def column(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.columns[name].values[table.columns[name].mask()].tolist()


def test_columns_with_a_prefix_of_validation_are_evaluations():
    (run,) = runs_of(log(step=[1, 2, 3, 4], loss=[4, 3, None, 2], val__nll=[None, None, 5, None]))
    assert run.steps.step.tolist() == [1, 2, 4]
    assert run.evaluations.step.tolist() == [3]
    assert column(run, "val_loss") == [5]


def test_validation_is_preferred_to_test_and_test_to_nothing():
    both = log(epoch=[0, 1], loss=[2, 1], val_loss=[3, 2], test_loss=[9, 9], test_acc=[0.1, 0.1])
    assert column(runs_of(both)[0], "val_loss") == [3, 2]
    assert "val_accuracy" not in runs_of(both)[0].evaluations.columns
    only = log(epoch=[0, 1], loss=[2, 1], test_loss=[9, 9])
    assert column(runs_of(only)[0], "val_loss") == [9, 9]


def test_a_fragment_is_not_preferred_to_a_loss_over_the_whole_run():
    steps = [*range(0, 100, 10), *range(100, 1000, 50)]
    early = [1.0 if s < 100 else None for s in steps]
    whole = [2.0 if s % 50 == 0 else None for s in steps]
    (run,) = runs_of(log(step=steps, loss=early, train__loss=whole))
    assert set(column(run, "train_loss")) == {2.0}


def test_a_total_is_preferred_to_its_parts_and_the_parts_are_kept():
    (run,) = runs_of(log(step=[1, 2], total_loss=[3, 3], loss_cls=[1, 1], loss_box=[2, 2]))
    assert (column(run, "train_loss"), column(run, "train_loss_cls")) == ([3, 3], [1, 1])


def test_a_total_is_preferred_to_a_part_that_is_called_smooth():
    (run,) = runs_of(log(step=[1, 2], loss_det=[1, 1], loss_smooth=[0.1, 0.2], loss_total=[3, 2]))
    assert column(run, "train_loss") == [3, 2]
    (run,) = runs_of(log(step=[1, 2], loss=[3, 2], smooth_loss=[3, 3]))
    assert column(run, "train_loss") == [3, 2]


def test_parts_without_a_total_are_summed_alike_for_training_and_validation():
    (run,) = runs_of(
        log(epoch=[0, 1], train__box_loss=[1, 1], train__cls_loss=[2, 2], val__box_loss=[3, 3], val__cls_loss=[4, 4])
    )
    assert (column(run, "train_loss"), column(run, "val_loss")) == ([3, 3], [7, 7])


def test_a_step_mean_and_an_epoch_mean_are_one_loss():
    (run,) = runs_of(log(step=[1, 2, 3, 4], train_loss_step=[4, 3, 2, 1], train_loss_epoch=[None, None, None, 2.5]))
    assert column(run, "train_loss") == [4, 3, 2, 1]


def test_a_perplexity_is_judged_by_its_logarithm():
    (run,) = runs_of(log(step=[1, 2], train_loss=[2, 1], val_ppl=[np.e**3, np.e**2]))
    assert column(run, "val_loss") == pytest.approx([3, 2])


def test_accuracies_in_percent_and_in_fractions_are_made_alike():
    (run,) = runs_of(log(epoch=[0, 1], loss=[2, 1], train_acc=[0.5, 0.6], val_acc=[50, 55]))
    assert column(run, "train_accuracy") == pytest.approx([50, 60])


def test_one_accuracy_where_the_loss_of_the_validation_is_belongs_to_it():
    (run,) = runs_of(log(epoch=[1, 2], train_loss=[2, 1], valid_loss=[2, 1], accuracy=[0.5, 0.75]))
    assert column(run, "val_accuracy") == [0.5, 0.75]
    for loss, accuracy in (("loss", "other"), ("train_loss", "train_accuracy"), ("train_loss", "val_accuracy")):
        columns = {loss: [2, 1], "val_loss": [2, 1], "accuracy": [0.5, 0.75], accuracy: [0.25, 0.5]}
        (run,) = runs_of(log(epoch=[1, 2], **columns))
        assert "val_accuracy" not in run.evaluations.columns or column(run, "val_accuracy") == [0.25, 0.5]
    (run,) = runs_of(log(epoch=[1, 2], train_loss=[2, 1], val_loss=[None, 1], accuracy=[0.5, 0.75]))
    assert column(run, "train_accuracy") == [0.5, 0.75]


def test_milliseconds_become_seconds_and_running_totals_are_no_step_times():
    (run,) = runs_of(log(step=[1, 2, 3, 4, 5], loss=[1] * 5, ms_batch=[500, 510, 490, 500, 500]))
    assert column(run, "step_time") == pytest.approx([0.5, 0.51, 0.49, 0.5, 0.5])
    (run,) = runs_of(log(step=[1, 2, 3, 4, 5], loss=[1] * 5, step_time=[1, 2, 3, 4, 5]))
    assert "step_time" not in run.steps.columns


def test_epochs_divide_the_rows_within_them():
    (run,) = runs_of(log(epoch=[0, 0, 0, 0, 1, 1, 1, 1], loss=[1] * 8))
    assert run.steps.step.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_batches_that_are_counted_anew_in_every_epoch_go_on():
    epochs = [e for e in range(3) for _ in range(4)]
    (run,) = runs_of(log(epoch=epochs, step=[0, 10, 20, 30] * 3, loss=np.linspace(3, 1, 12).tolist()))
    assert run.steps.step.tolist() == list(range(0, 120, 10))
    (run,) = runs_of(log(step=[0, 10, 20, 30] * 3, loss=np.linspace(3, 1, 12).tolist()))
    assert run.steps.step.tolist() == list(range(0, 120, 10))


def test_runs_of_equal_length_that_start_over_are_runs():
    loss = np.linspace(3, 1, 10).tolist() * 3
    found = runs_of(log(step=list(range(10)) * 3, loss=loss))
    assert [len(run.steps) for run in found] == [10, 10, 10]
    assert all(not run.marks for run in found)


def test_a_seam_belongs_to_the_run_behind_it_with_its_first_validation():
    steps = [0, 1, 2, 3, 0, 0, 1, 2]
    loss = [4, 3, 2, 1, None, 4, 3, 2]
    val = [None, None, None, 5, 9, None, None, None]
    first, second = runs_of(log(step=steps, loss=loss, val_loss=val))
    assert (column(first, "val_loss"), column(second, "val_loss")) == ([5], [9])


def test_rows_in_another_order_are_sorted_and_no_resume():
    (run,) = runs_of(log(step=[1, 2, 4, 3, 5, 6], loss=[6, 5, 3, 4, 2, 1]))
    assert column(run, "train_loss") == [6, 5, 4, 3, 2, 1]
    assert not run.marks


def test_what_was_logged_beyond_a_checkpoint_is_superseded():
    (run,) = runs_of(log(step=[1, 2, 3, 4, 5, 3, 4, 5, 6], loss=[9, 8, 7, 6, 5, 17, 16, 15, 14]))
    assert column(run, "train_loss") == [9, 8, 17, 16, 15, 14]
    assert [mark.step for mark in run.marks] == [3]


def test_a_rate_that_is_logged_at_steps_of_its_own_holds_until_the_next():
    (run,) = runs_of(log(step=[0, 1, 2, 3, 4, 5], loss=[None, 5, 4, None, 3, 2], lr=[0.1, None, None, 0.2, None, None]))
    assert column(run, "learning_rate") == pytest.approx([0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ("train", "val", "comparable"),
    [
        (np.linspace(3, 1, 20), np.linspace(3.1, 1.3, 20), True),
        (np.linspace(3, 0.01, 20), np.linspace(3.1, 2.3, 20), True),  # overfitting is no other loss
        (np.linspace(7, 2.9, 20), np.linspace(6.9, 0.8, 20), False),  # mixup
        (np.linspace(0.01, 0.004, 20), np.linspace(1.2, 0.8, 20), False),  # binary and categorical cross-entropy
        (np.linspace(3, 1, 2), np.linspace(3, 1, 2), None),
    ],
    ids=["alike", "overfit", "mixup", "another", "short"],
)
def test_losses_that_are_not_the_same_quantity_are_recognized(train, val, comparable):
    (run,) = runs_of(log(epoch=list(range(len(train))), train_loss=train.tolist(), val_loss=val.tolist()))
    assert run.info.losses_comparable is comparable


def test_the_plan_of_a_training_is_in_the_unit_of_its_axis():
    config = {"epochs": 90, "max_steps": 5000}
    assert runs_of(log(epoch=[0, 1], loss=[2, 1], config=config))[0].info.total_steps == 90
    assert runs_of(log(step=[0, 1], loss=[2, 1], config=config))[0].info.total_steps == 5000
    assert runs_of(log(step=[0, 1], loss=[2, 1], config={"max_steps": 2**63}))[0].info.total_steps is None


def test_the_users_word_goes_before_any_guess():
    given = log(step=[1, 2], loss=[2, 1], eval__nll=[3, 3], eval__loss=[9, 9])
    assert column(runs_of(given)[0], "val_loss") == [9, 9]
    assert column(runs_of(given, {"val_loss": "eval/nll"})[0], "val_loss") == [3, 3]
    assert "val_loss" not in runs_of(given, {"val_loss": ""})[0].evaluations.columns
    assert column(runs_of(log(step=[1, 2], foo=[2, 1]), {"train_loss": "foo"})[0], "train_loss") == [2, 1]
    assert runs_of(log(tick=[5, 6], loss=[2, 1]), {"step": "tick"})[0].steps.step.tolist() == [5, 6]


def test_a_column_that_is_not_there_is_an_error_with_what_is_near():
    with pytest.raises(LogError, match="no column 'eval/nl'; did you mean 'eval/nll'"):
        runs_of(log(step=[1], loss=[1], eval__nll=[1]), {"val_loss": "eval/nl"})
    assert runs_of(log(step=[1, 2], loss=[1, 1]), {"val_loss": "eval/nl"}, strict=False)


def test_a_log_without_a_loss_says_what_it_has_and_what_to_do():
    with pytest.raises(LogError, match=r"no loss or accuracy .*columns: foo.*--map train_loss=COLUMN"):
        runs_of(log(step=[1, 2], foo=[2, 1]))


def test_what_was_taken_for_what_is_said():
    (run,) = runs_of(log(step=[1, 2], loss=[2, float("nan")], eval_nll=[None, 3], foo=[1, 1]))
    assert "train_loss: loss (2 values, 1 of them not finite)" in run.read_as
    assert "val_loss: eval_nll (1 values)" in run.read_as
    assert "not used: foo" in run.read_as


cells = st.none() | st.floats(width=32) | st.integers(-5, 50).map(float)
names = st.sampled_from(
    ["step", "epoch", "loss", "train_loss", "val_loss", "lr", "grad_norm", "box_loss", "cls_loss", "acc"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(names, st.lists(cells, min_size=8, max_size=8), min_size=1))
def test_any_columns_give_sound_tables_or_one_line(columns):
    try:
        found = runs_of(log(**columns))
    except LogError:
        return
    for run in found:
        for table in (run.steps, run.evaluations):
            assert (np.diff(table.step) >= 0).all()
            assert np.isfinite(table.step).all()
            assert {len(values) for values in table.columns.values()} <= {len(table)}


@pytest.mark.parametrize("reward", ["reward", "rollout/ep_rew_mean", "AverageEpRet", "episode_return", "mean_reward"])
def test_losses_of_an_agent_are_not_judged_as_those_of_a_learner(reward):
    (run,) = runs_of(log(step=[1, 2, 3], loss=[1, 2, 3], entropy_loss=[3, 2, 1], **{reward: [1, 2, 3]}))
    assert "train_loss" not in run.steps.columns
    assert column(run, "train_loss_agent") == [1, 2, 3]
    assert any("an agent that makes its own data" in warning for warning in run.warnings)


def test_the_user_may_have_an_agents_loss_judged():
    (run,) = runs_of(log(step=[1, 2, 3], loss=[1, 2, 3], reward=[1, 2, 3]), {"train_loss": "loss"})
    assert column(run, "train_loss") == [1, 2, 3]
    assert not run.warnings


@pytest.mark.parametrize("name", ["rewards/chosen", "rewards/margins", "rewards/accuracies", "reward_loss", "score"])
def test_rewards_of_answers_that_are_compared_are_no_agents(name):
    (run,) = runs_of(log(step=[1, 2, 3], loss=[3, 2, 1], **{name: [1, 2, 3]}))
    assert column(run, "train_loss") == [3, 2, 1]


def test_why_the_losses_of_two_players_are_not_judged_is_said():
    (run,) = runs_of(log(step=[1, 2], loss_G=[1, 2], loss_D=[2, 1]))
    assert any("play against each other" in warning for warning in run.warnings)


def test_where_no_loss_was_logged_an_error_stands_for_it():
    (run,) = runs_of(log(epoch=[1, 2, 3], train_rmse=[3, 2, 1], val_rmse=[4, 3, 2], val_r2=[0.1, 0.2, 0.3]))
    assert (column(run, "train_loss"), column(run, "val_loss")) == ([3, 2, 1], [4, 3, 2])
    (run,) = runs_of(log(epoch=[1, 2], val_loss=[2, 1], train_rmse=[3, 2]))
    assert "train_loss" not in run.steps.columns


def test_what_is_counted_in_steps_of_an_environment_is_the_axis():
    (run,) = runs_of(log(time__total_timesteps=[256, 512, 768], train__loss=[1, 2, 3], time__iterations=[1, 2, 3]))
    assert run.steps.step.tolist() == [256, 512, 768]


@pytest.mark.parametrize("name", ["critic_loss", "policy_loss", "loss_D", "g_loss"])
def test_the_loss_of_one_player_alone_is_not_judged_either(name):
    (run,) = runs_of(log(step=[1, 2, 3], **{name: [1, 2, 3]}))
    assert "train_loss" not in run.steps.columns


def test_a_share_stands_for_an_accuracy_where_a_validation_has_no_other():
    (run,) = runs_of(log(epoch=[1, 2], train_loss=[2, 1], val_recall=[0.5, 0.6], val_dice=[0.7, 0.8]))
    assert column(run, "val_accuracy") == pytest.approx([0.7, 0.8])
    (run,) = runs_of(log(epoch=[1, 2], train_loss=[2, 1], val_loss=[2, 1], val_dice=[0.7, 0.8]))
    assert "val_accuracy" not in run.evaluations.columns
    (run,) = runs_of(log(epoch=[1, 2], train_loss=[2, 1], val_psnr=[25, 130]))
    assert not len(run.evaluations)
