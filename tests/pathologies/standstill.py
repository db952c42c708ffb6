"""Trainings in which something does not move, or moved too far: parameters, units, updates."""

from tests.pathologies.recipe import AFTER_STANDSTILL, recipe
from tests.pathologies.unmoved import AFTER_FREEZING, AFTER_TOO_MUCH, UNMOVED

__all__ = ["STANDSTILL"]

MLP = {"base": "digits_mlp"}

_UNITS = (
    recipe(
        "dead_units_negative_bias",
        "prepared",
        "dead_units",
        AFTER_FREEZING,
        since=(1, 100),
        steps=200,
        optimizer="momentum",
        learning_rate=0.01,
        model=MLP | {"hidden_bias": -8.0},
    ),
    recipe(
        "dead_units_partly",
        "prepared",
        "dead_units",
        AFTER_FREEZING,
        since=(1, 100),
        steps=200,
        optimizer="sgd",
        learning_rate=0.02,
        model=MLP | {"hidden_bias": -1.7},
        seed=1,
    ),
    recipe(
        "dead_units_cnn",
        "prepared",
        "dead_units",
        AFTER_FREEZING,
        since=(1, 100),
        steps=150,
        learning_rate=3e-4,
        model={"base": "digits_cnn", "norm": None, "hidden_bias": -5.0},
        seed=2,
    ),
    recipe(
        "saturated_units_wide_tanh",
        "digits_mlp",
        "saturated_units poor_initialization",
        f"{AFTER_TOO_MUCH} vanishing_gradient",
        since=(1, 100),
        steps=200,
        model={"activation": "tanh", "gain": 12.0, "depth": 3},
        learning_rate=1e-3,
    ),
    recipe(
        "saturated_units_sigmoid",
        "prepared",
        "saturated_units",
        f"{AFTER_TOO_MUCH} vanishing_gradient",
        since=(1, 100),
        steps=200,
        optimizer="sgd",
        learning_rate=0.05,
        model=MLP | {"activation": "sigmoid", "first_scale": 60.0},
        seed=1,
    ),
    recipe(
        "saturated_units_autoencoder",
        "prepared",
        "saturated_units",
        f"{AFTER_TOO_MUCH} vanishing_gradient",
        since=(1, 100),
        steps=200,
        model={"base": "autoencoder", "activation": "tanh", "first_scale": 15.0},
        seed=2,
    ),
)

_BEGINNING = tuple(
    recipe(
        f"poor_initialization_{name}",
        task,
        "poor_initialization",
        f"{AFTER_TOO_MUCH} update_too_large update_too_small underfitting clipping_saturated",
        since=(1, 20),
        seed=number,
        **settings,
    )
    for number, (name, task, settings) in enumerate(
        (
            ("normal_weights", "digits_mlp", {"steps": 200, "learning_rate": 1e-3, "model": {"gain": 6.0, "depth": 3}}),
            ("wide_output", "prepared", {"steps": 200, "model": MLP | {"last_scale": 80.0}}),
            (
                "tied_embedding",
                "prepared",
                {"steps": 120, "batch_size": 16, "model": {"base": "text_transformer", "last_scale": 25.0}},
            ),
            (
                "plain_cnn",
                "prepared",
                {
                    "steps": 150,
                    "optimizer": "momentum",
                    "learning_rate": 1e-3,
                    "clip": 1.0,
                    "model": {"base": "digits_cnn", "norm": None, "scale": 6.0},
                },
            ),
            (
                "deep_regression",
                "diabetes",
                {"steps": 150, "evaluate_every": 10, "model": {"gain": 5.0, "depth": 6, "width": 32}},
            ),
        )
    )
)

_TOO_LARGE = tuple(
    recipe(
        f"update_too_large_stuck_{name}",
        task,
        "update_too_large missing_warmup",
        f"{AFTER_TOO_MUCH} clipping_saturated",
        since=(1, 120),
        schedule="constant",
        seed=number,
        **settings,
    )
    for number, (name, task, settings) in enumerate(
        (
            ("adamw", "digits_mlp", {"steps": 300, "learning_rate": 0.2}),
            ("rmsprop", "digits_mlp", {"steps": 200, "optimizer": "rmsprop", "learning_rate": 0.1}),
            ("autoencoder", "autoencoder", {"steps": 300, "learning_rate": 0.1}),
            ("transformer", "text_transformer", {"steps": 150, "batch_size": 16, "learning_rate": 0.2}),
        )
    )
)

