"""Small trainings for the tests of remedies: bare loops, no Monitor."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lossdoctor.findings import Finding, Prescription
from lossdoctor.judging import Standing
from lossdoctor.remedies import Remediator
from lossdoctor.runs.events import Intervention

NAN = float("nan")

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd_momentum_fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "sgd_momentum_foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "sgd_tensor_lr": lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1), momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam_tensor_lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw_fused_tensor_lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), fused=True),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1),
}


def network(*, norm: bool = False, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    middle: list[nn.Module] = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step, the same whatever happened before."""
    source = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(16, 4, generator=source)
    return x, x.sum(1, keepdim=True)


@dataclass
class Patient:
    """A network in training under a Remediator."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    remediator: Remediator
    written: list[Intervention] = field(default_factory=list)
    step: int = 0
    losses: list[float] = field(default_factory=list)

    def train(self, steps: int, *, bad: frozenset[int] = frozenset(), scale: float = 1.0) -> None:
        """Plain steps; at those in `bad` the batch holds a NaN."""
        for _ in range(steps):
            self.step += 1
            x, y = batch(self.step)
            if self.step in bad:
                x = x * NAN
            self.optimizer.zero_grad()
            loss = scale * nn.functional.mse_loss(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
            self.remediator.after_step(self.step, finite=bool(loss.isfinite()))

    @property
    def outcomes(self) -> list[tuple[str, str, str]]:
        """(rule, action, outcome) of each intervention, as last written."""
        latest = {one.id: one for one in self.written}
        return [(one.rule, one.action, one.outcome) for one in latest.values()]


def admit(
    optimizer: str | Callable[[list[nn.Parameter]], torch.optim.Optimizer] = "sgd",
    *,
    model: nn.Module | None = None,
    **options: object,
) -> Patient:
    model = network() if model is None else model
    make = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    made = make(list(model.parameters()))
    written: list[Intervention] = []
    remediator = Remediator(model=model, optimizers=[made], record=written.append, **options)
    return Patient(model, made, remediator, written)


def values_of(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def prescribe(
    *actions: tuple[str, dict[str, float]], verify: str | None = None, within: int | None = None
) -> list[Prescription]:
    return [
        Prescription(advice="", action=name, applicability="safe", arguments=arguments, verify=verify, within=within)
        for name, arguments in actions
    ]


def finding(
    rule: str = "exploding_gradient",
    *actions: tuple[str, dict[str, float]],
    since: float = 10,
    severity: str = "error",
    category: str = "healthy",
    verify: str | None = None,
    within: int | None = None,
    clock: str = "step",
) -> Finding:
    return Finding(
        rule=rule,
        title=rule,
        family="stability",
        category=category,
        severity=severity,
        clock=clock,
        since=since,
        detected=since,
        message=f"{rule}!",
        prescriptions=prescribe(*actions, verify=verify, within=within),
    )


@dataclass
class Judge:
    """A diagnoser that says what the test wants. Every rule ticks when `tick` is called."""

    ill: set[str] = field(default_factory=set)
    holds: bool | None = False
    count: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    peak: float = NAN

    def tick(self, ticks: int = 1) -> "Judge":
        self.count += ticks
        return self

    def verified(self, rule: str, verify: str) -> bool | None:
        return self.holds

    def active(self, rule: str) -> bool:
        return rule in self.ill

    def ticks(self, rule: str) -> int:
        return self.count

    def measured(self, rule: str) -> dict[str, float]:
        return self.numbers

    def badness(self, rule: str) -> float:
        return self.peak

    def standing(self) -> dict[str, Standing]:
        return {rule: Standing(True, self.count) for rule in self.ill}
