"""The one training loop of the corpus: every recipe is this loop with other settings and other faults.

It is written as a user would write it, with lossdoctor's Monitor in the obvious place. A fault is injected by `Fault`:
what happens, from which step, how hard, for how long.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tests.pathologies.tasks import Examples, Task

__all__ = ["Batches", "Fault", "Lion", "Outcome", "Settings", "Unmonitored", "Watch", "evaluate", "train"]

FaultKind: TypeAlias = Literal[
    "nan_batch",  # one input value is NaN
    "inf_batch",  # one input value is infinite
    "masked_batch",  # every target is to be ignored: the mean over nothing is NaN
    "bad_batch",  # inputs times the magnitude (text: random characters), targets permuted
    "wrong_targets",  # regression targets times the magnitude
    "nan_gradient",  # the square root of zero joins the loss: the value is finite, one layer's gradient is not
    "lr_factor",  # the learning rate times the magnitude, for good or for `length` steps
    "random_labels",  # targets of other rows, drawn anew for each batch: inputs say nothing about them
    "loss_factor",  # the loss times the magnitude
    "gradient_factor",  # the gradient times the magnitude, the loss as it was: an op with a wrong backward
]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at `step` (from 1), for `length` steps (None: to the end)."""

    kind: FaultKind
    step: int = 1
    magnitude: float = 1.0
    length: int | None = None

    def active(self, step: int) -> bool:
        """Whether the fault holds at this step."""
        return self.step <= step and (self.length is None or step < self.step + self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. Lengths are optimizer steps, shares are of `steps`."""

    steps: int
    batch_size: int = 64
    evaluate_every: int = 20
    seed: int = 0
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "fused_adamw", "rmsprop", "adagrad", "lion"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    schedule: Literal[
        "constant", "warmup_cosine", "cosine", "onecycle", "step", "linear", "exponential", "restarts"
    ] = "warmup_cosine"
    warmup: float = 0.05
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Where the "step" schedule multiplies the learning rate by `gamma`, as shares of the run."""
    gamma: float = 0.1
    clip: float | None = None
    clip_with: Literal["torch", "monitor"] = "torch"
    clip_scaled: bool = False
    """Clip before the scaler unscaled the gradients: the classic mistake."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    loss_scale: float = 2.0**16
    scale_growth_interval: int = 2000
    accumulation: int = 1
    drop_last: bool = False
    train_rows: int | None = None
    """Use only so many training rows."""
    label_noise: float = 0.0
    """Share of training labels that are drawn at random, once."""
    input_scale: float = 1.0
    target_scale: float = 1.0
    frozen: int = 0
    """The first so many parameter tensors do not require a gradient."""
    stale_optimizer: bool = False
    """The optimizer was built for a copy of the model: nothing ever moves."""
    mend_gradients: bool = False
    """The loop replaces non-finite gradients by zero before it steps."""
    skip_bad_losses: bool = False
    """The loop leaves out the update where the loss is not finite."""
    faults: tuple[Fault, ...] = ()


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
    def batches(self, loader: Iterable[Any]) -> Iterable[Any]: ...
    def step(self, loss: Tensor, **also: Any) -> None: ...
    def evaluation(self, **values: float) -> None: ...
    def clip_grad_norm_(self, max_norm: float) -> Any: ...


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

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The loader itself."""
        return loader

    def step(self, loss: Tensor, **also: object) -> None:
        """Nothing."""

    def evaluation(self, **values: float) -> None:
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
    model = task.build()
    for parameter in list(model.parameters())[: settings.frozen]:
        parameter.requires_grad_(requires_grad=False)
    optimizer = _optimizer(task.build() if settings.stale_optimizer else model, settings)
    scheduler = _scheduler(optimizer, settings)
    scaler = (
        torch.amp.GradScaler("cpu", init_scale=settings.loss_scale, growth_interval=settings.scale_growth_interval)
        if settings.precision == "fp16"
        else None
    )
    rows = _training_rows(task, settings)
    batches = Batches(rows, settings.batch_size, drop_last=settings.drop_last, seed=settings.seed + 1)
    spoiler = torch.Generator().manual_seed(settings.seed + 2)
    outcome = Outcome()
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
            for batch in watched.batches(batches):
                inputs, targets = _spoiled(batch, rows, settings, step=step + 1, generator=spoiler)
                with _autocast(settings):
                    scores = model(inputs)
                loss = _spoiled_loss(task.loss(scores.float(), targets), model, settings, step + 1)
                share = loss / settings.accumulation
                (share if scaler is None else scaler.scale(share)).backward()
                micro += 1
                outcome.losses.append(loss.item())
                if micro == settings.accumulation:
                    step, micro = step + 1, 0
                    _jump(optimizer, scheduler, settings, step)
                    if math.isfinite(outcome.losses[-1]) or not settings.skip_bad_losses:
                        _update(model, optimizer, scaler, settings, watched)
                    optimizer.zero_grad()
                    if scheduler is not None and step < settings.steps:
                        _advance(scheduler)
                _report(watched, task, loss, scores, targets)
                if micro:
                    continue
                if after_step is not None:
                    after_step(step)
                if step % settings.evaluate_every == 0 or step == settings.steps:
                    values = evaluate(task, model, settings)
                    outcome.evaluations.append((step, values["loss"], values.get("accuracy")))
                    watched.evaluation(**values)
                    model.train()
                if step == settings.steps or watched.should_stop:
                    break
    return outcome


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, settings: Settings) -> dict[str, float]:
    """Mean loss, and accuracy where the task has one, over the whole validation set."""
    model.eval()
    with _autocast(settings):
        scores = model(task.validation.inputs * _input_scale(task, settings))
    targets = task.validation.targets * settings.target_scale if task.classes is None else task.validation.targets
    values = {"loss": task.loss(scores.float(), targets).item()}
    if task.accuracy is not None:
        values["accuracy"] = task.accuracy(scores.float(), targets).item()
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


