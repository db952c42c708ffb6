"""The optimizer's settings in force: learning rate, momentum or beta1, weight decay."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lossdoctor.capture.record import Record
from lossdoctor.capture.ring import Drain

__all__ = ["SettingsReader", "momentum_of"]


class SettingsReader:
    """Reads the settings of one optimizer.

    `first_group` is the number of its first group among the groups of all optimizers.
    """

    def __init__(self, optimizer: Optimizer, *, first_group: int) -> None:
        self._optimizer = optimizer
        self._first_group = first_group
        self._known: list[tuple[Any, Any, Any]] = []
        self._values: dict[str, float] = {}

    def read(self, record: Record, drain: Drain, *, several: bool) -> None:
        """Note the largest of each setting over the groups; with `several` groups each learning rate too."""
        found = [
            (group.get("lr"), momentum_of(group), group.get("weight_decay")) for group in self._optimizer.param_groups
        ]
        if any(isinstance(value, Tensor) for settings in found for value in settings):
            self._note_all(found, record.values, record, drain, several=several)
            return
        if found != self._known:  # most steps have the settings of the one before
            self._values = {}
            self._note_all(found, self._values, record, drain, several=several)
            self._known = found
        values = record.values
        if not values:
            values.update(self._values)
        else:
            for name, value in self._values.items():
                _note(values, name, value, record, drain)

    def _note_all(
        self,
        found: list[tuple[Any, Any, Any]],
        values: dict[str, float],
        record: Record,
        drain: Drain,
        *,
        several: bool,
    ) -> None:
        for number, (rate, momentum, decay) in enumerate(found, self._first_group):
            _note(values, "learning_rate", rate, record, drain)
            if several:
                _note(values, f"learning_rate_group{number}", rate, record, drain)
            _note(values, "momentum", momentum, record, drain)
            _note(values, "weight_decay", decay, record, drain)


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
