import numpy as np
import pytest

from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.ranks import combine
from lossdoctor.runs.tables import Column, Run, Table


def run(tmp_path, rank, steps, *, layers=None, sharded=False, world_size=2, **columns):
    def column(values):
        values = np.array(values, dtype=np.float64)
        observed = ~np.isnan(values)
        return Column(values.astype(np.float32), None if observed.all() else observed)

    def table(steps, columns):
        return Table({"step": Column(np.array(steps, dtype=np.float64)), **{k: column(v) for k, v in columns.items()}})

    return Run(
        name="run",
        path=tmp_path,
        info=RunInfo(rank=rank, world_size=world_size, sharded=sharded),
        steps=table(steps, columns),
        layers=table(steps, layers) if layers else Table(),
    )


def test_rows_belong_together_by_their_step(tmp_path):
    first = run(tmp_path, 0, [1, 2, 3, 5], train_loss=[1, 1, 1, 1])
    second = run(tmp_path, 1, [2, 3, 4], train_loss=[1.5, 3, 9])
    column = combine(first, [second]).steps.columns["rank_loss_spread"]
    assert column.mask().tolist() == [False, True, True, False]
    assert column.values[1:3].tolist() == [0.5, 2.0]


def test_a_rank_that_recorded_nothing_compares_with_nothing(tmp_path):
    first = run(tmp_path, 0, [1, 2], train_loss=[1, 1])
    assert "rank_loss_spread" not in combine(first, [run(tmp_path, 1, [])]).steps.columns


@pytest.mark.parametrize(("times", "ratio"), [([1, 3], 3), ([1, 2, 8], 4), ([1, 2, 4, 8], 4), ([2, 2, 2], 1)])
def test_the_slowest_rank_is_compared_with_the_lower_median(tmp_path, times, ratio):
    ranks = [run(tmp_path, rank, [1], time_to_backward=[time]) for rank, time in enumerate(times)]
    column = combine(ranks[0], ranks[1:]).steps.columns["slowest_rank_step_time_ratio"]
    assert column.values.tolist() == [ratio]


def test_replicas_in_step_have_a_spread_of_exactly_zero(tmp_path):
    ranks = [run(tmp_path, rank, [1, 2], param_norm=[0.1, 0], learning_rate=[1e-3, 0]) for rank in range(3)]
    columns = combine(ranks[0], ranks[1:]).steps.columns
    assert columns["rank_param_norm_spread"].values.tolist() == [0, 0]
    assert columns["rank_learning_rate_spread"].values.tolist() == [0, 0]


def test_a_loss_that_is_not_finite_on_one_rank_shows(tmp_path):
    ranks = [run(tmp_path, rank, [1, 2], train_loss=[1, loss]) for rank, loss in enumerate([1.0, np.inf])]
    assert combine(ranks[0], ranks[1:]).steps.columns["rank_loss_spread"].values.tolist() == [0, np.inf]


def test_the_squares_of_shares_add_up(tmp_path):
    shares = {"grad_norm": [[3, 6], [4, 8]], "param_norm": [[5, np.nan], [12, np.nan]]}
    shares["update_ratio"] = [[0.6, np.nan], [1 / 3, np.nan]]  # changes of 3 and 4
    ranks = [run(tmp_path, at, [1, 2], sharded=True, **{k: v[at] for k, v in shares.items()}) for at in range(2)]
    columns = combine(ranks[0], ranks[1:]).steps.columns
    assert columns["grad_norm"].values.tolist() == [5, 10]
    assert columns["param_norm"].mask().tolist() == [True, False]
    assert columns["param_norm"].values[0] == 13
    assert columns["update_ratio"].values[0] == pytest.approx(5 / 13)
    assert columns["grad_to_param"].values[0] == pytest.approx(5 / 13)
    assert columns["update_ratio"].mask().tolist() == [True, False]


def test_an_empty_shard_takes_nothing_from_a_layers_update(tmp_path):
    norms = {"layer_param_norm": [[[2.0, 1.0]], [[0.0, 1.0]]], "layer_update_ratio": [[[0.5, 0.1]], [[np.nan, 0.1]]]}
    ranks = [
        run(tmp_path, at, [1], sharded=True, layers={name: values[at] for name, values in norms.items()})
        for at in range(2)
    ]
    column = combine(ranks[0], ranks[1:]).layers.columns["layer_update_ratio"]
    np.testing.assert_allclose(column.values, [[0.5, 0.1]])


@pytest.mark.parametrize("others", [0, 1])
def test_shares_are_no_norms_while_a_rank_is_missing(tmp_path, others):
    ranks = [run(tmp_path, at, [1], sharded=True, world_size=3, grad_norm=[3], train_loss=[1]) for at in range(2)]
    columns = combine(ranks[0], ranks[1 : 1 + others]).steps.columns
    assert "grad_norm" not in columns or not columns["grad_norm"].mask().any()
    assert columns["train_loss"].values.tolist() == [1]
