"""The optimizer's settings in force: learning rate, momentum or beta1, beta2, weight decay."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lossdoctor.capture.record import NO_SETTINGS, Record
from lossdoctor.capture.ring import Drain

__all__ = ["SettingsReader", "momentum_of"]


_SETTINGS = ("lr", "betas", "momentum", "weight_decay")


class SettingsReader:
    """Reads the settings of one optimizer.

    `first_group` is the number of its first group among the groups of all optimizers.
    """

    def __init__(self, optimizer: Optimizer, *, first_group: int) -> None:
        self._optimizer = optimizer
        self._first_group = first_group
        self._seen: list[tuple[Any, Any, Any, Any]] = []
        """What the groups held when `_values` was made; empty where it may change without being replaced."""
        self._known: list[tuple[Any, Any, Any, Any]] = []
        self._values: dict[str, float] = {}

    def read(self, record: Record, drain: Drain, *, several: bool) -> None:
        """Note the largest of each setting over the groups; with `several` groups each learning rate too."""
        if not self.repeats(record):
            self._read(record, drain, several=several)

    def _read(self, record: Record, drain: Drain, *, several: bool) -> None:
        if not self._is_as_seen():
            groups = self._optimizer.param_groups
            found = [
                (group.get("lr"), momentum_of(group), _beta2_of(group), group.get("weight_decay")) for group in groups
            ]
            self._seen = []
            if any(isinstance(value, Tensor) for settings in found for value in settings):
                self._note_all(found, record.values, record, drain, several=several)
                return
            if found != self._known:
                self._values = {}
                self._note_all(found, self._values, record, drain, several=several)
                self._known = found
            if not any(isinstance(group.get("betas"), list) for group in groups):
                self._seen = [tuple(map(group.get, _SETTINGS)) for group in groups]  # type: ignore[misc]
        values = record.values
        if record.settings:  # of another optimizer
            values.update(record.settings)
        if values:
            record.settings = NO_SETTINGS
            for name, value in self._values.items():
                _note(values, name, value, record, drain)
        else:
            record.settings = self._values

    def repeats(self, record: Record) -> bool:
        """Note the settings of the step before, if nothing has changed. Most steps end here."""
        if record.settings or record.values or not self._is_as_seen():
            return False
        record.settings = self._values
        return True

    def _is_as_seen(self) -> bool:
        """Whether every group holds the very objects that it held before."""
        groups, seen = self._optimizer.param_groups, self._seen
        if len(groups) != len(seen):
            return False
        for group, (rate, betas, momentum, decay) in zip(groups, seen, strict=True):
            get = group.get
            if get("lr") is not rate or get("betas") is not betas:
                return False
            if get("momentum") is not momentum or get("weight_decay") is not decay:
                return False
        return True

    def _note_all(
        self,
        found: list[tuple[Any, Any, Any, Any]],
        values: dict[str, float],
        record: Record,
        drain: Drain,
        *,
        several: bool,
    ) -> None:
        for number, (rate, momentum, beta2, decay) in enumerate(found, self._first_group):
            _note(values, "learning_rate", rate, record, drain)
            if several:
                _note(values, f"learning_rate_group{number}", rate, record, drain)
            _note(values, "momentum", momentum, record, drain)
            _note(values, "beta2", beta2, record, drain)
            _note(values, "weight_decay", decay, record, drain)


def momentum_of(group: dict[str, Any]) -> Any:
    """Momentum (SGD, RMSprop) or beta1 (Adam family) of a parameter group; None where it has neither."""
    if "betas" in group:
        return group["betas"][0]
    return group.get("momentum")


def _beta2_of(group: dict[str, Any]) -> Any:
    """The decay of the mean of squared gradients, by whichever name (alpha is RMSprop's); None where there is none."""
    betas = group.get("betas")
    if betas is not None:
        return betas[1] if len(betas) > 1 else None
    return group.get("alpha") if "eps" in group and "centered" in group else group.get("beta2")


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
