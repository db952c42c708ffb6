"""Losses that climb back after they had come down: steeply, in jumps, slowly; and losses that only seem to."""

from tests.pathologies.recipe import AFTER_BLOWUP, recipe
from tests.pathologies.settings import Fault

__all__ = ["CLIMBS"]

_AFTER_CLIMB = f"{AFTER_BLOWUP} oscillation update_too_large lr_schedule_mismatch overfitting train_eval_mismatch"

_JUMPED = tuple(
    recipe(
        f"divergence_jump_{name}",
        task,
        "divergence",
        _AFTER_CLIMB,
        since=(at, at + 150),
        schedule="constant",
        faults=(Fault("lr_factor", at, factor),),
        **settings,
    )
    for name, task, at, factor, settings in (
        ("momentum", "digits_mlp", 200, 20, {"steps": 400, "optimizer": "momentum", "learning_rate": 0.02}),
        ("text_mild", "text_transformer", 250, 20, {"steps": 400, "batch_size": 16, "seed": 3}),
        ("gru_mild", "text_rnn", 250, 10, {"steps": 400, "batch_size": 16, "learning_rate": 4e-3, "seed": 3}),
        ("autoencoder", "autoencoder", 200, 40, {"steps": 400, "learning_rate": 2e-3, "seed": 4}),
        ("vit", "digits_vit", 180, 30, {"steps": 300, "learning_rate": 2e-3, "seed": 5}),
        ("binary", "breast_cancer", 150, 30, {"steps": 300, "learning_rate": 0.01, "evaluate_every": 10, "seed": 6}),
    )
)

_GREW = tuple(
    recipe(
        f"divergence_growing_{name}",
        task,
        "divergence",
        _AFTER_CLIMB,
        since=(150, 400),
        schedule="exponential",
        seed=2,
        **settings,
    )
    for name, task, settings in (
        ("momentum", "digits_mlp", {"steps": 500, "optimizer": "momentum", "learning_rate": 5e-3, "gamma": 1e4}),
        ("text", "text_transformer", {"steps": 400, "batch_size": 16, "learning_rate": 5e-4, "gamma": 1e3}),
        ("vit", "digits_vit", {"steps": 350, "learning_rate": 5e-4, "gamma": 1e3}),
    )
)

_POLICIES = tuple(
    recipe(f"healthy_policy_{name}", "policy", steps=600, schedule="constant", weight_decay=0.0, **settings)
    for name, settings in (
        ("adam", {"optimizer": "adam", "learning_rate": 3e-3}),
        (
            "momentum_entropy",
            {"optimizer": "momentum", "learning_rate": 0.05, "batch_size": 128, "model": {"arms": 4, "entropy": 0.02}},
        ),
        ("large_rewards", {"optimizer": "adam", "learning_rate": 3e-3, "seed": 2, "model": {"reward": 10.0}}),
        ("small_batch", {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 8, "seed": 3}),
    )
)

CLIMBS = (
    *_JUMPED,
    *_GREW,
    *_POLICIES,
    recipe(
        "validation_stalled_linear",
        "diabetes",
        "validation_stalled",
        "generalization_gap plateau underfitting oscillation",
        since=(200, 400),
        steps=600,
        evaluate_every=10,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=0.03,
        schedule="constant",
        model={"depth": 0},
    ),
)
