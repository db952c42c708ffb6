"""Two processes on gloo, treated together: replicas stay equal through everything that is done to them."""

import pytest

from tests.remedies.processes import told_by_two
from tests.remedies.ranks import SCENARIOS


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of the two ranks says of each training, by scenario."""
    here = tmp_path_factory.mktemp("ranks")
    ranks = told_by_two("tests.remedies.ranks", here, lines=len(SCENARIOS))
    return dict(zip(SCENARIOS, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_replicas_are_equal_at_the_end(told, scenario):
    first, second = told[scenario]
    assert first["weights"] == second["weights"]
    assert first["knobs"] == second["knobs"]
    assert first["steps"] == second["steps"]
    assert first["told"] == second["told"]


def test_a_divergence_is_rewound_with_a_lower_rate_on_both(told):
    first, _ = told["divergence"]
    assert any(action == "rewind+scale_lr" for _, _, action, _ in first["told"])
    assert first["knobs"][0]["multiplier"] < 1
    assert first["last"] < 2


def test_a_nan_on_one_rank_reaches_the_weights_of_none(told):
    first, second = told["nan"]
    assert first["finite"]
    assert second["finite"]
    assert [action for _, _, action, _ in first["told"]] == ["skip_step"]


def test_what_rank_0_alone_evaluated_stops_both_with_its_best_weights(told):
    first, second = told["overfitting"]
    assert first["steps"] < 240
    assert first["best"] == 100
    assert first["told"][-1][1:3] == ["overfitting", "early_stop"]
    assert second["told"] == first["told"]


def test_rank_0_is_asked_and_its_veto_holds_for_all(told):
    first, _ = told["veto"]
    assert first["knobs"][0]["multiplier"] == 1
    assert not any("scale_lr" in action for _, _, action, _ in first["told"])


def test_where_the_remedies_of_one_rank_fail_all_ranks_let_go(told):
    first, second = told["fault"]
    assert first["steps"] == second["steps"] == 240
    assert not first["treats"]
    assert not second["treats"]
    assert all(one["treats"] for name in ("divergence", "nan", "veto") for one in told[name])
