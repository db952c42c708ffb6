"""Trainings that learn as they should and waste time or memory: slow loaders, histories, leaks, padding."""

from tests.pathologies.burdens import Burden
from tests.pathologies.recipe import Recipe, recipe

__all__ = ["THROUGHPUT"]

# The machine that records is shared with others, so numbers are far from the thresholds, mild cases excepted.

_DATA_BOTTLENECK = (
    recipe(
        "data_bottleneck_mlp",
        "digits_mlp",
        "data_bottleneck",
        since=(1, 250),
        steps=250,
        burden=Burden(batch_seconds=0.018),
    ),
    recipe(
        "data_bottleneck_epoch_start",
        "digits_cnn",
        "data_bottleneck",
        since=(1, 250),
        steps=250,
        burden=Burden(epoch_seconds=0.4),
    ),
    recipe(
        "data_bottleneck_mild",
        "digits_mlp",
        "data_bottleneck",
        since=(1, 350),
        steps=350,
        batch_size=32,
        evaluate_every=100,
        burden=Burden(batch_seconds=0.01, step_seconds=0.02),
    ),
)

_THROUGHPUT_DECAY = (
    recipe(
        "throughput_decay_history",
        "digits_mlp",
        "throughput_decay",
        "memory_growth",
        since=(1, 700),
        steps=700,
        evaluate_every=100,
        burden=Burden(history=10_000),
    ),
    recipe(
        "throughput_decay_steps",
        "breast_cancer",
        "throughput_decay",
        since=(1, 600),
        steps=600,
        evaluate_every=100,
        burden=Burden(slower_steps=6e-5),
    ),
    recipe(
        "throughput_decay_loader",
        "digits_cnn",
        "throughput_decay data_bottleneck",
        "throughput_decay data_bottleneck",
        since=(1, 600),
        steps=600,
        evaluate_every=100,
        burden=Burden(slower_batches=5e-5),
    ),
)

_MEMORY_GROWTH = (
    recipe(
        "memory_growth_hook",
        "digits_mlp",
        "memory_growth",
        "throughput_decay",
        model={"width": 512, "depth": 3},
        since=(1, 300),
        steps=300,
        evaluate_every=100,
        batch_size=256,
        burden=Burden(keeps_activations=True, step_seconds=0.02),
    ),
    recipe(
        "memory_growth_predictions",
        "diabetes",
        "memory_growth",
        "throughput_decay",
        since=(1, 400),
        steps=400,
        evaluate_every=100,
        batch_size=32,
        burden=Burden(kept=300_000, step_seconds=0.02),
    ),
    recipe(
        "memory_growth_mild",
        "breast_cancer",
        "memory_growth",
        "throughput_decay",
        since=(1, 400),
        steps=400,
        evaluate_every=100,
        burden=Burden(kept=125_000, step_seconds=0.02),
    ),
)

_PADDING_WASTE = (
    recipe(
        "padding_waste_fixed_length",
        "padded_text",
        "padding_waste",
        model={"context": 64, "shortest": 0.1, "longest": 0.3},
        since=(1, 300),
        steps=300,
        batch_size=16,
        evaluate_every=100,
        burden=Burden(step_seconds=0.02),
    ),
    recipe(
        "padding_waste_one_long_row",
        "padded_text",
        "padding_waste",
        model={"context": 64, "shortest": 0.02, "longest": 0.6},
        since=(1, 300),
        steps=300,
        batch_size=16,
        evaluate_every=150,
        learning_rate=2e-3,
        burden=Burden(step_seconds=0.02),
    ),
    recipe(
        "padding_waste_small_batch",
        "padded_text",
        "padding_waste",
        model={"context": 96, "shortest": 0.1, "longest": 0.4},
        since=(1, 350),
        steps=350,
        batch_size=8,
        evaluate_every=150,
        learning_rate=1e-3,
        burden=Burden(step_seconds=0.02),
    ),
)

_HEALTHY = (
    recipe(
        "healthy_busy_machine",
        "digits_cnn",
        steps=450,
        evaluate_every=100,
        burden=Burden(batch_seconds=3e-4, slow_phase=(200, 350, 0.015), kept=300_000, kept_until=150),
    ),
    recipe(
        "healthy_padded_text",
        "padded_text",
        model={"context": 64, "shortest": 0.6, "longest": 1.0},
        steps=200,
        batch_size=16,
        evaluate_every=100,
    ),
)

THROUGHPUT: tuple[Recipe, ...] = (
    *_HEALTHY,
    *_DATA_BOTTLENECK,
    *_THROUGHPUT_DECAY,
    *_MEMORY_GROWTH,
    *_PADDING_WASTE,
)
