"""Optimizers and schedules by their names."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.pathologies.settings import Settings

__all__ = ["Lion", "advance", "make_optimizer", "make_scheduler", "moving_average"]


class Lion(torch.optim.Optimizer):
    """Steps of equal size along the sign of the averaged gradient (Chen et al. 2023)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter by the learning rate, up or down."""
        result = None if closure is None else closure()
        for group in self.param_groups:
            short, long = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(torch.sign(torch.lerp(parameter.grad, average, short)), alpha=group["lr"])
                average.lerp_(parameter.grad, 1 - long)
        return result


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer by its name, over the parameters that require a gradient."""
    left_out = range(*settings.left_out)
    parameters = [
        parameter
        for number, parameter in enumerate(model.parameters())
        if parameter.requires_grad and number not in left_out
    ]
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
        case "momentum":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        case "fused_adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=rate)
        case "lion":
            return Lion(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=decay)


def make_scheduler(optimizer: torch.optim.Optimizer, settings: Settings) -> lr_scheduler.LRScheduler | None:
    """The schedule by its name, to be stepped after every optimizer step."""
    steps, warmup = round(settings.schedule_length * settings.steps), round(settings.warmup * settings.steps)

    def warmup_cosine(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def inverse_sqrt(step: int) -> float:
        return min(step / max(1, warmup), (max(1, warmup) / max(1, step)) ** 0.5)

    def trapezoid(step: int) -> float:
        return min(1.0, step / max(1, warmup), (steps - step) / (0.2 * steps))

    def range_test(step: int) -> float:
        return 10.0 ** (7 * (step / steps - 1))

    factors = {"warmup_cosine": warmup_cosine, "inverse_sqrt": inverse_sqrt, "trapezoid": trapezoid}
    factors["range_test"] = range_test
    if settings.schedule in factors:
        return lr_scheduler.LambdaLR(optimizer, factors[settings.schedule])
    if settings.schedule == "constant":
        return None
    return _torch_scheduler(optimizer, settings, steps)


def _torch_scheduler(
    optimizer: torch.optim.Optimizer, settings: Settings, steps: int
) -> lr_scheduler.LRScheduler | None:
    rate = settings.learning_rate
    match settings.schedule:
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=rate / 1000)
        case "onecycle":
            return lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
        case "step":
            milestones = [round(share * steps) for share in settings.milestones]
            return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=settings.gamma)
        case "linear":
            return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.01, total_iters=steps)
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, gamma=settings.gamma ** (1 / steps))
        case "restarts":
            return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=max(1, steps // 4))
        case "cyclic":
            return lr_scheduler.CyclicLR(optimizer, rate / 20, rate, max(1, steps // 8), cycle_momentum=False)
        case _:
            raise ValueError(settings.schedule)


def advance(
    scheduler: lr_scheduler.LRScheduler | None, settings: Settings, *, after: Literal["step", "epoch"], step: int
) -> None:
    """Step the schedule if it is due; torch's warning about a scaler that skipped the first update is no news here."""
    times = {("step", "step"): 1, ("step", "micro"): settings.accumulation, ("epoch", "epoch"): 1}
    if scheduler is None or not 0 < step < settings.steps:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for _ in range(times.get((after, settings.scheduler_stepped), 0)):
            scheduler.step()


def moving_average(model: nn.Module, settings: Settings) -> AveragedModel | None:
    """The moving average that is validated; it begins where the model does."""
    if settings.averaging is None:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
    average.n_averaged += 1  # or else torch takes the weights after the first step whole
    return average
