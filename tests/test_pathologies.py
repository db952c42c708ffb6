"""The corpus: its labels are complete, its trainings depend on nothing but their recipe, and the doctor names them."""

import itertools
from functools import partial

import pytest
import torch

from lossdoctor import Monitor
from lossdoctor.diagnosis import diagnose
from lossdoctor.findings import ADVICE
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.reader import read_run
from tests.pathologies.recipes import RECIPES
from tests.pathologies.record import record
from tests.pathologies.tasks import TASKS
from tests.pathologies.training import train

RECIPE = {recipe.name: recipe for recipe in RECIPES}
IN_CI = (
    "healthy_mlp_short",
    "healthy_mlp_plain_sgd",
    "healthy_mlp_constant",
    "healthy_mlp_label_noise",
    "healthy_mlp_large_batch",
    "healthy_regression",
    "healthy_binary",
    "healthy_amp_first_skips",
    "healthy_rare_events",
    "healthy_heavy_tails",
    "healthy_fine_tuning_momentum",
    "healthy_cnn_three_evaluations",
    "healthy_regression_every_third_step",
    "non_finite_loss_inf_input",
    "non_finite_loss_first_step",
    "non_finite_gradient_unmended",
    "amp_overflow_growth_interval",
    "clip_before_unscale_small_scale",
    "divergence_linear_scaling",
    "divergence_regression",
    "loss_spike_outlier_target",
    "loss_spike_several",
    "exploding_gradient_target_scale",
    "vanishing_gradient_sigmoid_adamw",
    "not_learning_random_regression",
    "slow_learning_sgd",
    "plateau_autoencoder_lr_cut",
    "overfitting_binary",
    "overfitting_regression",
    "underfitting_three_pixels",
)
"""Those that train in a second, several a rule; benchmarks take them all."""

CAUSED_ELSEWHERE = {
    *("low_gpu_utilization", "out_of_memory", "rank_desync", "straggler_rank"),
    "lr_range_test",
    "validation_stalled",
}
"""What takes a GPU, several processes or a training that ends by an exception: tests of their own have those. A range
test is healthy, and its recipes are called so. A stalled validation is known from other people's logs only."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_names_are_unique_and_begin_with_what_is_expected():
    assert len(RECIPE) == len(RECIPES)
    for recipe in RECIPES:
        prefixes = recipe.expected or {"healthy"}
        assert any(recipe.name.startswith(prefix) for prefix in prefixes), recipe.name
        assert recipe.healthy == (recipe.since is None)
        assert not recipe.healthy or not recipe.consequences


def test_there_are_enough_of_each_kind():
    healthy = [recipe for recipe in RECIPES if recipe.healthy]
    assert len(healthy) >= 62
    assert len(RECIPES) - len(healthy) >= 90
    assert {recipe.task for recipe in healthy} == set(TASKS)


def test_every_rule_is_caused_by_real_trainings():
    for rule in Rulebook.load().rules.values():
        if rule.family == ADVICE or rule.id in CAUSED_ELSEWHERE:
            continue
        caused = [recipe.name for recipe in RECIPES if recipe.name.startswith(f"{rule.id}_")]
        assert len(caused) >= 3, rule.id


def test_no_two_healthy_trainings_are_the_same():
    healthy = [recipe for recipe in RECIPES if recipe.healthy]
    for one, other in itertools.combinations(healthy, 2):
        assert (one.task, one.model, one.settings) != (other.task, other.model, other.settings)


@pytest.mark.parametrize(
    "name",
    [
        "healthy_amp_first_skips",
        "healthy_mlp_dropout",
        "healthy_views",
        "healthy_fine_tuning_momentum",
        "loss_spike_several",
    ],
)
def test_a_training_is_the_same_again_and_under_a_monitor(name, tmp_path):
    recipe = RECIPE[name]
    alone = train(recipe.make_task(), recipe.settings)
    monitor = partial(Monitor, run_dir=tmp_path, remediate="off", grad_norm_every=1)
    assert train(recipe.make_task(), recipe.settings, monitor=monitor) == alone


@pytest.mark.parametrize("name", IN_CI)
def test_the_cause_of_a_training_is_named(name, tmp_path):
    recipe = RECIPE[name]
    record(recipe, tmp_path / name)
    found = diagnose(read_run(tmp_path / name))
    grave = {finding.rule for finding in found.findings if finding.severity in {"warning", "error"}}
    assert found.verdict in (recipe.expected or {"healthy"})
    assert grave <= recipe.expected | recipe.consequences
