"""Going on from a checkpoint as a new process would: everything is made anew, and what was saved is loaded."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.pathologies.optimizers import make_scheduler
from tests.pathologies.settings import Settings

__all__ = ["resumed"]


def resumed(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: lr_scheduler.LRScheduler | None,
    scaler: torch.amp.GradScaler | None,
    settings: Settings,
    *,
    fresh: nn.Module,
) -> lr_scheduler.LRScheduler | None:
    """The scheduler to go on with. What `settings.forgotten` names is as it was at the start, in place.

    `fresh` is an untrained model. A new optimizer has its learning rate from the settings, and no memory.
    """
    forgotten: Iterable[str] = settings.forgotten
    saved = None if scheduler is None else scheduler.state_dict()
    if "weights" in forgotten:
        model.load_state_dict(fresh.state_dict())
    rates = [group["lr"] for group in optimizer.param_groups]
    if "optimizer" in forgotten:
        optimizer.state.clear()
    for group in optimizer.param_groups:
        group.pop("initial_lr", None)
        group["lr"] = settings.learning_rate
    scheduler = make_scheduler(optimizer, settings)
    if "scheduler" not in forgotten and scheduler is not None and saved is not None:
        scheduler.load_state_dict(saved)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    if "scaler" in forgotten and scaler is not None:
        scaler.load_state_dict(
            {
                "scale": settings.loss_scale,
                "growth_factor": 2.0,
                "backoff_factor": 0.5,
                "growth_interval": settings.scale_growth_interval,
                "_growth_tracker": 0,
            }
        )
    return scheduler
