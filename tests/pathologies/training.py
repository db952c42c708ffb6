"""The one training loop of the corpus: every recipe is this loop with other settings and other faults.

It is written as a user would write it, with lossdoctor's Monitor in the obvious place.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.pathologies.burdens import Burden, Load
from tests.pathologies.faults import input_scale, jump, spoiled_batch, spoiled_loss, training_rows
from tests.pathologies.optimizers import advance, make_optimizer, make_scheduler, moving_average
from tests.pathologies.resuming import resumed
from tests.pathologies.settings import Settings
from tests.pathologies.tasks import Examples, Task

__all__ = ["Batches", "Outcome", "Unmonitored", "Watch", "evaluate", "train"]

_WEIGHTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class Outcome:
    """What a careful reader of the curves needs: losses by backward pass, evaluations as (step, loss, accuracy)."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float, float | None]] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, float, float | None]:
        """The evaluation of the lowest validation loss."""
        return min(self.evaluations, key=lambda row: row[1] if math.isfinite(row[1]) else math.inf)


class Watch(Protocol):
    """The part of lossdoctor.Monitor that the loop uses."""

    @property
    def should_stop(self) -> bool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> bool | None: ...
    def batches(self, loader: Iterable[Any], *, split: Literal["train", "val"] = "train") -> Iterable[Any]: ...
    def step(self, loss: Tensor, **also: Any) -> None: ...
    def evaluation(self, **values: float) -> None: ...
    def clip_grad_norm_(self, max_norm: float) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Unmonitored:
    """Stands where a Monitor would, and does nothing: for comparing a training with its unmonitored self."""

    should_stop = False

    def __init__(self, model: nn.Module, _optimizer: torch.optim.Optimizer, **_settings: object) -> None:
        self._model = model

    def __enter__(self) -> Self:
        """The object itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing to close."""

    def batches(self, loader: Iterable[Any], *, split: str = "train") -> Iterable[Any]:
        """The loader itself."""
        return loader

    def step(self, loss: Tensor, **also: object) -> None:
        """Nothing."""

    def evaluation(self, **values: float) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """As torch clips."""
        return nn.utils.clip_grad_norm_(self._model.parameters(), max_norm)