_TOO_SMALL = tuple(
    recipe(
        f"update_too_small_{name}",
        task,
        "update_too_small slow_learning underfitting",
        AFTER_STANDSTILL,
        since=(1, 450),
        seed=number,
        **settings,
    )
    for number, (name, task, settings) in enumerate(
        (
            ("adamw_cnn", "digits_cnn", {"steps": 300, "learning_rate": 3e-6, "schedule": "constant"}),
            (
                "sgd",
                "digits_mlp",
                {"steps": 300, "optimizer": "sgd", "learning_rate": 3e-4, "schedule": "constant"},
            ),
            ("autoencoder", "autoencoder", {"steps": 300, "learning_rate": 5e-6}),
            (
                "adagrad",
                "digits_mlp",
                {"steps": 500, "optimizer": "adagrad", "learning_rate": 4e-4, "schedule": "constant"},
            ),
            (
                "adagrad_rnn",
                "text_rnn",
                {"steps": 300, "batch_size": 16, "optimizer": "adagrad", "learning_rate": 1e-3, "schedule": "constant"},
            ),
        )
    )
)

_CLIPPED = (
    recipe(
        "clipping_saturated_regression",
        "diabetes",
        "clipping_saturated",
        f"{AFTER_STANDSTILL} update_too_small",
        since=(1, 200),
        steps=150,
        evaluate_every=10,
        optimizer="sgd",
        learning_rate=0.05,
        schedule="constant",
        model={"width": 16},
        clip=1e-3,
        seed=2,
    ),
    recipe(
        "clipping_saturated_sgd",
        "digits_mlp",
        "clipping_saturated",
        f"{AFTER_STANDSTILL} update_too_small",
        since=(1, 200),
        steps=300,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="constant",
        clip=3e-3,
    ),
    recipe(
        "clipping_saturated_momentum",
        "digits_cnn",
        "clipping_saturated",
        f"{AFTER_STANDSTILL} update_too_small",
        since=(1, 200),
        steps=200,
        optimizer="momentum",
        learning_rate=0.03,
        schedule="constant",
        clip=1e-3,
        seed=1,
    ),
)

_NOT_LEARNING = (
    recipe(
        "vanishing_gradient_relu",
        "digits_mlp",
        "vanishing_gradient",
        f"{AFTER_STANDSTILL} dead_units",
        since=(1, 200),
        steps=200,
        optimizer="sgd",
        learning_rate=0.05,
        model={"depth": 8, "gain": 0.5},
    ),
    recipe(
        "vanishing_gradient_regression",
        "diabetes",
        "vanishing_gradient poor_initialization",
        AFTER_STANDSTILL,
        since=(1, 250),
        steps=250,
        optimizer="momentum",
        learning_rate=0.02,
        evaluate_every=10,
        model={"activation": "sigmoid", "depth": 7, "width": 16},
        seed=1,
    ),
    recipe(
        "not_learning_autoencoder_still",
        "autoencoder",
        "not_learning update_too_small",
        AFTER_STANDSTILL,
        since=(1, 200),
        steps=250,
        optimizer="sgd",
        learning_rate=1e-5,
        schedule="constant",
        seed=2,
    ),
    recipe(
        "not_learning_identical_units",
        "prepared",
        "not_learning poor_initialization underfitting plateau",
        f"{AFTER_STANDSTILL} vanishing_gradient dead_units",
        since=(1, 250),
        steps=250,
        model=MLP | {"constant": 0.05, "hidden_bias": 0.0},
        seed=3,
    ),
    recipe(
        "slow_learning_autoencoder_adamw",
        "autoencoder",
        "slow_learning update_too_small not_learning",
        AFTER_STANDSTILL,
        since=(1, 350),
        steps=400,
        learning_rate=3e-5,
        schedule="constant",
        seed=4,
    ),
)

STANDSTILL = (
    *UNMOVED,
    *_UNITS,
    *_BEGINNING,
    *_TOO_LARGE,
    *_TOO_SMALL,
    *_CLIPPED,
    *_NOT_LEARNING,
)
