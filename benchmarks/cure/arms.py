"""Who watches a training: nobody, the doctor, or what people use today. Each fits where the corpus' loop has a Monitor.

* callbacks: ReduceLROnPlateau (factor 0.1, patience 10 as in PyTorch), stop on NaN, and early stopping (patience 10)
  that puts the best weights back: the three callbacks of Keras and Lightning with their defaults, as one.
* skip_step: OLMo-core's SkipStepOptimizer: a step whose loss or gradient norm lies more than 6 standard deviations
  above the mean of the last 128 is left out. The loop tells the loss after the step, so it is the one before.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lossdoctor import Monitor
from tests.pathologies.training import Unmonitored

__all__ = ["ARMS", "Arm"]

Arm = Callable[[Path], Callable[..., Any]]


class _Callbacks(Unmonitored):
    """ReduceLROnPlateau, terminate on NaN and early stopping with the best weights."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **settings: object) -> None:
        super().__init__(model, optimizer, **settings)
        self._network, self._optimizer = model, optimizer
        self._best, self._weights = math.inf, {}
        self._waited = self._stalled = 0
        self.should_stop = False

    def step(self, loss: torch.Tensor, **also: object) -> None:
        if not math.isfinite(float(loss.detach())):
            self._stop()

    def evaluation(self, **values: float) -> None:
        if values["loss"] < self._best * (1 - 1e-4):
            self._best, self._waited, self._stalled = values["loss"], 0, 0
            self._weights = {name: value.clone() for name, value in self._network.state_dict().items()}
            return
        self._waited += 1
        self._stalled += 1
        if self._stalled > 10:
            self._stalled = 0
            for group in self._optimizer.param_groups:
                group["lr"] *= 0.1
        if self._waited >= 10:
            self._stop()

    def _stop(self) -> None:
        self.should_stop = True
        if self._weights:
            self._network.load_state_dict(self._weights)


class _SkipStep(Unmonitored):
    """OLMo's rule, with its window and its six standard deviations."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **settings: object) -> None:
        super().__init__(model, optimizer, **settings)
        self._losses: deque[float] = deque(maxlen=128)
        self._norms: deque[float] = deque(maxlen=128)
        self._taken: list[tuple[nn.Parameter, torch.Tensor]] = []
        self._network = model
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, *_: object) -> None:
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        usual = all(map(_is_usual, (self._losses, self._norms), (self._losses[-1] if self._losses else 0.0, norm)))
        self._norms.append(norm)
        if not usual:
            for parameter in self._network.parameters():
                if parameter.grad is not None:
                    self._taken.append((parameter, parameter.grad))
                    parameter.grad = None

    def _after(self, *_: object) -> None:
        for parameter, gradient in self._taken:
            parameter.grad = gradient
        self._taken.clear()

    def step(self, loss: torch.Tensor, **also: object) -> None:
        self._losses.append(float(loss.detach()))


def _is_usual(window: "deque[float]", value: float) -> bool:
    if len(window) < 64:  # half of the window, as theirs
        return True
    values = torch.tensor(window)
    return bool(value - values.mean() <= 6 * values.std())


def _monitor(mode: str) -> Arm:
    def arm(directory: Path) -> Callable[..., Any]:
        return lambda model, optimizer, **settings: Monitor(
            model, optimizer, run_dir=directory, remediate=mode, **settings
        )

    return arm


ARMS: Mapping[str, Arm] = {
    "off": lambda directory: Unmonitored,
    "auto": _monitor("auto"),
    "callbacks": lambda directory: _Callbacks,
    "skip_step": lambda directory: _SkipStep,
}
