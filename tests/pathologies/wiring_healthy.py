"""Sound trainings that look like mistakes in the wiring or the data."""

from tests.pathologies.recipe import recipe

__all__ = ["WIRING_HEALTHY"]

DIGITS = {"base": "digits_mlp"}
TUMOURS = {"base": "breast_cancer", "width": 16}
DIABETES = {"base": "diabetes", "width": 16}
SHORT = {"steps": 200, "evaluate_every": 10}

WIRING_HEALTHY = (
    recipe("healthy_probabilities_nll", "rewired", steps=300, model=DIGITS | {"head": "softmax and nll"}),
    recipe(
        "healthy_probabilities_cnn",
        "rewired",
        steps=200,
        model={"base": "digits_cnn", "head": "softmax and nll"},
        optimizer="momentum",
        learning_rate=0.02,
        weight_decay=1e-3,
        seed=1,
    ),
    recipe("healthy_same_order", "digits_mlp", steps=300, loader="sequential", seed=2),
    recipe("healthy_same_order_binary", "rewired", model=TUMOURS, batch_size=16, loader="sequential", seed=3, **SHORT),
    recipe("healthy_pixels_batch_norm", "digits_cnn", steps=250, input_scale=120.0, seed=4),
    recipe("healthy_inputs_small", "digits_mlp", steps=300, input_scale=0.1, seed=5),
    recipe("healthy_inputs_tenfold", "digits_mlp", steps=300, input_scale=8.0, learning_rate=1e-3, seed=6),
    recipe(
        "healthy_imbalanced",
        "rewired",
        steps=200,
        model=DIGITS | {"minority": 0.1},
        batch_size=128,
        learning_rate=2e-3,
        weight_decay=0.1,
        seed=7,
    ),
    recipe("healthy_imbalanced_binary", "rewired", model=TUMOURS | {"minority": 0.2}, seed=8, **SHORT),
    recipe(
        "healthy_few_values", "rewired", model=TUMOURS | {"few_values": True}, watch_validation=True, seed=9, **SHORT
    ),
    recipe("healthy_watched_validation", "digits_cnn", steps=250, watch_validation=True, seed=10),
    recipe(
        "healthy_masked_tokens",
        "rewired",
        steps=300,
        batch_size=16,
        evaluate_every=30,
        learning_rate=4e-3,
        clip=1.0,
        model={"base": "text_transformer", "supervised": 0.15},
        seed=11,
    ),
    recipe(
        "healthy_resumed",
        "digits_mlp",
        steps=400,
        schedule="cosine",
        optimizer="momentum",
        learning_rate=0.02,
        weight_decay=1e-3,
        resume_at=200,
        seed=12,
    ),
    recipe(
        "healthy_resumed_optimizer_lost",
        "digits_cnn",
        steps=300,
        schedule="constant",
        learning_rate=1e-3,
        resume_at=150,
        forgotten=("optimizer",),
        seed=13,
    ),
    recipe(
        "healthy_accumulation_dropout",
        "digits_mlp",
        steps=250,
        accumulation=2,
        batch_size=32,
        model={"dropout": 0.5},
        seed=14,
    ),
    recipe(
        "healthy_accumulation_regression",
        "diabetes",
        accumulation=2,
        batch_size=32,
        model={"width": 16},
        seed=15,
        **SHORT,
    ),
    recipe(
        "healthy_batches_of_one",
        "rewired",
        steps=1500,
        batch_size=1,
        evaluate_every=50,
        learning_rate=1e-3,
        model=DIABETES,
        weight_decay=0.1,
        seed=16,
    ),
)
