"""Make the sample runs anew: `python -m sample_runs.make [--only PATTERN]`, from the top of the checkout.

Each is a training of the corpus in tests/pathologies, recorded as a user's would be, with an expected.toml that says
what `lossdoctor analyze` has to say about it. Losses are reproducible; times are those of the machine.
"""

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path

import torch

from lossdoctor.rulebook import Rulebook
from tests.pathologies.recipes import RECIPES, Recipe
from tests.pathologies.record import record, summary

__all__ = ["SAMPLES", "expectation", "main"]

HERE = Path(__file__).parent
LARGEST = 300_000
"""Bytes of a sample run."""

SAMPLES = (
    "healthy_mlp",
    "healthy_cnn",
    "healthy_transformer",
    "healthy_rnn",
    "healthy_amp_scaler",
    "healthy_accumulation",
    "non_finite_loss_nan_batch",
    "non_finite_gradient_once",
    "amp_overflow_large_loss",
    "clip_before_unscale_momentum",
    "divergence_lr_jump",
    "loss_spike_mlp",
    "exploding_gradient_chaotic_rnn",
    "vanishing_gradient_sigmoid",
    "not_learning_random_labels",
    "slow_learning_mlp",
    "plateau_early_milestone",
    "overfitting_mlp",
    "underfitting_one_unit",
)
"""Names of recipes; but for the healthy ones a name begins with what is seen, which need not be what causes it."""


def expectation(recipe: Recipe) -> str:
    """The text of expected.toml."""
    verdict = "healthy" if recipe.healthy else _leading(recipe)
    lines = [
        f'verdict = "{verdict}"',
        f"healthy = {str(recipe.healthy).lower()}",
        f"findings = {_words(recipe.expected)}  # may lead",
        f"also = {_words(recipe.consequences - recipe.expected)}  # may be found beside it",
    ]
    if recipe.since is not None:
        lines.append(f"since_between = [{recipe.since[0]:.0f}, {recipe.since[1]:.0f}]  # steps at which it may begin")
    return "\n".join(lines) + "\n"


def _leading(recipe: Recipe) -> str:
    """The pathology that explains all others that may lead; of equals the one that the run is named after."""
    explained = frozenset[str]().union(*(Rulebook.load().explanations[cause] for cause in recipe.expected))
    causes = sorted(recipe.expected - explained)
    return max(causes, key=lambda cause: recipe.name.startswith(f"{cause}_"))


def _words(ids: frozenset[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in sorted(ids)) + "]"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m sample_runs.make", description="Record the sample runs anew.")
    parser.add_argument("--only", default="*", help="names to record, as a shell pattern")
    only = parser.parse_args(arguments).only
    torch.set_num_threads(1)
    recipes = {recipe.name: recipe for recipe in RECIPES}
    for name in fnmatch.filter(SAMPLES, only):
        recipe, directory = recipes[name], HERE / name
        print(summary(recipe, record(recipe, directory)), flush=True)
        (directory / "expected.toml").write_text(expectation(recipe), encoding="utf-8")
        size = sum(file.stat().st_size for file in directory.rglob("*"))
        if size > LARGEST:
            raise SystemExit(f"{directory}: {size} bytes; a sample run has at most {LARGEST}")


if __name__ == "__main__":
    main()
