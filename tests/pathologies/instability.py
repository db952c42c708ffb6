"""Steps that are too large from the start, zigzags, and the limits of 16 bits; with sound trainings that look alike."""

from tests.pathologies.recipe import AFTER_BLOWUP, AFTER_STANDSTILL, recipe
from tests.pathologies.settings import Fault

__all__ = ["INSTABILITY"]

_AFTER_THROW = (
    f"{AFTER_BLOWUP} slow_learning dead_units saturated_units oscillation train_eval_mismatch update_too_large"
)

_TOO_LARGE = tuple(
    recipe(
        f"update_too_large_{name}",
        task,
        "update_too_large missing_warmup",
        _AFTER_THROW,
        since=(1, 150),
        schedule="constant",
        **settings,
    )
    for name, task, settings in (
        ("adagrad", "digits_mlp", {"steps": 400, "optimizer": "adagrad", "learning_rate": 0.5}),
        ("rmsprop", "digits_mlp", {"steps": 400, "optimizer": "rmsprop", "learning_rate": 0.05, "seed": 1}),
        ("sgd", "digits_mlp", {"steps": 400, "optimizer": "sgd", "learning_rate": 1.5, "seed": 2}),
        ("cnn", "digits_cnn", {"steps": 250, "learning_rate": 0.1}),
        ("regression", "diabetes", {"steps": 200, "learning_rate": 0.3, "evaluate_every": 10, "model": {"width": 32}}),
        ("binary", "breast_cancer", {"steps": 200, "learning_rate": 0.3, "evaluate_every": 10}),
        ("autoencoder", "autoencoder", {"steps": 300, "learning_rate": 0.2}),
    )
)

_NO_WARMUP = tuple(
    recipe(
        f"missing_warmup_{name}",
        task,
        "missing_warmup update_too_large",
        _AFTER_THROW,
        since=(1, 390),
        steps=400,
        schedule="constant",
        **settings,
    )
    for name, task, settings in (
        ("adagrad", "digits_mlp", {"optimizer": "adagrad", "learning_rate": 0.1}),
        ("rmsprop", "digits_mlp", {"optimizer": "rmsprop", "learning_rate": 0.01}),
        (
            "rmsprop_deep",
            "digits_mlp",
            {"optimizer": "rmsprop", "learning_rate": 0.01, "model": {"depth": 3}, "seed": 3},
        ),
    )
)

_ZIGZAG = tuple(
    recipe(
        f"oscillation_{name}",
        task,
        "oscillation update_too_large",
        f"{_AFTER_THROW} overfitting",
        since=(1, 250),
        optimizer="sgd",
        weight_decay=0.0,
        schedule="constant",
        **settings,
    )
    for name, task, settings in (
        ("autoencoder", "autoencoder", {"steps": 200, "batch_size": 2000, "learning_rate": 4.0, "seed": 4}),
        (
            "regression",
            "diabetes",
            {"steps": 300, "batch_size": 400, "learning_rate": 0.5, "evaluate_every": 20, "model": {"width": 32}},
        ),
        (
            "linear",
            "diabetes",
            {"steps": 300, "learning_rate": 0.2, "evaluate_every": 20, "model": {"depth": 0}, "seed": 6},
        ),
    )
)

_ROUNDED = tuple(
    recipe(
        f"low_precision_stall_{name}",
        "digits_mlp",
        "low_precision_stall",
        f"{AFTER_STANDSTILL} update_too_small",
        since=(1, 200),
        steps=400,
        weights="bf16",
        weight_decay=0.0,
        schedule="constant",
        **settings,
    )
    for name, settings in (
        ("adamw", {"learning_rate": 1e-5}),
        ("adamw_mild", {"learning_rate": 1e-4, "seed": 1}),
        ("sgd", {"optimizer": "sgd", "learning_rate": 0.01, "seed": 2}),
    )
)

_FLUSHED = tuple(
    recipe(
        f"amp_underflow_{name}",
        task,
        "amp_underflow",
        f"{AFTER_STANDSTILL} update_too_small frozen_parameters",
        since=(1, 250),
        weight_decay=0.0,
        faults=(Fault("loss_factor", 1, factor),),
        **settings,
    )
    for name, task, factor, settings in (
        ("autocast", "digits_mlp", 1e-6, {"steps": 300, "precision": "fp16", "scaled": False}),
        ("autocast_cnn", "digits_cnn", 1e-6, {"steps": 200, "precision": "fp16", "scaled": False, "seed": 1}),
        (
            "weights",
            "digits_mlp",
            1e-6,
            {"steps": 300, "weights": "fp16", "optimizer": "momentum", "learning_rate": 0.05, "seed": 2},
        ),
    )
)

_BELOW_ZERO = tuple(
    recipe(
        f"impossible_loss_{name}",
        task,
        "impossible_loss",
        f"{_AFTER_THROW} overfitting majority_class_collapse collapsed_output",
        since=(1, 150),
        steps=200,
        evaluate_every=10,
        faults=(Fault("wrong_targets", 1, factor),),
        **settings,
    )
    for name, task, factor, settings in (
        ("binary", "breast_cancer", 2.0, {}),
        ("binary_sgd", "breast_cancer", 3.0, {"optimizer": "momentum", "learning_rate": 0.01, "seed": 1}),
        ("large_targets", "breast_cancer", 255.0, {"seed": 2, "learning_rate": 1e-3}),
    )
)

INSTABILITY = (
    *_TOO_LARGE,
    *_NO_WARMUP,
    *_ZIGZAG,
    *_ROUNDED,
    *_FLUSHED,
    *_BELOW_ZERO,
    recipe("healthy_large_steps_warmed_up", "digits_mlp", steps=400, learning_rate=0.03, warmup=0.1),
    recipe(
        "healthy_large_first_steps_rmsprop",
        "digits_mlp",
        steps=400,
        optimizer="rmsprop",
        learning_rate=2e-3,
        schedule="constant",
    ),
    recipe(
        "healthy_full_batch_edge",
        "breast_cancer",
        steps=300,
        batch_size=500,
        optimizer="sgd",
        learning_rate=2.0,
        schedule="constant",
        evaluate_every=20,
        model={"width": 16},
        seed=2,
    ),
    recipe("healthy_bf16_weights", "digits_mlp", steps=400, weights="bf16", seed=3),
    recipe(
        "healthy_bf16_weights_momentum",
        "digits_mlp",
        steps=400,
        weights="bf16",
        optimizer="momentum",
        learning_rate=0.05,
        seed=4,
    ),
    recipe("healthy_bf16_weights_autoencoder", "autoencoder", steps=300, weights="bf16", seed=5),
    recipe(
        "healthy_fp16_weights",
        "digits_mlp",
        steps=300,
        weights="fp16",
        optimizer="momentum",
        learning_rate=0.05,
        seed=6,
    ),
    recipe("healthy_fp16_unscaled", "digits_mlp", steps=300, precision="fp16", scaled=False, seed=7),
)