# ---------------------------------------------------------------------------------------------------- what is used


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


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
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


def _scheduler(optimizer: torch.optim.Optimizer, settings: Settings) -> lr_scheduler.LRScheduler | None:
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


def _advance(scheduler: lr_scheduler.LRScheduler) -> None:
    """Step the schedule; torch's warning about a scaler that skipped the first update is no news here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        scheduler.step()


def _autocast(settings: Settings) -> AbstractContextManager[object]:
    if settings.precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float16)


def _input_scale(task: Task, settings: Settings) -> float | int:
    """The factor of the inputs; codes of characters are left alone."""
    return settings.input_scale if task.train.inputs.is_floating_point() else 1


def _training_rows(task: Task, settings: Settings) -> Examples:
    """The training rows as the settings want them: fewer, with wrong labels, scaled."""
    generator = torch.Generator().manual_seed(settings.seed + 3)
    rows = task.train if settings.train_rows is None else task.train[: settings.train_rows]
    inputs, targets = rows.inputs * _input_scale(task, settings), rows.targets.clone()
    if task.classes is None:
        targets = targets * settings.target_scale
    if settings.label_noise:
        wrong = torch.rand(targets.shape, generator=generator) < settings.label_noise
        strangers = targets.flatten()[torch.randint(targets.numel(), targets.shape, generator=generator)]
        targets = torch.where(wrong, strangers, targets)
    return Examples(inputs, targets)


# ------------------------------------------------------------------------------------------------- what goes wrong


def _spoiled(
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


def _spoiled_loss(loss: Tensor, model: nn.Module, settings: Settings, step: int) -> Tensor:
    """The loss as the faults of this step leave it."""
    for fault in settings.faults:
        if not fault.active(step):
            continue
        if fault.kind == "loss_factor":
            loss = loss * fault.magnitude
        elif fault.kind == "gradient_factor":
            loss = loss.detach() + fault.magnitude * (loss - loss.detach())
        elif fault.kind == "nan_gradient":
            weight = next(parameter for parameter in model.parameters() if parameter.requires_grad)
            loss = loss + torch.sqrt((weight * 0).sum())
    return loss


def _jump(
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
