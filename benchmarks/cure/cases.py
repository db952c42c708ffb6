"""Faults that can be cured in a running training: what is healthy, and what is done to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tests.pathologies.settings import Fault, FaultKind, Settings
from tests.pathologies.tasks import TASKS, Task

__all__ = ["CASES", "CONSTANT", "EVERY", "PLAIN", "SGD", "TEXT", "Case", "case", "faults"]


@dataclass(frozen=True, slots=True)
class Case:
    """A training, and the settings by which it is made sick."""

    name: str
    task: str
    healthy: Settings
    fault: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)

    def make_task(self) -> Task:
        """The problem with this case's model."""
        return TASKS[self.task](**self.model)

    def settings(self, seed: int, *, sick: bool) -> Settings:
        """The settings of one training."""
        return replace(self.healthy, seed=seed, **(self.fault if sick else {}))


def case(
    name: str,
    task: str,
    steps: int,
    fault: Mapping[str, Any],
    *,
    model: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> Case:
    """A case with twenty evaluations, where nothing else is said."""
    settings.setdefault("evaluate_every", max(steps // 20, 5))
    return Case(name, task, Settings(steps=steps, **settings), fault, dict(model))


def faults(*these: Fault) -> dict[str, Any]:
    """The setting of these faults."""
    return {"faults": these}


def _again(kind: FaultKind, first: int, apart: int, magnitude: float) -> dict[str, Any]:
    """Seven bad steps, each twice as bad as the one before."""
    return faults(*(Fault(kind, first + apart * number, magnitude * 2**number, length=1) for number in range(7)))


SGD: dict[str, Any] = {"optimizer": "momentum", "learning_rate": 0.02}
_LION: dict[str, Any] = {"optimizer": "lion", "learning_rate": 3e-4}
TEXT: dict[str, Any] = {"batch_size": 16}
CONSTANT: dict[str, Any] = {"schedule": "constant"}
PLAIN: dict[str, Any] = {"norm": None}
EVERY: dict[str, Any] = {"evaluate_every": 5}

CASES: tuple[Case, ...] = (
    # The learning rate jumps on the way, for good.
    case("jump_mlp", "digits_mlp", 300, faults(Fault("lr_factor", 150, 300)), **CONSTANT),
    case("jump_mlp_short", "digits_mlp", 100, faults(Fault("lr_factor", 50, 100)), **CONSTANT),
    case("jump_cnn", "digits_cnn", 300, faults(Fault("lr_factor", 150, 100)), model=PLAIN, **SGD, **CONSTANT),
    case("jump_transformer", "text_transformer", 250, faults(Fault("lr_factor", 125, 60)), **TEXT, **CONSTANT),
    case("jump_rnn", "text_rnn", 250, faults(Fault("lr_factor", 125, 60)), learning_rate=8e-3, **TEXT, **CONSTANT),
    case("jump_regression", "diabetes", 200, faults(Fault("lr_factor", 100, 100)), **CONSTANT),
    case("jump_autoencoder", "autoencoder", 250, faults(Fault("lr_factor", 125, 300)), **CONSTANT),
    case("jump_schedule", "digits_mlp", 300, faults(Fault("lr_factor", 120, 200))),
    # The learning rate is too high from the start.
    case("too_high_mlp", "digits_mlp", 300, {"learning_rate": 1.0}, **CONSTANT),
    case("too_high_mlp_momentum", "digits_mlp", 300, {"learning_rate": 3.0}, **SGD, **CONSTANT),
    case("too_high_regression", "diabetes", 200, {"learning_rate": 1.0}, model={"width": 32}, **SGD, **CONSTANT),
    case("too_high_transformer", "text_transformer", 250, {"learning_rate": 0.1}, **TEXT, **CONSTANT),
    case("too_high_lion", "digits_mlp", 300, {"learning_rate": 0.1}, optimizer="lion", learning_rate=3e-4, **CONSTANT),
    case(
        "too_high_rmsprop",
        "digits_mlp",
        300,
        {"learning_rate": 0.05},
        optimizer="rmsprop",
        learning_rate=1e-3,
        **CONSTANT,
    ),
    case(
        "too_high_adagrad",
        "digits_mlp",
        300,
        {"learning_rate": 0.5},
        optimizer="adagrad",
        learning_rate=0.03,
        **CONSTANT,
    ),
    case("too_high_binary", "breast_cancer", 200, {"learning_rate": 0.3}, **CONSTANT),
    # Values that are not finite.
    case("nan_batch_mlp", "digits_mlp", 200, faults(Fault("nan_batch", 60, length=1))),
    case("nan_batch_batchnorm", "digits_cnn", 300, faults(Fault("nan_batch", 150, length=1)), **SGD),
    case("nan_batches", "text_transformer", 200, faults(Fault("nan_gradient", 100, length=3)), **TEXT),
    case("masked_batches", "text_transformer", 200, faults(Fault("masked_batch", 100, length=3)), **TEXT),
    case("inf_batch", "digits_mlp", 80, faults(Fault("inf_batch", 30, length=1))),
    case("inf_batch_regression", "diabetes", 200, faults(Fault("inf_batch", 100, length=1))),
    case("nan_gradient", "digits_mlp", 200, faults(Fault("nan_gradient", 80, length=2))),
    case("nan_bf16", "digits_cnn", 200, faults(Fault("nan_batch", 90, length=1)), precision="bf16", **SGD),
    # Gradients that are far too large for a while.
    case(
        "factor_sgd",
        "digits_cnn",
        300,
        faults(Fault("gradient_factor", 150, 300, length=2)),
        model=PLAIN,
        **SGD,
    ),
    case("factor_regression", "diabetes", 200, faults(Fault("gradient_factor", 80, 1000, length=1)), **SGD),
    case("targets_regression", "diabetes", 250, faults(Fault("wrong_targets", 120, 1000, length=2)), **SGD),
    # Spikes that come again.
    case("spikes_mlp", "digits_mlp", 300, _again("bad_batch", 90, 30, 1.5)),
    case("spikes_regression", "diabetes", 300, _again("wrong_targets", 100, 25, 4)),
    case("spikes_sgd", "diabetes", 300, _again("wrong_targets", 100, 25, 4), **SGD),
    # Overfitting: a small training set, and four times the steps that it is good for. The twin trains on the same rows.
    case("overfit_mlp", "digits_mlp", 60, {"steps": 240}, train_rows=300, label_noise=0.3, **CONSTANT, **EVERY),
    case("overfit_regression", "diabetes", 60, {"steps": 400}, model={"width": 64}, train_rows=80, **CONSTANT, **EVERY),
    case("overfit_rnn", "text_rnn", 50, {"steps": 200}, train_rows=48, **TEXT, **CONSTANT, **EVERY),
    case("overfit_transformer", "text_transformer", 20, {"steps": 150}, train_rows=48, **TEXT, **CONSTANT, **EVERY),
    # The learning rate is too low.
    case("too_low_mlp", "digits_mlp", 300, {"learning_rate": 1e-6}, **CONSTANT),
    case("too_low_cnn", "digits_cnn", 300, {"learning_rate": 2e-5}, **SGD, **CONSTANT),
    case("too_low_transformer", "text_transformer", 250, {"learning_rate": 2e-6}, **TEXT, **CONSTANT),
    # The loss scale.
    case("scale_too_high", "digits_mlp", 200, {"loss_scale": 2.0**40}, precision="fp16"),
)
