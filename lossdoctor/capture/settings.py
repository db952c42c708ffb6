"""The optimizer's settings in force: learning rate, momentum or beta1, beta2, weight decay."""

from collections.abc import Callable, Sequence
from operator import itemgetter
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
        self._seen: list[Any] = []
        """What was picked from the groups when `values` was made; empty where it may change without being replaced."""
        self._known: list[tuple[Any, Any, Any, Any]] = []
        self.values: dict[str, float] = {}
        """The settings that were noted last."""
        self._pick: Callable[[dict[str, Any]], Any] = _nothing
        """What of a group has to be as it was for `values` to hold."""

    def read(self, record: Record, drain: Drain, *, several: bool) -> None:
        """Note the largest of each setting over the groups; with `several` groups each learning rate too."""
        if not (record.settings or record.values) and self.hold(self._optimizer.param_groups):
            record.settings = self.values
        else:
            self._read(record, drain, several=several)

    def _read(self, record: Record, drain: Drain, *, several: bool) -> None:
        groups = self._optimizer.param_groups
        if not self.hold(groups):
            found = [
                (group.get("lr"), momentum_of(group), _beta2_of(group), group.get("weight_decay")) for group in groups
            ]
            self._seen = []
            if any(isinstance(value, Tensor) for settings in found for value in settings):
                self._note_all(found, record.values, record, drain, several=several)
                return
            if found != self._known:
                self.values = {}
                self._note_all(found, self.values, record, drain, several=several)
                self._known = found
            if not any(isinstance(group.get("betas"), list) for group in groups):
                self._pick = _picker(groups)
                self._seen = list(map(self._pick, groups))
        values = record.values
        if record.settings:  # of another optimizer
            values.update(record.settings)
        if values:
            record.settings = NO_SETTINGS
            for name, value in self.values.items():
                _note(values, name, value, record, drain)
        else:
            record.settings = self.values

    def hold(self, groups: list[dict[str, Any]]) -> bool:
        """Whether every group holds what it held before. Asked at every step, and mostly so."""
        try:
            return bool(list(map(self._pick, groups)) == self._seen)
        except (KeyError, RuntimeError):  # a setting is gone, or a tensor without numbers now
            return False

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


def _nothing(_: dict[str, Any]) -> None:
    return None


def _picker(groups: Sequence[dict[str, Any]]) -> Callable[[dict[str, Any]], Any]:
    """What takes the settings out of a group: in one call, where all groups have the same."""
    names = [name for name in _SETTINGS if all(name in group for group in groups)]
    if not names or any(name in group for name in _SETTINGS if name not in names for group in groups):
        return lambda group: tuple(map(group.get, _SETTINGS))
    return itemgetter(*names)


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
