"""Two processes on gloo, each with shards of one model: treated as one training, as replicas are."""

import math
from functools import cache

import pytest

from tests.remedies.processes import told_by_two
from tests.remedies.shards import SCENARIOS

KINDS = ("fsdp1", "fsdp1_original", "fsdp2")
EACH = [(kind, scenario) for kind, names in SCENARIOS.items() if kind != "ddp" for scenario in names]


def those_of(scenario):
    return [kind for kind in KINDS if scenario in SCENARIOS[kind]]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What both ranks say of each training of a kind, by scenario; a kind is trained when it is first asked for."""

    @cache
    def tell(kind):
        names = SCENARIOS[kind]
        ranks = told_by_two("tests.remedies.shards", tmp_path_factory.mktemp(kind), kind, lines=len(names))
        return dict(zip(names, zip(*ranks, strict=True), strict=True))

    return tell


@pytest.mark.parametrize(("kind", "scenario"), EACH)
def test_all_ranks_do_the_same(told, kind, scenario):
    first, second = told(kind)[scenario]
    for what in ("told", "knobs", "steps", "treats"):
        assert first[what] == second[what], what
    assert repr(first["weights"]) == repr(second["weights"])


@pytest.mark.parametrize("kind", those_of("divergence"))
def test_a_divergence_is_rewound_at_the_step_and_to_the_weights_that_replicas_are(told, kind):
    sharded, replica = told(kind)["divergence"][0], told("ddp")["divergence"][0]
    assert sharded["told"] == replica["told"]
    assert any(action == "rewind+scale_lr" for _, _, action, _ in sharded["told"])
    assert sharded["knobs"] == replica["knobs"]
    assert sharded["last"] < 0.1
    assert sharded["weights"] == pytest.approx(replica["weights"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", those_of("nan"))
def test_a_nan_in_the_shard_of_one_rank_keeps_the_step_from_the_weights_and_the_state_of_both(told, kind):
    for rank in told(kind)["nan"]:
        assert not {1, 20, 28, 29} & set(rank["changed"])
        assert len(rank["changed"]) == 40 - 4
        assert all(map(math.isfinite, rank["held"]))
        assert [(step, action) for step, _, action, _ in rank["told"]] == [(1, "skip_step"), (20, "skip_step")]


@pytest.mark.parametrize("kind", those_of("healthy"))
def test_a_healthy_training_is_bit_identical(told, kind):
    for rank in told(kind)["healthy"]:
        assert rank["same"]
        assert rank["told"] == []
        assert rank["treats"]


@pytest.mark.parametrize("kind", those_of("rewind"))
def test_a_rewind_restores_exactly_the_snapshot_though_parameters_are_gathered(told, kind):
    for rank in told(kind)["rewind"]:
        assert rank["done"]
        assert rank["to"] == 32
        assert rank["moved"]
        assert rank["pieces"]
        assert rank["whole"]
        assert rank["validated"]


@pytest.mark.parametrize("kind", those_of("overfitting"))
def test_the_best_weights_are_those_of_the_evaluation_on_all_ranks(told, kind):
    for rank in told(kind)["overfitting"]:
        assert rank["told"][-1][1:3] == ["overfitting", "early_stop"]
        assert rank["steps"] < 240
        assert rank["best"] == 100
        assert rank["restored"] == [100]


@pytest.mark.parametrize("kind", those_of("knobs"))
def test_knobs_go_by_the_norm_of_all_shards(told, kind):
    sharded, replica = told(kind)["knobs"][0], told("ddp")["knobs"][0]
    assert sharded["weights"] == pytest.approx(replica["weights"], rel=1e-5, abs=1e-6)
    assert sharded["large"] == replica["large"] == 1


@pytest.mark.parametrize("kind", those_of("sound"))
def test_weights_are_sound_on_all_ranks_or_on_none(told, kind):
    for rank in told(kind)["sound"]:
        assert rank["answers"] == [True, False]


@pytest.mark.parametrize("kind", those_of("fault"))
def test_where_the_remedies_of_one_rank_fail_all_ranks_let_go_at_the_same_step(told, kind):
    first, second = told(kind)["fault"]
    assert first["steps"] == second["steps"] == 60
    assert not first["treats"]
    assert second["let go"] == [32, 32], "it breaks at the end of step 32"
    assert first["let go"] in ([32, 32], [33, 33]), "the others know of it before they take the next step"
