"""Faults that hide behind an ordinary curve, each beside a sound training that looks like it."""

from tests.pathologies.recipe import AFTER_STANDSTILL, recipe
from tests.pathologies.settings import Fault
from tests.pathologies.unmoved import AFTER_FREEZING, AFTER_TOO_MUCH

__all__ = ["LOOKALIKES"]

# A first step of Adagrad that raises the loss: the trainings end as they do with a warm-up.
_BUMPS = tuple(
    recipe(
        f"healthy_first_bump_{name}",
        task,
        steps=steps,
        optimizer="adagrad",
        learning_rate=rate,
        weight_decay=0.0,
        schedule="constant",
        seed=seed,
    )
    for name, task, steps, rate, seed in (
        ("cnn", "digits_cnn", 200, 0.05, 0),
        ("mlp", "digits_mlp", 300, 0.06, 1),
        ("autoencoder", "autoencoder", 300, 0.05, 2),
    )
)

_COPIES = tuple(
    recipe(
        f"poor_initialization_constant_{name}",
        "prepared",
        "poor_initialization",
        f"{AFTER_TOO_MUCH} {AFTER_STANDSTILL} vanishing_gradient generalization_gap",
        since=(1, 10),
        steps=200,
        model={"base": base, "constant": value, "hidden_bias": 0.0, **model},
        **settings,
    )
    for name, base, value, model, settings in (
        ("mlp", "digits_mlp", 0.05, {"activation": "tanh"}, {}),
        ("sgd", "digits_mlp", 0.02, {"depth": 1}, {"optimizer": "momentum", "learning_rate": 0.05, "seed": 1}),
        ("regression", "diabetes", 0.1, {"activation": "tanh", "width": 32}, {"evaluate_every": 10, "seed": 2}),
    )
)

_UNSTEPPED = tuple(
    recipe(
        f"frozen_parameters_no_step_{name}",
        task,
        "frozen_parameters",
        AFTER_FREEZING,
        since=(1, 30),
        steps=150,
        steps_optimizer=False,
        **settings,
    )
    for name, task, settings in (
        ("adamw", "digits_mlp", {"schedule": "constant"}),
        ("sgd", "diabetes", {"optimizer": "sgd", "learning_rate": 0.01, "schedule": "constant", "seed": 1}),
    )
)

_NO_FLOOR = tuple(
    recipe(
        f"impossible_loss_no_floor_{name}",
        task,
        "impossible_loss divergence exploding_gradient",
        f"{AFTER_TOO_MUCH} train_eval_mismatch",
        since=(1, 300),
        steps=300,
        faults=(Fault("loss_factor", 1, -1.0),),
        schedule="constant",
        learning_rate=rate,
        seed=seed,
    )
    for name, task, rate, seed in (("regression", "diabetes", 1e-2, 0), ("autoencoder", "autoencoder", 3e-3, 1))
)

_CRAWLING = tuple(
    recipe(
        f"clipping_saturated_crawling_{name}",
        task,
        "clipping_saturated",
        f"{AFTER_STANDSTILL} update_too_small underfitting",
        since=(1, 200),
        steps=300,
        optimizer="momentum",
        learning_rate=0.05,
        weight_decay=0.0,
        schedule="constant",
        clip=bound,
        seed=seed,
    )
    for name, task, bound, seed in (("mlp", "digits_mlp", 0.01, 0), ("cnn", "digits_cnn", 0.01, 1))
)

LOOKALIKES = (
    *_BUMPS,
    *_COPIES,
    *_UNSTEPPED,
    *_NO_FLOOR,
    *_CRAWLING,
    recipe(
        "missing_zero_grad_clipped",
        "digits_mlp",
        "missing_zero_grad",
        f"{AFTER_TOO_MUCH} clipping_saturated",
        since=(1, 60),
        steps=200,
        zero_grad="never",
        clip=0.5,
    ),
    recipe(
        "missing_zero_grad_clipped_regression",
        "diabetes",
        "missing_zero_grad",
        f"{AFTER_TOO_MUCH} clipping_saturated",
        since=(1, 60),
        steps=200,
        zero_grad="never",
        clip=0.2,
        optimizer="momentum",
        learning_rate=3e-3,
        evaluate_every=10,
        seed=1,
    ),
    recipe(
        "excess_regularization_penalty",
        "diabetes",
        "excess_regularization",
        f"{AFTER_TOO_MUCH} {AFTER_STANDSTILL} generalization_gap vanishing_gradient",
        since=(1, 200),
        steps=300,
        weight_decay=0.0,
        schedule="constant",
        learning_rate=2e-3,
        evaluate_every=20,
        faults=(Fault("weight_penalty", 1, 0.5),),
    ),
    recipe(
        "data_scale_saturated_tanh",
        "digits_mlp",
        "data_scale saturated_units poor_initialization",
        f"{AFTER_TOO_MUCH} {AFTER_STANDSTILL} vanishing_gradient generalization_gap",
        since=(1, 150),
        steps=200,
        input_scale=3000.0,
        learning_rate=1e-4,
        optimizer="adam",
        model={"activation": "tanh"},
    ),
    recipe(
        "healthy_constant_last_layer",
        "prepared",
        steps=200,
        model={"base": "digits_mlp", "last_scale": 0.0},
        seed=3,
    ),
    recipe(
        "healthy_clipped_to_a_third",
        "digits_mlp",
        steps=300,
        optimizer="momentum",
        learning_rate=0.05,
        clip=0.3,
        schedule="constant",
        seed=2,
    ),
    recipe(
        "healthy_small_penalty",
        "digits_mlp",
        steps=300,
        weight_decay=0.0,
        faults=(Fault("weight_penalty", 1, 1e-5),),
    ),
    recipe(
        "healthy_loss_below_zero",
        "diabetes",
        steps=300,
        learning_rate=1e-3,
        evaluate_every=20,
        model={"width": 32},
        faults=(Fault("loss_shift", 1, -1.5),),
    ),
)
