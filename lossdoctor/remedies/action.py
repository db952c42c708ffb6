"""What an action is: it either is *done*, with what it changed and how to undo it, or *refused*, with the reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch.amp.grad_scaler import GradScaler

from lossdoctor.remedies.keeping.snapshots import Snapshots
from lossdoctor.remedies.knobs import OptimizerKnobs

__all__ = ["Action", "Done", "LoopClipping", "Occasion", "Patient", "Refused"]


@dataclass(slots=True)
class LoopClipping:
    """The clipping that the loop does by `monitor.clip_grad_norm_`, the only one that can be loosened.

    `asked` is the bound of its latest call, `at_least` what is used where it asks for less.
    """

    asked: float | None = None
    at_least: float = 0.0

    def bound(self, max_norm: float) -> float:
        """The bound in force where the loop asks for `max_norm`."""
        self.asked = max_norm
        return max(max_norm, self.at_least)


@dataclass(slots=True)
class Patient:
    """The training under treatment, as far as actions may touch it. `stopped` is what `should_stop` says.

    Where several processes train one model, `agree` says whether an act took place on all of them (each asks it after
    each act), and `spread` is called when weights were put back: it makes replicas equal.
    """

    knobs: Sequence[OptimizerKnobs]
    snapshots: Snapshots
    scaler: GradScaler | None = None
    clipping: LoopClipping = field(default_factory=LoopClipping)
    stopped: bool = False
    agree: Callable[[bool], bool] = lambda done: done
    spread: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Occasion:
    """When an action is taken: now at `step`, for a fault that holds since `since`.

    `tried` are steps of snapshots that were gone back to for this fault without success.
    """

    step: float
    since: float
    tried: frozenset[float] = frozenset()


@dataclass(frozen=True, slots=True)
class Done:
    """An action took place: `changes` maps a knob to (old, new), `undo` puts everything back as it was.

    `revert`, where there is one, is the part of the inverse that still makes sense steps later: knobs, not weights.
    """

    changes: dict[str, tuple[float, float]]
    undo: Callable[[], None]
    revert: Callable[[], None] | None = None
    rewound_to: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An action did not take place."""

    reason: str


Action: TypeAlias = Callable[[Patient, Mapping[str, float], Occasion], Done | Refused]
