"""What goes wrong: wrong data from the start, spoiled batches and losses, jumps of the learning rate."""

import math

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tests.pathologies.settings import Settings
from tests.pathologies.tasks import Examples, Task

__all__ = ["input_scale", "jump", "spoiled_batch", "spoiled_loss", "training_rows"]


def input_scale(task: Task, settings: Settings) -> float | int:
    """The factor of the inputs; codes of characters are left alone."""
    return settings.input_scale if task.train.inputs.is_floating_point() else 1


def training_rows(task: Task, settings: Settings) -> Examples:
    """The training rows as the settings want them: fewer, with wrong labels, scaled."""
    generator = torch.Generator().manual_seed(settings.seed + 3)
    rows = task.train if settings.train_rows is None else task.train[: settings.train_rows]
    inputs, targets = rows.inputs * input_scale(task, settings), rows.targets.clone()
    if task.classes is None:
        targets = targets * settings.target_scale
    if settings.label_noise:
        wrong = torch.rand(targets.shape, generator=generator) < settings.label_noise
        strangers = targets.flatten()[torch.randint(targets.numel(), targets.shape, generator=generator)]
        targets = torch.where(wrong, strangers, targets)
    return Examples(inputs, targets)


def spoiled_batch(
    batch: tuple[Tensor, Tensor], rows: Examples, settings: Settings, *, step: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The batch as the faults of this step leave it; `rows` are all training rows."""
    inputs, targets = batch
    for fault in settings.faults:
        if not fault.active(step):
            continue
        match fault.kind:
            case "nan_batch" | "inf_batch":
                inputs = inputs.clone()
                inputs.view(-1)[0] = math.nan if fault.kind == "nan_batch" else math.inf
            case "masked_batch":
                targets = torch.full_like(targets, -100)
            case "random_labels":
                targets = rows.targets[torch.randint(len(rows), (len(targets),), generator=generator)]
            case "wrong_targets":
                targets = targets * fault.magnitude
            case "bad_batch":
                targets = targets.flatten()[torch.randperm(targets.numel(), generator=generator)].view(targets.shape)
                if inputs.is_floating_point():
                    inputs = inputs * fault.magnitude
                else:
                    inputs = torch.randint(int(inputs.max()) + 1, inputs.shape, generator=generator)
            case _:
                pass
    return inputs, targets


def spoiled_loss(loss: Tensor, model: nn.Module, settings: Settings, step: int) -> Tensor:
    """The loss as the faults of this step leave it."""
    for fault in settings.faults:
        if not fault.active(step):
            continue
        if fault.kind == "loss_factor":
            loss = loss * fault.magnitude
        elif fault.kind == "loss_shift":
            loss = loss + fault.magnitude
        elif fault.kind == "weight_penalty":
            loss = loss + fault.magnitude * sum(parameter.abs().sum() for parameter in model.parameters())
        elif fault.kind == "gradient_factor":
            loss = loss.detach() + fault.magnitude * (loss - loss.detach())
        elif fault.kind == "nan_gradient":
            weight = next(parameter for parameter in model.parameters() if parameter.requires_grad)
            loss = loss + torch.sqrt((weight * 0).sum())
    return loss


def jump(
    optimizer: torch.optim.Optimizer, scheduler: lr_scheduler.LRScheduler | None, settings: Settings, step: int
) -> None:
    """Change the learning rate where a fault begins or ends, for this and all later steps of the schedule."""
    for fault in settings.faults:
        if fault.kind != "lr_factor":
            continue
        ends = fault.length is not None and step == fault.step + fault.length
        if step != fault.step and not ends:
            continue
        factor = 1 / fault.magnitude if ends else fault.magnitude
        for group in optimizer.param_groups:
            group["lr"] *= factor
        if scheduler is not None:
            scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