class Batches:
    """One epoch after another of shuffled batches; each `iter` is an epoch, drawn from its own generator."""

    def __init__(self, examples: Examples, batch_size: int, *, drop_last: bool, seed: int) -> None:
        self._examples = examples
        self._batch_size = min(batch_size, len(examples))
        self._drop_last = drop_last
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch."""
        order = torch.randperm(len(self._examples), generator=self._generator)
        for rows in order.split(self._batch_size):
            if self._drop_last and len(rows) < self._batch_size:
                return
            batch = self._examples[rows]
            yield batch.inputs, batch.targets


def train(
    task: Task,
    settings: Settings,
    *,
    monitor: Callable[..., Watch] = Unmonitored,
    after_step: Callable[[int], None] | None = None,
) -> Outcome:
    """Train `task` as `settings` say, under the Monitor that `monitor(model, optimizer, ...)` makes.

    The result depends on the arguments alone (torch's global generator is seeded here). `after_step` is told each step.
    """
    torch.manual_seed(settings.seed)
    model = _model(task, settings)
    optimizer = make_optimizer(task.build() if settings.stale_optimizer else model, settings)
    scheduler = make_scheduler(optimizer, settings)
    scaler = (
        torch.amp.GradScaler("cpu", init_scale=settings.loss_scale, growth_interval=settings.scale_growth_interval)
        if settings.precision == "fp16" and settings.scaled
        else None
    )
    rows = training_rows(task, settings)
    load = Load(settings.burden or Burden(), model)
    batches = _loader(rows, settings) if settings.burden is None else load.batches(_loader(rows, settings))
    spoiler = torch.Generator().manual_seed(settings.seed + 2)
    outcome = Outcome()
    average = moving_average(model, settings)
    step = micro = 0
    with monitor(
        model,
        optimizer,
        scheduler=scheduler,
        scaler=scaler,
        total_steps=settings.steps,
        config={"task": task.name, "classes": task.classes, **asdict(settings)},
    ) as watched:
        while step < settings.steps and not watched.should_stop:
            model.train()
            advance(scheduler, settings, after="epoch", step=step)
            for batch in watched.batches(batches):
                inputs, targets = spoiled_batch(batch, rows, settings, step=step + 1, generator=spoiler)
                with _autocast(settings):
                    scores = model(_as_weights(inputs, settings))
                loss = spoiled_loss(task.loss(scores.float(), targets), model, settings, step + 1)
                share = loss / settings.accumulation
                (share if scaler is None else scaler.scale(share)).backward()
                micro += 1
                outcome.losses.append(loss.item())
                if micro == settings.accumulation:
                    step, micro = step + 1, 0
                    jump(optimizer, scheduler, settings, step)
                    if settings.steps_optimizer and (math.isfinite(outcome.losses[-1]) or not settings.skip_bad_losses):
                        _update(model, optimizer, scaler, settings, watched)
                    if settings.zero_grad == "each step":
                        optimizer.zero_grad()
                    if average is not None:
                        average.update_parameters(model)
                    advance(scheduler, settings, after="step", step=step)
                    load.stepped(step)
                _report(watched, task, loss if settings.reported == 1 else loss * settings.reported, scores, targets)
                if micro:
                    continue
                if after_step is not None:
                    after_step(step)
                if step % settings.evaluate_every == 0 or step == settings.steps:
                    judged = model if average is None else average.module
                    values = evaluate(task, judged, settings, watched)
                    outcome.evaluations.append((step, values["loss"], values.get("accuracy")))
                    watched.evaluation(**values)
                    model.train()
                if step == settings.resume_at:
                    scheduler = resumed(model, optimizer, scheduler, scaler, settings, fresh=task.build())
                    watched.load_state_dict(watched.state_dict())
                if step == settings.steps or watched.should_stop:
                    break
    return outcome


def _loader(rows: Examples, settings: Settings) -> Iterable[Any]:
    """What the epochs' batches are drawn from."""
    seed = settings.seed + 1
    if settings.loader == "tensors":
        return Batches(rows, settings.batch_size, drop_last=settings.drop_last, seed=seed)
    return DataLoader(
        TensorDataset(rows.inputs, rows.targets),
        batch_size=settings.batch_size,
        shuffle=settings.loader == "dataloader",
        drop_last=settings.drop_last,
        generator=torch.Generator().manual_seed(seed),
    )


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, settings: Settings, watched: Watch | None = None) -> dict[str, float]:
    """Mean loss, and accuracy where the task has one, over the whole validation set, as one batch or as several."""
    model.eval()
    inputs = task.validation.inputs * input_scale(task, settings)
    if settings.evaluation_scale != 1:
        inputs = inputs * settings.evaluation_scale
    targets = task.validation.targets * settings.target_scale if task.classes is None else task.validation.targets
    if settings.evaluation_offset:
        targets = targets + settings.evaluation_offset
    parts: Iterable[Any] = [(inputs, targets)]
    if settings.evaluation_batch is not None and watched is not None:
        parts = watched.batches(DataLoader(TensorDataset(inputs, targets), batch_size=settings.evaluation_batch))
    elif settings.watch_validation and watched is not None:
        parts = watched.batches(DataLoader(TensorDataset(inputs, targets), batch_size=256), split="val")
    values: dict[str, float] = {}
    for some_inputs, some_targets in parts:
        with _autocast(settings):
            scores = model(_as_weights(some_inputs, settings))
        found = {"loss": task.loss(scores.float(), some_targets).item()}
        if task.accuracy is not None:
            found["accuracy"] = task.accuracy(scores.float(), some_targets).item()
        for name, value in found.items():
            values[name] = values.get(name, 0.0) + value * (len(some_targets) / len(targets))
    if settings.evaluation_sums:
        values["loss"] *= len(targets)
    return values


def _report(watched: Watch, task: Task, loss: Tensor, scores: Tensor, targets: Tensor) -> None:
    """What the loop tells the Monitor after a backward pass."""
    told: dict[str, Any] = {"samples": len(targets)}
    if task.tokens_per_row is not None:
        told["tokens"] = targets.numel()
    if task.accuracy is not None:
        told["metrics"] = {"accuracy": task.accuracy(scores.detach().float(), targets)}
    watched.step(loss, **told)


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    settings: Settings,
    watched: Watch,
) -> None:
    """One optimizer step with what belongs around it: unscaling, clipping, the scaler's word."""
    if scaler is not None and settings.clip is not None and not settings.clip_scaled:
        scaler.unscale_(optimizer)
    if settings.zero_grad == "before the step":
        model.zero_grad()
    if settings.mend_gradients:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    if settings.clip is not None:
        if settings.clip_with == "monitor":
            watched.clip_grad_norm_(settings.clip)
        else:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _model(task: Task, settings: Settings) -> nn.Module:
    """A fresh model as the settings want it: its dtype, BatchNorm's memory, what is frozen."""
    model = task.build().to(_WEIGHTS[settings.weights])
    for module in model.modules():
        if settings.batch_norm_momentum is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = settings.batch_norm_momentum
    for parameter in list(model.parameters())[: settings.frozen]:
        parameter.requires_grad_(requires_grad=False)
    return model


def _as_weights(inputs: Tensor, settings: Settings) -> Tensor:
    """Inputs in the dtype of the weights; codes of characters as they are."""
    return inputs.to(_WEIGHTS[settings.weights]) if inputs.is_floating_point() else inputs


def _autocast(settings: Settings) -> AbstractContextManager[object]:
    if settings.precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float16)
