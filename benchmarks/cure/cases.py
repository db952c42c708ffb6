"""Faults that can be cured in a running training: what is healthy, and what is done to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tests.pathologies.settings import Fault, Settings
from tests.pathologies.tasks import TASKS, Task

__all__ = ["CASES", "Case"]


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


def _case(
    name: str,
    task: str,
    steps: int,
    fault: Mapping[str, Any],
    *,
    model: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> Case:
    settings.setdefault("evaluate_every", max(steps // 20, 5))
    return Case(name, task, Settings(steps=steps, **settings), fault, dict(model))


def _faults(*faults: Fault) -> dict[str, Any]:
    return {"faults": faults}


_SGD: dict[str, Any] = {"optimizer": "momentum", "learning_rate": 0.02}
_LION: dict[str, Any] = {"optimizer": "lion", "learning_rate": 3e-4}
_TEXT: dict[str, Any] = {"batch_size": 16}
_CONSTANT: dict[str, Any] = {"schedule": "constant"}
_PLAIN: dict[str, Any] = {"norm": None}
_EVERY: dict[str, Any] = {"evaluate_every": 5}

CASES: tuple[Case, ...] = (
    # The learning rate jumps on the way, for good.
    _case("jump_mlp", "digits_mlp", 300, _faults(Fault("lr_factor", 150, 300)), **_CONSTANT),
    _case("jump_mlp_short", "digits_mlp", 100, _faults(Fault("lr_factor", 50, 100)), **_CONSTANT),
    _case("jump_cnn", "digits_cnn", 300, _faults(Fault("lr_factor", 150, 100)), model=_PLAIN, **_SGD, **_CONSTANT),
    _case("jump_transformer", "text_transformer", 250, _faults(Fault("lr_factor", 125, 60)), **_TEXT, **_CONSTANT),
    _case("jump_rnn", "text_rnn", 250, _faults(Fault("lr_factor", 125, 60)), learning_rate=8e-3, **_TEXT, **_CONSTANT),
    _case("jump_regression", "diabetes", 200, _faults(Fault("lr_factor", 100, 100)), **_CONSTANT),
    _case("jump_autoencoder", "autoencoder", 250, _faults(Fault("lr_factor", 125, 300)), **_CONSTANT),
    _case("jump_schedule", "digits_mlp", 300, _faults(Fault("lr_factor", 120, 200))),
    # The learning rate is too high from the start.
    _case("too_high_mlp", "digits_mlp", 300, {"learning_rate": 1.0}, **_CONSTANT),
    _case("too_high_mlp_momentum", "digits_mlp", 300, {"learning_rate": 3.0}, **_SGD, **_CONSTANT),
    _case("too_high_regression", "diabetes", 200, {"learning_rate": 1.0}, model={"width": 32}, **_SGD, **_CONSTANT),
    _case("too_high_transformer", "text_transformer", 250, {"learning_rate": 0.1}, **_TEXT, **_CONSTANT),
    _case(
        "too_high_lion", "digits_mlp", 300, {"learning_rate": 0.1}, optimizer="lion", learning_rate=3e-4, **_CONSTANT
    ),
    # Values that are not finite.
    _case("nan_batch_mlp", "digits_mlp", 200, _faults(Fault("nan_batch", 60, length=1))),
    _case("nan_batch_batchnorm", "digits_cnn", 300, _faults(Fault("nan_batch", 150, length=1)), **_SGD),
    _case("nan_batches", "text_transformer", 200, _faults(Fault("nan_gradient", 100, length=3)), **_TEXT),
    _case("masked_batches", "text_transformer", 200, _faults(Fault("masked_batch", 100, length=3)), **_TEXT),
    _case("inf_batch", "digits_mlp", 80, _faults(Fault("inf_batch", 30, length=1))),
    _case("inf_batch_regression", "diabetes", 200, _faults(Fault("inf_batch", 100, length=1))),
    _case("nan_gradient", "digits_mlp", 200, _faults(Fault("nan_gradient", 80, length=2))),
    _case("nan_bf16", "digits_cnn", 200, _faults(Fault("nan_batch", 90, length=1)), precision="bf16", **_SGD),
    # Gradients that are far too large for a while.
    _case(
        "factor_sgd",
        "digits_cnn",
        300,
        _faults(Fault("gradient_factor", 150, 300, length=2)),
        model=_PLAIN,
        **_SGD,
    ),
    _case("factor_regression", "diabetes", 200, _faults(Fault("gradient_factor", 80, 1000, length=1)), **_SGD),
    _case("targets_regression", "diabetes", 250, _faults(Fault("wrong_targets", 120, 1000, length=2)), **_SGD),
    # Overfitting: a small training set, and four times the steps that it is good for. The twin trains on the same rows.
    _case("overfit_mlp", "digits_mlp", 60, {"steps": 240}, train_rows=300, label_noise=0.3, **_CONSTANT, **_EVERY),
    _case(
        "overfit_regression", "diabetes", 60, {"steps": 400}, model={"width": 64}, train_rows=80, **_CONSTANT, **_EVERY
    ),
    _case("overfit_rnn", "text_rnn", 50, {"steps": 200}, train_rows=48, **_TEXT, **_CONSTANT, **_EVERY),
    _case("overfit_transformer", "text_transformer", 20, {"steps": 150}, train_rows=48, **_TEXT, **_CONSTANT, **_EVERY),
    # The learning rate is too low.
    _case("too_low_mlp", "digits_mlp", 300, {"learning_rate": 1e-6}, **_CONSTANT),
    _case("too_low_cnn", "digits_cnn", 300, {"learning_rate": 2e-5}, **_SGD, **_CONSTANT),
    _case("too_low_transformer", "text_transformer", 250, {"learning_rate": 2e-6}, **_TEXT, **_CONSTANT),
    # The loss scale.
    _case("scale_too_high", "digits_mlp", 200, {"loss_scale": 2.0**40}, precision="fp16"),
)
