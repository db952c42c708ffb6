"""Two processes on gloo, treated together: replicas stay equal through everything that is done to them."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.remedies.ranks import SCENARIOS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of the two ranks says of each training, by scenario."""
    here = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        processes = []
        for rank in range(2):
            command = [sys.executable, "-m", "tests.remedies.ranks", str(rank), "2", str(here / "store"), str(here)]
            stderr = stack.enter_context((here / f"stderr-{rank}").open("wb"))
            processes.append(
                subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=stderr)
            )
            stack.callback(processes[-1].kill)
        lines = [process.communicate(timeout=180)[0].decode().splitlines() for process in processes]
    assert [len(one) for one in lines] == [len(SCENARIOS)] * 2, (here / "stderr-0").read_text()[-3000:]
    return {name: [json.loads(one) for one in both] for name, *both in zip(SCENARIOS, *lines, strict=True)}


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
