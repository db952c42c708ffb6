"""More faults, on other tasks: written when the remedies were made, and first run then."""

from typing import Any

from benchmarks.cure.cases import CONSTANT, EVERY, PLAIN, SGD, TEXT, Case, case, faults
from tests.pathologies.settings import Fault

__all__ = ["UNSEEN"]

_SLOW: dict[str, Any] = {"learning_rate": 1e-3}

UNSEEN: tuple[Case, ...] = (
    case("vit_jump", "digits_vit", 250, faults(Fault("lr_factor", 120, 40)), **_SLOW, **CONSTANT),
    case("vit_too_high", "digits_vit", 250, {"learning_rate": 0.1}, **_SLOW, **CONSTANT),
    case("vit_nan", "digits_vit", 200, faults(Fault("nan_batch", 70, length=2)), **_SLOW),
    case("binary_jump", "breast_cancer", 200, faults(Fault("lr_factor", 90, 200)), **CONSTANT),
    case("binary_jump_sgd", "breast_cancer", 200, faults(Fault("lr_factor", 90, 300)), **SGD, **CONSTANT),
    case("tails_too_high", "heavy_tails", 250, {"learning_rate": 0.5}, **CONSTANT),
    case("tails_factor", "heavy_tails", 250, faults(Fault("gradient_factor", 120, 500, length=2)), **SGD),
    case("rare_jump", "rare_events", 250, faults(Fault("lr_factor", 120, 200)), **CONSTANT),
    case("rnn_too_high", "text_rnn", 250, {"learning_rate": 0.3}, learning_rate=8e-3, **TEXT, **CONSTANT),
    case(
        "lstm_jump_lion",
        "text_rnn",
        250,
        faults(Fault("lr_factor", 120, 100)),
        model={"kind": "lstm"},
        optimizer="lion",
        **_SLOW,
        **TEXT,
        **CONSTANT,
    ),
    case("autoencoder_too_high", "autoencoder", 200, {"learning_rate": 0.3}, **CONSTANT),
    case("cnn_too_high", "digits_cnn", 200, {"learning_rate": 0.5}, **CONSTANT),
    case("cnn_short", "digits_cnn", 80, faults(Fault("lr_factor", 40, 300)), model=PLAIN, **SGD, **CONSTANT),
    # The learning rate jumps for six steps, and back.
    case(
        "cnn_glitch", "digits_cnn", 200, faults(Fault("lr_factor", 100, 300, length=6)), model=PLAIN, **SGD, **CONSTANT
    ),
    case("mlp_glitch", "digits_mlp", 200, faults(Fault("lr_factor", 100, 300, length=6)), **CONSTANT),
    case("tuning_jump", "fine_tuning", 150, faults(Fault("lr_factor", 60, 200)), **_SLOW, **CONSTANT),
    case(
        "text_factor",
        "text_transformer",
        200,
        faults(Fault("gradient_factor", 100, 1e4, length=3)),
        optimizer="momentum",
        learning_rate=0.1,
        **TEXT,
    ),
    case(
        "adagrad_jump",
        "digits_mlp",
        250,
        faults(Fault("lr_factor", 120, 100)),
        optimizer="adagrad",
        learning_rate=0.03,
        **CONSTANT,
    ),
    case(
        "rmsprop_jump",
        "digits_mlp",
        250,
        faults(Fault("lr_factor", 120, 100)),
        optimizer="rmsprop",
        **_SLOW,
        **CONSTANT,
    ),
    case("too_low_binary", "breast_cancer", 300, {"learning_rate": 1e-6}, **CONSTANT),
    case(
        "overfit_vit", "digits_vit", 40, {"steps": 240}, train_rows=100, label_noise=0.2, **_SLOW, **EVERY, **CONSTANT
    ),
    case("overfit_binary", "breast_cancer", 40, {"steps": 400}, train_rows=60, label_noise=0.2, **EVERY, **CONSTANT),
)
