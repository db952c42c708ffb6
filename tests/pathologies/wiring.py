"""Mistakes in the wiring of a training: losses, modes, shapes, checkpoints."""

from tests.pathologies.recipe import AFTER_STANDSTILL, recipe
from tests.pathologies.settings import Fault

__all__ = ["AFTER_COLLAPSE", "CNN", "DIABETES", "DIGITS", "EVERY_TEN", "TUMOURS", "WIRING"]

AFTER_COLLAPSE = f"{AFTER_STANDSTILL} vanishing_gradient collapsed_output majority_class_collapse dead_units"
DIGITS = {"base": "digits_mlp"}
CNN = {"base": "digits_cnn", "norm": None}
TUMOURS = {"base": "breast_cancer", "width": 16}
DIABETES = {"base": "diabetes", "width": 16}
EVERY_TEN = {"steps": 200, "evaluate_every": 10}

_ACCUMULATION = (
    recipe(
        "accumulation_mismatch_divided_twice",
        "digits_mlp",
        "accumulation_mismatch",
        since=(1, 150),
        steps=300,
        accumulation=4,
        batch_size=16,
        faults=(Fault("loss_factor", magnitude=0.25),),
    ),
    recipe(
        "accumulation_mismatch_summed",
        "digits_cnn",
        "accumulation_mismatch",
        since=(1, 150),
        steps=200,
        accumulation=2,
        batch_size=32,
        faults=(Fault("loss_factor", magnitude=2.0),),
        seed=1,
    ),
    recipe(
        "accumulation_mismatch_rnn",
        "text_rnn",
        "accumulation_mismatch",
        since=(1, 150),
        steps=150,
        accumulation=2,
        batch_size=8,
        evaluate_every=15,
        learning_rate=8e-3,
        clip=1.0,
        faults=(Fault("loss_factor", magnitude=0.5),),
        seed=2,
    ),
    recipe(
        "accumulation_mismatch_regression",
        "diabetes",
        "accumulation_mismatch",
        since=(1, 150),
        accumulation=8,
        batch_size=8,
        model={"width": 16},
        reported=0.125,
        seed=3,
        **EVERY_TEN,
    ),
)

_RESUME = (
    recipe(
        "resume_mismatch_scheduler",
        "digits_mlp",
        "resume_mismatch",
        "lr_schedule_mismatch divergence loss_spike exploding_gradient",
        since=(301, 312),
        steps=400,
        schedule="cosine",
        optimizer="momentum",
        learning_rate=0.02,
        resume_at=300,
        forgotten=("scheduler",),
    ),
    recipe(
        "resume_mismatch_weights",
        "digits_cnn",
        "resume_mismatch",
        "divergence loss_spike exploding_gradient overfitting",
        since=(201, 220),
        steps=300,
        resume_at=200,
        forgotten=("weights", "optimizer"),
        seed=1,
    ),
    recipe(
        "resume_mismatch_warmup_again",
        "text_rnn",
        "resume_mismatch",
        "lr_schedule_mismatch",
        since=(151, 175),
        steps=200,
        batch_size=16,
        evaluate_every=25,
        learning_rate=8e-3,
        clip=1.0,
        resume_at=150,
        forgotten=("scheduler", "optimizer"),
        seed=2,
    ),
    recipe(
        "resume_mismatch_scaler",
        "digits_mlp",
        "resume_mismatch",
        "amp_overflow non_finite_gradient",
        since=(151, 170),
        steps=250,
        precision="fp16",
        loss_scale=2.0**8,
        scale_growth_interval=20,
        resume_at=150,
        forgotten=("scaler",),
        seed=3,
    ),
)

_TRAIN_MODE = tuple(
    recipe(
        f"train_mode_off_{name}",
        "rewired",
        "train_mode_off",
        "overfitting generalization_gap train_eval_mismatch validation_stalled",
        since=since,
        steps=200,
        model=model | {"stuck_in_eval": stuck},
        seed=seed,
    )
    for seed, (name, model, stuck, since) in enumerate(
        (
            ("dropout", DIGITS | {"dropout": 0.4}, "from the start", (1, 40)),
            ("after_validation", DIGITS | {"dropout": 0.3, "norm": "batch"}, "after validation", (21, 60)),
            ("batch_norm", {"base": "digits_cnn"}, "after validation", (21, 60)),
        )
    )
)

_COLLAPSE = (
    recipe(
        "collapsed_output_shapes",
        "rewired",
        "collapsed_output",
        AFTER_COLLAPSE,
        since=(1, 10),
        model=DIABETES | {"flat_targets": True},
        **EVERY_TEN,
    ),
    recipe(
        "collapsed_output_shapes_sgd",
        "rewired",
        "collapsed_output",
        AFTER_COLLAPSE,
        since=(1, 10),
        model=DIABETES | {"flat_targets": True, "activation": "tanh"},
        optimizer="sgd",
        learning_rate=0.05,
        batch_size=16,
        seed=1,
        **EVERY_TEN,
    ),
    recipe(
        "collapsed_output_decay",
        "diabetes",
        "collapsed_output excess_regularization update_too_large",
        f"{AFTER_COLLAPSE} excess_regularization divergence exploding_gradient",
        since=(1, 150),
        model={"width": 16, "depth": 3},
        learning_rate=1e-2,
        weight_decay=30.0,
        schedule="constant",
        seed=2,
        **EVERY_TEN,
    ),
    recipe(
        "collapsed_output_pulled_together",
        "rewired",
        "collapsed_output",
        AFTER_COLLAPSE,
        since=(1, 150),
        steps=200,
        model=DIGITS | {"agreement": True},
        seed=3,
    ),
)

_SOFTMAX = tuple(
    recipe(
        f"double_softmax_{name}",
        "rewired",
        "double_softmax",
        AFTER_COLLAPSE,
        since=(1, 20),
        model=model,
        seed=seed,
        **settings,
    )
    for seed, (name, model, settings) in enumerate(
        (
            ("mlp", DIGITS | {"head": "softmax"}, {"steps": 300}),
            ("cnn", CNN | {"head": "softmax"}, {"steps": 200, "optimizer": "momentum", "learning_rate": 0.05}),
            ("binary", TUMOURS | {"head": "sigmoid"}, EVERY_TEN),
            ("unlearned", DIGITS | {"head": "softmax"}, {"steps": 150, "optimizer": "sgd", "learning_rate": 1e-2}),
        )
    )
)

WIRING = (*_ACCUMULATION, *_RESUME, *_TRAIN_MODE, *_COLLAPSE, *_SOFTMAX)
