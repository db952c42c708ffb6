"""Optimizers and schedules by their names."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.pathologies.settings import Settings

__all__ = ["Lion", "make_optimizer", "make_scheduler"]


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
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
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
    """The schedule by its name, stepped after every optimizer step."""
    steps, warmup = settings.steps, round(settings.warmup * settings.steps)

    def warmup_cosine(step: int) -> float:
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    match settings.schedule:
        case "constant":
            return None
        case "warmup_cosine":
            return lr_scheduler.LambdaLR(optimizer, warmup_cosine)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=settings.learning_rate / 1000)
        case "onecycle":
            return lr_scheduler.OneCycleLR(optimizer, max_lr=settings.learning_rate, total_steps=steps)
        case "step":
            milestones = [round(share * steps) for share in settings.milestones]
            return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=settings.gamma)
        case "linear":
            return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.01, total_iters=steps)
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, gamma=settings.gamma ** (1 / steps))
        case "restarts":
            return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=max(1, steps // 4))
