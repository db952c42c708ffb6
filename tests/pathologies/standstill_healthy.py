"""Sound trainings that look like a standstill, or like steps too large, at a first glance."""

from tests.pathologies.recipe import recipe

__all__ = ["STANDSTILL_HEALTHY"]

MLP = {"base": "digits_mlp"}

STANDSTILL_HEALTHY = tuple(
    recipe(f"healthy_standing_{name}", task, seed=number, **settings)
    for number, (name, task, settings) in enumerate(
        (
            (
                "full_batch",
                "digits_mlp",
                {"steps": 200, "batch_size": 2000, "optimizer": "momentum", "learning_rate": 0.1},
            ),
            (
                "full_batch_adam",
                "breast_cancer",
                {"steps": 60, "batch_size": 1000, "evaluate_every": 10, "learning_rate": 1e-3},
            ),
            ("zero_output", "prepared", {"steps": 250, "model": MLP | {"last_scale": 0.0}}),
            (
                "small_output",
                "prepared",
                {"steps": 150, "batch_size": 16, "model": {"base": "text_transformer", "last_scale": 0.1}},
            ),
            ("spare_layer", "prepared", {"steps": 200, "model": MLP | {"spare": 8, "depth": 12, "norm": "batch"}}),
            (
                "adagrad_large",
                "digits_cnn",
                {"steps": 200, "optimizer": "adagrad", "learning_rate": 0.02, "schedule": "constant"},
            ),
            (
                "adagrad_rnn",
                "text_rnn",
                {"steps": 300, "batch_size": 16, "optimizer": "adagrad", "learning_rate": 0.05},
            ),
            ("clipped_sgd", "digits_mlp", {"steps": 300, "optimizer": "sgd", "learning_rate": 1.0, "clip": 0.1}),
            (
                "wide_narrow_batch",
                "digits_mlp",
                {"steps": 500, "batch_size": 16, "learning_rate": 1e-3, "model": {"width": 256}},
            ),
            ("tanh_wide", "digits_mlp", {"steps": 250, "model": {"activation": "tanh", "gain": 2.0}}),
            (
                "momentum_norm_bias",
                "digits_cnn",
                {"steps": 200, "optimizer": "momentum", "learning_rate": 0.05, "model": {"residual": 1}},
            ),
            ("large_first_steps", "autoencoder", {"steps": 400, "learning_rate": 0.01, "warmup": 0.0}),
            ("long_warmup", "digits_cnn", {"steps": 300, "warmup": 0.25}),
        )
    )
)
