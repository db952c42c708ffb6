"""Parameters that do not take part, and gradients that are never zeroed."""

from tests.pathologies.recipe import AFTER_BLOWUP, AFTER_STANDSTILL, recipe

__all__ = ["AFTER_FREEZING", "AFTER_TOO_MUCH", "UNMOVED"]

AFTER_FREEZING = (
    f"{AFTER_STANDSTILL} vanishing_gradient exploding_gradient dead_units update_too_small collapsed_output "
    "majority_class_collapse suspicious_validation"
)
AFTER_TOO_MUCH = (
    f"{AFTER_BLOWUP} slow_learning dead_units saturated_units oscillation collapsed_output majority_class_collapse "
    "overfitting train_eval_mismatch excess_regularization"
)

_FROZEN = (
    recipe(
        "frozen_parameters_new_head",
        "digits_mlp",
        "frozen_parameters",
        AFTER_FREEZING,
        since=(1, 60),
        steps=200,
        left_out=(4, 6),
    ),
    recipe(
        "frozen_parameters_one_of_many",
        "digits_cnn",
        "frozen_parameters",
        AFTER_FREEZING,
        since=(1, 60),
        steps=150,
        optimizer="momentum",
        learning_rate=0.03,
        model={"residual": 1},
        left_out=(8, 9),
        seed=1,
    ),
    recipe(
        "frozen_parameters_encoder_left_out",
        "text_transformer",
        "frozen_parameters",
        AFTER_FREEZING,
        since=(1, 60),
        steps=120,
        batch_size=16,
        evaluate_every=30,
        left_out=(0, 14),
        seed=2,
    ),
    recipe(
        "frozen_parameters_detached_encoder",
        "prepared",
        "frozen_parameters",
        f"{AFTER_FREEZING} generalization_gap",
        since=(1, 60),
        steps=200,
        model={"base": "autoencoder", "detached": "encoder"},
        seed=3,
    ),
    recipe(
        "frozen_parameters_detached_embedding",
        "prepared",
        "frozen_parameters",
        AFTER_FREEZING,
        since=(1, 60),
        steps=120,
        batch_size=16,
        learning_rate=8e-3,
        model={"base": "text_rnn", "detached": "characters"},
        seed=4,
    ),
    recipe(
        "frozen_parameters_zeroed_too_late",
        "diabetes",
        "frozen_parameters",
        AFTER_FREEZING,
        since=(1, 60),
        steps=150,
        evaluate_every=10,
        model={"width": 16},
        zero_grad="before the step",
        seed=5,
    ),
)

_NEVER_ZEROED = tuple(
    recipe(
        f"missing_zero_grad_{name}",
        task,
        "missing_zero_grad",
        f"{AFTER_TOO_MUCH} update_too_large clipping_saturated",
        since=(1, 40),
        zero_grad="never",
        seed=number,
        **settings,
    )
    for number, (name, task, settings) in enumerate(
        (
            ("sgd", "digits_mlp", {"steps": 200, "optimizer": "sgd", "learning_rate": 0.02, "schedule": "constant"}),
            ("adamw", "digits_cnn", {"steps": 150}),
            ("momentum_small", "digits_mlp", {"steps": 200, "optimizer": "momentum", "learning_rate": 1e-4}),
            ("rnn_clipped", "text_rnn", {"steps": 120, "batch_size": 16, "learning_rate": 4e-3, "clip": 1.0}),
            ("regression", "diabetes", {"steps": 150, "evaluate_every": 10, "model": {"width": 16}, "batch_size": 32}),
        )
    )
)

UNMOVED = (*_FROZEN, *_NEVER_ZEROED)
