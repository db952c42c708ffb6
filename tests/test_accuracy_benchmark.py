"""The benchmark counts what it says: thinned logs, other tools' rules, halves, figures."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import peers
from benchmarks.accuracy.corpus import FIRST_HALF, Judged
from benchmarks.accuracy.figures import figures, halves, of_peer
from benchmarks.accuracy.peers import PEERS
from benchmarks.accuracy.shipped import accuracy
from benchmarks.accuracy.tables import report, wrong
from benchmarks.accuracy.thinned import LOGS, thin
from lossdoctor.findings import Diagnosis, Finding
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import Run, RunInfo, read_run
from lossdoctor.runs.tables import Column, Table
from tests.pathologies.recipe import recipe
from tests.pathologies.tasks import TASKS

SAMPLES = Path(__file__).parent.parent / "sample_runs"
RULEBOOK = Rulebook.load()


def run(losses, val=(), every=20, **columns):
    """A run that recorded these losses, with a validation at every `every`-th step."""
    steps = {"step": Column(np.arange(1.0, len(losses) + 1)), "train_loss": Column(np.array(losses, dtype=np.float32))}
    steps |= {name: Column(np.array(values, dtype=np.float32)) for name, values in columns.items()}
    evaluations = {
        "step": Column(np.arange(1.0, len(val) + 1) * every),
        "val_loss": Column(np.array(val, dtype=np.float32)),
    }
    return Run("x", Path("x"), RunInfo(), Table(steps), Table(evaluations) if len(val) else Table())


def judged(name, expected="", verdict="healthy", rules=(), **more):
    findings = [
        Finding(
            rule=rule,
            title="",
            family="",
            category=RULEBOOK.rules[rule].category,
            severity="warning",
            clock="step",
            since=50.0,
            detected=60.0,
            message="",
        )
        for rule in rules
    ]
    category = RULEBOOK.rules[verdict].category if verdict in RULEBOOK.rules else verdict
    made = recipe(name, more.pop("task", "diabetes"), expected, since=(55, 60) if expected else None, steps=100)
    diagnosis = Diagnosis(run=name, verdict=verdict, category=category, summary="", findings=findings)
    said = {tool: frozenset() for tool in PEERS} | more.pop("peers", {})
    thinned = {log: Judged(made, diagnosis, RULEBOOK) for log in LOGS}
    return Judged(made, diagnosis, RULEBOOK, thinned, said, **more)


ALL = [
    judged("healthy_a", peers={"Lightning SpikeDetection": frozenset({"spike"})}),
    judged("healthy_b", task="digits_cnn"),
    judged("divergence_a", "divergence", "divergence", ["divergence"]),
    judged("divergence_b", "divergence", "plateau", ["divergence", "plateau"], task="digits_cnn"),
    judged("overfitting_a", "overfitting", "plateau", ["plateau"]),
]


def test_a_thinned_log_knows_nothing_but_what_was_logged():
    whole = read_run(SAMPLES / "healthy_cnn")
    for log in LOGS.values():
        seen = log(whole)
        assert set(seen.steps.columns) <= {"step", "train_loss", "learning_rate", "train_accuracy"}
        assert set(seen.evaluations.columns) <= {"step", "val_loss", "val_accuracy"}
        assert not seen.info.model.layers
        assert not seen.info.optimizers
        assert not len(seen.layers)


def test_every_tenth_step_keeps_the_numbers_of_the_steps():
    seen = thin(run(range(100)), every=10)
    assert seen.steps.step.tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert seen.steps.columns["train_loss"].values[:2].tolist() == [9.0, 19.0]


def test_an_epochs_row_is_the_mean_since_the_last_evaluation_and_says_so():
    seen = thin(run(range(40), val=[1.0, 2.0]), every=0, means=True)
    assert seen.rows_are_means
    assert seen.steps.columns["train_loss"].values.tolist() == [9.5, 29.5]


def test_a_nan_stays_in_the_mean():
    losses = [1.0] * 20
    losses[13] = np.nan
    seen = thin(run(losses), every=10, means=True).steps.columns["train_loss"]
    assert np.isnan(seen.values).tolist() == [False, True]
    assert seen.mask().all()


@pytest.mark.parametrize(
    ("rule", "losses", "said"),
    [
        (peers.lightning, [1.0] * 20 + [4.0] + [1.0] * 20, {"spike"}),
        (peers.lightning, [1.0] * 20 + [2.0] + [1.0] * 20, set()),
        (peers.kill_loss_spike, [1.0] * 150 + [2.5] * 5, {"spike"}),
        (peers.kill_loss_spike, [1.0] * 150 + [2.5] * 4 + [1.0] * 20, set()),
        (peers.kill_loss_spike, [20.0] * 250, {"high_loss"}),
        (peers.olmo, [1.0, 1.1] * 100 + [3.0], {"loss_spike"}),
        (peers.olmo, [1.0, 1.1] * 60 + [3.0], set()),
        (peers.megatron, [1.0] * 100 + [10.0], {"spiky"}),
        (peers.megatron, [1.0] * 50 + [np.nan], {"not_finite"}),
        (peers.wandb, [1.0] * 50 + [2.0] * 50, {"diverging"}),
        (peers.wandb, [2.0] * 50 + [np.nan], {"nan_values"}),
    ],
)
def test_a_peers_rule_is_its_published_formula(rule, losses, said):
    assert rule(run(losses)) == said


def test_sagemaker_and_umlaut_compare_the_losses_of_an_epoch():
    overfit = run(np.repeat([1.0, 0.5, 0.2], 20), val=[1.0, 1.1, 1.2])
    assert "Overfit" in peers.sagemaker(overfit)
    assert "overfitting" in peers.umlaut(overfit)
    sound = run(np.linspace(2.0, 1.0, 60), val=[1.7, 1.4, 1.1])
    assert "Overfit" not in peers.sagemaker(sound)
    assert "overfitting" not in peers.umlaut(sound)


def test_autotrainer_speaks_only_where_the_accuracy_stays_bad():
    flat, learned = np.full(200, 0.2), np.linspace(0.2, 0.95, 200)
    losses, val = np.ones(200), np.ones(10)
    assert peers.autotrainer(run(losses, val, train_accuracy=flat)) == {"slow_convergence"}
    assert not peers.autotrainer(run(losses, val, train_accuracy=learned))


@pytest.mark.parametrize("name", sorted(PEERS))
def test_what_a_peer_says_has_a_meaning(name):
    peer = PEERS[name]
    for sample in ("divergence_lr_jump", "non_finite_loss_nan_batch", "healthy_mlp", "overfitting_mlp"):
        said = peer.alarms(read_run(SAMPLES / sample))
        assert said <= set(peer.causes)
        assert bool(said) == bool(peer.accepted(said))


def test_the_halves_are_whole_families():
    assert set(TASKS) >= FIRST_HALF
    first, second = halves(ALL)
    assert [one.recipe.name for one in second] == ["healthy_b", "divergence_b"]
    assert len(first) + len(second) == len(ALL)


def test_figures_count_causes_verdicts_strays_and_delays():
    found = figures(ALL)
    assert (found.healthy, found.alarmed, found.faulty) == (2, (), 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.right == pytest.approx(1 / 3)
    assert found.strays == pytest.approx(2 / 3)
    assert (found.delay, found.delays) == (5.0, 2)
    assert figures([]).recall is None


def test_a_peer_is_judged_by_what_its_words_could_mean():
    tool = "Lightning SpikeDetection"
    found = of_peer(tool, PEERS[tool], ALL)
    assert found.alarmed == ("healthy_a",)
    assert found.recall == 0


def test_what_ships_has_an_entry_for_every_rule():
    shipped = accuracy(ALL)
    assert set(shipped.rules) == set(RULEBOOK.rules)
    assert (shipped.rules["divergence"].runs, shipped.rules["divergence"].right) == (2, 1)
    assert shipped.rules["plateau"].strays == 2


def test_the_report_names_what_is_wrong():
    text = report(ALL)
    assert "* divergence_b: plateau; stray: plateau" in text
    assert len(wrong(ALL)) == 2 * len(LOGS)
