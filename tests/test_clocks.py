"""Clocks: which ticks there are, what a slower clock says of a faster one, and that cuts change nothing."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.clocks import (
    COMPANIONS,
    EvaluationClock,
    IntervalClock,
    StepClock,
    interval_rows,
    names_on,
    recorded,
    source_of,
)
from lossdoctor.run_clock import RunClock
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Block, Column, Run, Table
from lossdoctor.signals import SIGNALS

NAN, INF = float("nan"), float("inf")


def table(step, **columns):
    """A table; None is a value that was not observed."""
    made = {"step": Column(np.array(step, dtype=np.float64))}
    for name, values in columns.items():
        observed = np.array([[one is not None for one in np.atleast_1d(row)] for row in values])
        numbers = np.array(
            [[NAN if one is None else one for one in np.atleast_1d(row)] for row in values], dtype=np.float32
        )
        if not name.startswith("layer_"):
            observed, numbers = observed[:, 0], numbers[:, 0]
        made[name] = Column(numbers, None if observed.all() else observed)
    return Table(made)


def steps(rows, **columns):
    return table(range(1, rows + 1), **columns)


def run_of(step_table, evaluations=None, layers=None):
    return Run("run", Path("run"), RunInfo(), step_table, evaluations or Table(), layers or Table())


def ticked(clock, run, cuts=()):
    """All ticks of a clock over a run that is cut into blocks."""
    found = [clock.observe(block) for block in run.cut(sorted(cuts))]
    return {name: np.concatenate([ticks.signals[name] for ticks in found]) for name in found[0].signals}


# -- the step clock ---------------------------------------------------------------------------------------------------


def test_the_step_clock_ticks_at_every_record():
    found = ticked(StepClock({"train_loss"}), run_of(table([1, 2, 5], train_loss=[3, 2, 1])))
    assert found["step"].tolist() == [1, 2, 5]
    assert found["train_loss"].tolist() == [3, 2, 1]


def test_what_is_not_finite_is_counted_and_then_missing():
    found = ticked(
        StepClock({"train_loss", "train_loss_non_finite"}), run_of(steps(4, train_loss=[1.0, None, NAN, INF]))
    )
    np.testing.assert_array_equal(found["train_loss"], [1, NAN, NAN, NAN])
    np.testing.assert_array_equal(found["train_loss_non_finite"], [0, NAN, 1, 1])


def test_a_recorded_count_of_non_finite_values_wins_over_the_derived_one():
    found = ticked(
        StepClock({"train_loss_non_finite"}),
        run_of(steps(2, train_loss=[1.0, 1.0], train_loss_non_finite=[0, 3])),
    )
    assert found["train_loss_non_finite"].tolist() == [0, 3]


def test_a_signal_that_was_never_recorded_is_missing_at_every_tick():
    found = ticked(StepClock({"grad_norm", "grad_norm_non_finite"}), run_of(steps(3, train_loss=[1, 1, 1])))
    assert np.isnan(found["grad_norm"]).all()
    assert np.isnan(found["grad_norm_non_finite"]).all()


def test_recorded_arrays_are_not_changed():
    run = run_of(steps(2, train_loss=[NAN, INF]))
    run.steps.columns["train_loss"].values.flags.writeable = False
    ticked(StepClock({"train_loss"}), run)
    np.testing.assert_array_equal(run.steps.columns["train_loss"].values, [NAN, INF])


# -- the interval clock -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smallest", [1, 2])
def test_intervals_partition_the_rows_and_grow_by_a_twentieth(smallest):
    found = ticked(IntervalClock(set(), smallest=smallest), run_of(steps(5000)))["step"]
    begins = np.concatenate(([0], found[:-1]))
    np.testing.assert_array_equal(found - begins, np.maximum(smallest, begins // 20))
    assert interval_rows(int(found[-1]), smallest) > 5000 - found[-1], "the open interval is not judged"


def test_fourteen_intervals_are_about_half_of_the_training():
    found = ticked(IntervalClock(set()), run_of(steps(100_000)))["step"]
    np.testing.assert_allclose(found[100:] / found[86:-14], 2, rtol=0.03)


def test_intervals_count_rows_and_not_logged_step_numbers():
    sparse = run_of(table(np.arange(1, 101) * 500.0))
    dense = ticked(IntervalClock(set()), run_of(steps(100)))["step"]
    np.testing.assert_array_equal(ticked(IntervalClock(set()), sparse)["step"], dense * 500)


def test_companions_speak_of_the_finite_values_of_their_interval():
    names = {f"{companion}_train_loss" for companion in COMPANIONS} | {"count_train_loss_non_finite"}
    found = ticked(IntervalClock(names), run_of(steps(4, train_loss=[3, 1, NAN, 5])))
    assert found["mean_train_loss"].tolist() == [2, 5]
    assert found["median_train_loss"].tolist() == [2, 5]
    assert found["min_train_loss"].tolist() == [1, 5]
    assert found["max_train_loss"].tolist() == [3, 5]
    assert found["first_train_loss"].tolist() == [3, 5]
    assert found["last_train_loss"].tolist() == [1, 5]
    assert found["count_train_loss"].tolist() == [2, 1]
    assert found["p90_train_loss"].tolist() == [pytest.approx(2.8), 5]


def test_an_interval_in_which_nothing_was_observed_says_nothing():
    found = ticked(IntervalClock({"mean_train_loss"}), run_of(steps(4, train_loss=[None, NAN, 1, 2])))
    np.testing.assert_array_equal(found["mean_train_loss"], [NAN, 1.5])


def test_layers_take_their_latest_sample_within_the_interval():
    run = run_of(
        steps(6),
        layers=table([1, 2, 5], layer_grad_norm=[[1, 2], [None, 3], [7, NAN]]),
    )
    found = ticked(IntervalClock({"layer_grad_norm", "layer_depth"}, layers=2), run)
    np.testing.assert_array_equal(found["layer_grad_norm"], [[1, 3], [NAN, NAN], [7, NAN]])
    assert found["layer_depth"].tolist() == [[0, 1]] * 3


def test_a_run_without_layers_has_none_on_any_interval():
    found = ticked(IntervalClock({"layer_grad_norm", "layer_depth"}), run_of(steps(4)))
    assert found["layer_grad_norm"].shape == (2, 0)
    assert found["layer_depth"].shape == (2, 0)


# -- the evaluation clock ---------------------------------------------------------------------------------------------


def test_an_evaluation_sees_the_steps_since_the_one_before():
    run = run_of(steps(6, train_loss=[6, 5, 4, 3, 2, 1]), table([2, 5], val_loss=[9, 8]))
    found = ticked(EvaluationClock({"val_loss", "mean_train_loss", "count_train_loss"}), run)
    assert found["step"].tolist() == [2, 5]
    assert found["val_loss"].tolist() == [9, 8]
    assert found["mean_train_loss"].tolist() == [5.5, 3]
    assert found["count_train_loss"].tolist() == [2, 3]


def test_an_evaluation_before_training_has_no_steps_to_speak_of():
    run = run_of(steps(2, train_loss=[2, 1]), table([0, 2], val_loss=[9, 8]))
    found = ticked(EvaluationClock({"val_loss", "mean_train_loss"}), run)
    np.testing.assert_array_equal(found["mean_train_loss"], [NAN, 1.5])


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3]])
def test_two_evaluations_without_steps_between_leave_the_second_without_companions(cuts):
    run = run_of(steps(4, train_loss=[4, 3, 2, 1]), table([2, 2, 3], val_loss=[9, 8, 7]))
    found = ticked(EvaluationClock({"val_loss", "mean_train_loss"}), run, cuts)
    np.testing.assert_array_equal(found["mean_train_loss"], [3.5, NAN, 2])


def test_an_evaluation_after_the_last_step_is_one():
    run = run_of(steps(2, train_loss=[2, 1]), table([9], val_loss=[3]))
    assert ticked(EvaluationClock({"mean_train_loss"}), run, [1])["mean_train_loss"].tolist() == [1.5]


def test_an_evaluation_that_arrives_in_a_block_of_its_own_sees_the_steps_that_wait():
    clock = EvaluationClock({"mean_train_loss"})
    clock.observe(Block(steps(2, train_loss=[2, 1])))
    late = clock.observe(Block(evaluations=table([2], val_loss=[3])))
    assert late.signals["mean_train_loss"].tolist() == [1.5]


def test_a_validation_loss_that_is_not_finite_is_counted():
    run = run_of(steps(2), table([1, 2], val_loss=[NAN, 1]))
    found = ticked(EvaluationClock({"val_loss", "val_loss_non_finite"}), run)
    np.testing.assert_array_equal(found["val_loss"], [NAN, 1])
    assert found["val_loss_non_finite"].tolist() == [1, 0]


def test_evaluations_without_any_step_tick_too():
    found = ticked(EvaluationClock({"val_loss", "mean_train_loss"}), run_of(Table(), table([1, 2], val_loss=[2, 1])))
    assert found["val_loss"].tolist() == [2, 1]
    assert np.isnan(found["mean_train_loss"]).all()


# -- the run clock ----------------------------------------------------------------------------------------------------


def test_the_run_clock_ticks_once_over_everything():
    clock = RunClock({"mean_train_loss", "max_val_loss", "count_val_loss", "count_grad_norm", "median_grad_norm"})
    run = run_of(steps(4, train_loss=[4, 3, 2, 1]), table([2, 4], val_loss=[9, 8]))
    for block in run.cut([1, 3]):
        clock.observe(block)
    tick = clock.tick()
    assert len(tick) == 1
    assert tick.step.tolist() == [4]
    assert tick.signals["mean_train_loss"].tolist() == [2.5]
    assert tick.signals["max_val_loss"].tolist() == [9]
    assert tick.signals["count_val_loss"].tolist() == [2]
    assert np.isnan(tick.signals["median_grad_norm"][0])


def test_the_run_clock_may_be_asked_while_the_run_goes_on():
    clock = RunClock({"mean_train_loss"})
    assert np.isnan(clock.tick().signals["mean_train_loss"][0])
    clock.observe(Block(steps(2, train_loss=[2, 1])))
    assert clock.tick().signals["mean_train_loss"].tolist() == [1.5]
    clock.observe(Block(table([3], train_loss=[0])))
    assert clock.tick().signals["mean_train_loss"].tolist() == [1]


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_tell_their_source_and_companion():
    assert source_of("mean_train_loss") == ("train_loss", "mean")
    assert source_of("train_loss") == ("train_loss", None)
    assert source_of("count_train_loss_non_finite") == ("train_loss_non_finite", "count")
    assert source_of("layer_grad_norm") == ("layer_grad_norm", None)


def test_no_signal_is_mistaken_for_a_companion():
    for clock in ("step", "interval", "evaluation", "run"):
        for name in names_on(clock) - {"layer_depth"}:
            source, companion = source_of(name)
            assert recorded(name) in SIGNALS
            assert companion is None or name == f"{companion}_{source}"


def test_each_clock_has_its_names():
    assert {"train_loss", "train_loss_non_finite"} <= names_on("step")
    assert "val_loss" not in names_on("step")
    assert {"median_train_loss", "layer_grad_norm", "layer_depth"} <= names_on("interval")
    assert {"val_loss", "val_loss_non_finite", "mean_train_loss"} <= names_on("evaluation")
    assert {"mean_train_loss", "last_val_loss"} <= names_on("run")


# -- cuts -------------------------------------------------------------------------------------------------------------

NAMES = {
    "step": {"train_loss", "train_loss_non_finite", "grad_norm"},
    "interval": {
        "median_train_loss",
        "mean_train_loss",
        "p90_grad_norm",
        "max_train_loss_non_finite",
        "layer_grad_norm",
    },
    "evaluation": {"val_loss", "mean_train_loss", "last_grad_norm"},
}


def clock_of(name):
    return {
        "step": lambda: StepClock(NAMES["step"]),
        "interval": lambda: IntervalClock(NAMES["interval"], layers=3),
        "evaluation": lambda: EvaluationClock(NAMES["evaluation"]),
    }[name]()


def messy_run(seed, rows):
    """A run with gaps, non-finite values, evaluations (some before training, some at one step) and layer samples."""
    rng = np.random.default_rng(seed)

    def column(shape):
        values = rng.standard_normal(shape).astype(np.float32)
        values[rng.random(shape) < 0.1] = NAN
        values[rng.random(shape) < 0.05] = INF
        observed = rng.random(shape) < 0.8
        return Column(np.where(observed, values, np.float32(NAN)), observed)

    step = np.cumsum(rng.integers(1, 3, rows)).astype(np.float64)
    last = step[-1] if rows else 0
    at = np.sort(rng.integers(0, last + 2, rng.integers(0, 8))).astype(np.float64)
    samples = np.unique(rng.choice(step, rng.integers(0, rows + 1))) if rows else np.empty(0)
    return run_of(
        Table({"step": Column(step), "train_loss": column(rows), "grad_norm": column(rows)}),
        Table({"step": Column(at), "val_loss": column(len(at))}),
        Table({"step": Column(samples), "layer_grad_norm": column((len(samples), 3))}),
    )


@pytest.mark.parametrize("clock", NAMES)
def test_any_cut_into_blocks_gives_the_same_ticks(clock):
    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(0, 120), st.lists(st.integers(0, 120), max_size=10))
    def law(seed, rows, cuts):
        run = messy_run(seed, rows)
        whole = ticked(clock_of(clock), run)
        for at in ([cut for cut in cuts if 0 < cut < rows], list(range(1, rows))):
            found = ticked(clock_of(clock), run, at)
            for name, values in whole.items():
                assert found[name].shape == values.shape
                np.testing.assert_array_equal(found[name], values)

    law()


def test_an_empty_block_is_no_tick():
    for clock in NAMES:
        made = clock_of(clock)
        assert len(made.observe(Block())) == 0
        assert len(made.observe(Block(steps(1, train_loss=[1])))) == (1 if clock == "step" else 0)


def test_a_column_that_only_some_blocks_have_is_missing_in_the_others():
    clock = IntervalClock({"mean_grad_norm", "layer_grad_norm"}, layers=1)
    blocks = [
        Block(table([1]), layers=table([1], layer_param_norm=[[5]])),
        Block(table([2], grad_norm=[3]), layers=table([2], layer_grad_norm=[[4]])),
        Block(table([3, 4])),
    ]
    found = [clock.observe(block) for block in blocks]
    ends = list(itertools.chain.from_iterable(ticks.step.tolist() for ticks in found))
    assert ends == [2, 4]
    assert found[1].signals["mean_grad_norm"].tolist() == [3]
    assert found[1].signals["layer_grad_norm"].tolist() == [[4]]
