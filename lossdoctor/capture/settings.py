"""The optimizer's settings in force: learning rate, momentum or beta1, weight decay."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lossdoctor.capture.record import Record
from lossdoctor.capture.ring import Drain

__all__ = ["momentum_of", "read_settings"]


def read_settings(optimizer: Optimizer, record: Record, drain: Drain, *, several: bool, first: int) -> None:
    """Note the largest of each setting over the groups; with `several` groups each learning rate too.

    `first` is the number of this optimizer's first group among the groups of all optimizers.
    """
    values = record.values
    for number, group in enumerate(optimizer.param_groups, first):
        get = group.get
        _note(values, "learning_rate", get("lr"), record, drain)
        if several:
            values.pop(f"learning_rate_group{number}", None)
            _note(values, f"learning_rate_group{number}", get("lr"), record, drain)
        betas = get("betas")
        _note(values, "momentum", get("momentum") if betas is None else betas[0], record, drain)
        _note(values, "weight_decay", get("weight_decay"), record, drain)


def momentum_of(group: dict[str, Any]) -> Any:
    """Momentum (SGD, RMSprop) or beta1 (Adam family) of a parameter group; None where it has neither."""
    if "betas" in group:
        return group["betas"][0]
    return group.get("momentum")


def _note(values: dict[str, float], name: str, value: Any, record: Record, drain: Drain) -> None:
    if value is None:
        return
    if isinstance(value, Tensor):
        drain.scalar(value, record, _largest(values, name))
        return
    known = values.get(name)
    if known is None or value > known:
        values[name] = value


def _largest(values: dict[str, float], name: str) -> Callable[[list[float]], None]:
    def arrived(numbers: list[float]) -> None:
        values[name] = max(values.get(name, numbers[0]), numbers[0])

    return arrived
