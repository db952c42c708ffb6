"""What the doctor may do in `auto`: the user's policy."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lossdoctor.directions import higher_is_better
from lossdoctor.errors import UsageError, nearest
from lossdoctor.remedies.forks import LEAST_STEPS
from lossdoctor.remedies.keeping.places import PLACES, Wanted
from lossdoctor.rule import ACTIONS

__all__ = ["Policy", "Proposal"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A treatment that is about to be applied: for finding `rule` at `step`, its actions with their numbers."""

    rule: str
    reason: str
    step: float
    actions: tuple[tuple[str, Mapping[str, float]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `Monitor(remediate="auto", policy=Policy(...))` may do.

    Raises:
        UsageError: An action does not exist, a number is out of range, or the direction of `best_by` is not known.
    """

    actions: Iterable[str] | None = None
    """The actions that are allowed; None for all. Without "skip_step" non-finite steps reach the weights."""
    budget: int = 8
    """Treatments in one run; skipped steps are not counted."""
    cool_down: int = 32
    """Steps after a kept treatment in which only errors are treated; a twentieth of the steps so far, if more."""
    bad_in_a_row: int = 8
    """Non-finite steps in a row that are just skipped; one more, and the run is rewound with a lower learning rate."""
    hopeless: int = 64
    """Non-finite steps in a row after which the run is asked to stop."""
    generations: int = 5
    """Snapshots kept, the first of the run among them."""
    snapshots: Wanted = "auto"
    """Where they are kept: "memory", "disk" (unnamed files in the run directory), or "auto": in memory, but on disk
    where half of the free memory does not hold all of them and half of the free disk space holds more."""
    best_by: str = "val_loss"
    """The value of an evaluation by which the best weights are chosen: "val_" and the name it is reported by."""
    higher_is_better: bool | None = None
    """The direction of `best_by`; None where its name tells (losses and errors low, accuracies and scores high)."""
    best_at_end: bool = True
    """Leave a run that ends ill with its best weights, if those it ends with are worse; early_stop must be allowed."""
    trial_steps: int = 64
    """Steps for each treatment where a Monitor was given a `train_step` to choose between several by; at least 16."""
    dry_run: bool = False
    """Change nothing; log and record what would be done."""
    before_act: Callable[[Proposal], bool | None] | None = None
    """Called before each treatment; False vetoes it. One that raises vetoes, too."""

    def __post_init__(self) -> None:
        """Check the values."""
        for action in self.actions or ():
            if action not in ACTIONS:
                raise UsageError(f"Policy(actions=...): there is no action '{action}'{nearest(action, ACTIONS)}")
        if self.actions is not None:
            object.__setattr__(self, "actions", frozenset(self.actions))
        for name in ("budget", "cool_down", "bad_in_a_row"):
            if getattr(self, name) < 0:
                raise UsageError(f"Policy({name}={getattr(self, name)}): must not be negative")
        if self.hopeless <= self.bad_in_a_row:
            raise UsageError(f"Policy(hopeless={self.hopeless}): must be above bad_in_a_row ({self.bad_in_a_row})")
        if self.trial_steps < LEAST_STEPS:
            raise UsageError(f"Policy(trial_steps={self.trial_steps}): fewer than {LEAST_STEPS} tell nothing apart")
        if self.generations < 2:  # noqa: PLR2004 - the first of the run and the newest
            raise UsageError(f"Policy(generations={self.generations}): at least 2, the first of the run and the newest")
        if self.snapshots not in PLACES:
            raise UsageError(
                f"Policy(snapshots={self.snapshots!r}): expected one of {', '.join(PLACES)}"
                f"{nearest(str(self.snapshots), PLACES)}"
            )
        if self.higher_is_better is None:
            object.__setattr__(self, "higher_is_better", _direction(self.best_by))

    def allows(self, action: str) -> bool:
        """Whether an action may be taken."""
        return self.actions is None or action in frozenset(self.actions)

    def is_better(self, value: float, than: float) -> bool:
        """Whether one value of `best_by` is better than another."""
        return value > than if self.higher_is_better else value < than


def _direction(name: str) -> bool:
    """The direction of a metric by the words of its name."""
    known = higher_is_better(name)
    if known is None:
        raise UsageError(
            f"Policy(best_by='{name}'): whether more of it is better cannot be told from the name; add higher_is_better"
        )
    return known
