"""Data that are wrong: their scale, labels, order, balance and split."""

from tests.pathologies.recipe import AFTER_BLOWUP, recipe
from tests.pathologies.settings import Fault
from tests.pathologies.wiring import AFTER_COLLAPSE, CNN, DIABETES, DIGITS, EVERY_TEN, TUMOURS

__all__ = ["WRONG_DATA"]

AFTER_WRONG_DATA = f"{AFTER_BLOWUP} slow_learning overfitting generalization_gap train_eval_mismatch oscillation"

_DATA_SCALE = (
    recipe(
        "data_scale_pixels_sgd",
        "digits_mlp",
        "data_scale",
        f"{AFTER_WRONG_DATA} {AFTER_COLLAPSE} poor_initialization update_too_large",
        since=(1, 60),
        steps=300,
        optimizer="momentum",
        learning_rate=0.01,
        input_scale=100.0,
    ),
    recipe(
        "data_scale_one_large_feature",
        "rewired",
        "data_scale",
        f"{AFTER_WRONG_DATA} {AFTER_COLLAPSE} poor_initialization update_too_large",
        since=(1, 60),
        model=TUMOURS | {"feature_scale": 3000.0},
        seed=1,
        **EVERY_TEN,
    ),
    recipe(
        "data_scale_offset",
        "rewired",
        "data_scale",
        f"{AFTER_WRONG_DATA} {AFTER_COLLAPSE} poor_initialization update_too_large",
        since=(1, 60),
        model=DIABETES | {"input_offset": 300.0},
        seed=2,
        **EVERY_TEN,
    ),
    recipe(
        "data_scale_divided_twice",
        "digits_cnn",
        "data_scale",
        f"{AFTER_WRONG_DATA} {AFTER_COLLAPSE} poor_initialization",
        since=(1, 200),
        steps=300,
        model={"norm": None},
        optimizer="sgd",
        learning_rate=0.05,
        input_scale=1 / 255,
        seed=3,
    ),
    recipe(
        "data_scale_constant",
        "rewired",
        "data_scale",
        f"{AFTER_WRONG_DATA} {AFTER_COLLAPSE}",
        since=(1, 60),
        steps=150,
        model=DIGITS | {"constant_inputs": True},
        seed=4,
    ),
    recipe(
        "data_scale_missing_values",
        "rewired",
        "data_scale",
        f"{AFTER_WRONG_DATA} non_finite_loss non_finite_gradient",
        since=(1, 60),
        model=TUMOURS | {"missing": 0.01},
        seed=5,
        **EVERY_TEN,
    ),
)

_MAJORITY = (
    recipe(
        "majority_class_collapse_rare",
        "rewired",
        "majority_class_collapse",
        AFTER_COLLAPSE,
        since=(1, 400),
        steps=600,
        model=DIGITS | {"minority": 0.02},
        optimizer="sgd",
        learning_rate=3e-3,
        weight_decay=0.0,
    ),
    recipe(
        "majority_class_collapse_binary",
        "rewired",
        "majority_class_collapse not_learning underfitting",
        f"{AFTER_COLLAPSE} suspicious_validation",
        since=(1, 200),
        steps=200,
        model=TUMOURS | {"minority": 0.1},
        learning_rate=1e-3,
        faults=(Fault("random_labels"),),
        seed=1,
    ),
    recipe(
        "majority_class_collapse_noise",
        "rewired",
        "majority_class_collapse not_learning",
        AFTER_COLLAPSE,
        since=(1, 300),
        steps=400,
        model=CNN | {"minority": 0.04},
        batch_size=128,
        faults=(Fault("random_labels"),),
        seed=2,
    ),
)

_LABELS = (
    *(
        recipe(
            f"invalid_labels_{name}",
            "rewired",
            "invalid_labels",
            f"{AFTER_WRONG_DATA} impossible_loss",
            since=(1, 60),
            steps=120,
            evaluate_every=10,
            model=model,
            seed=seed,
        )
        for seed, (name, model) in enumerate(
            (
                ("signed", TUMOURS | {"labels": "signed"}),
                ("from_one", TUMOURS | {"labels": "from one"}),
                ("constant", DIGITS | {"labels": "constant"}),
            )
        )
    ),
    *(
        recipe(
            f"masked_labels_{name}",
            "rewired",
            "masked_labels",
            f"{AFTER_WRONG_DATA} non_finite_loss non_finite_gradient",
            since=(1, 150),
            steps=150,
            batch_size=16,
            evaluate_every=15,
            model={"base": base, "supervised": share},
            seed=seed,
        )
        for seed, (name, base, share) in enumerate(
            (
                ("nearly_all", "text_rnn", 0.002),
                ("most", "text_transformer", 0.004),
                ("transformer", "text_transformer", 0.001),
            )
        )
    ),
)

_SPLITS = tuple(
    recipe(
        f"suspicious_validation_{name}",
        "rewired",
        "suspicious_validation",
        "overfitting generalization_gap",
        since=(1, 200),
        steps=200,
        model=model,
        watch_validation=True,
        seed=seed,
    )
    for seed, (name, model) in enumerate(
        (
            ("all", DIGITS | {"leaked": 1.0}),
            ("half", TUMOURS | {"leaked": 0.5}),
            ("fifth", DIGITS | {"leaked": 0.2, "width": 128}),
        )
    )
)

_ORDER = tuple(
    recipe(
        f"unshuffled_data_{name}",
        "rewired",
        "unshuffled_data",
        f"{AFTER_WRONG_DATA} {AFTER_COLLAPSE}",
        since=(1, 250),
        model=model | {"ordered": True},
        loader="sequential",
        seed=seed,
        **settings,
    )
    for seed, (name, model, settings) in enumerate(
        (
            ("by_class", DIGITS, {"steps": 300}),
            ("by_class_cnn", {"base": "digits_cnn"}, {"steps": 200, "optimizer": "momentum", "learning_rate": 0.02}),
            ("by_target", DIABETES, {"steps": 200, "evaluate_every": 10, "batch_size": 32}),
            ("binary", TUMOURS, {"steps": 200, "evaluate_every": 10, "batch_size": 32}),
        )
    )
)

WRONG_DATA = (*_DATA_SCALE, *_MAJORITY, *_LABELS, *_SPLITS, *_ORDER)
