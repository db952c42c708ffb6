"""The best weights of a run: which they are, and when a run is left with them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lossdoctor.findings import Finding
from lossdoctor.remedies.keeping.snapshots import Snapshots
from lossdoctor.remedies.policy import Policy

__all__ = ["Best", "BestWeights"]


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far: its step, and its validation loss or whatever else `metric` names."""

    step: float
    value: float
    metric: str = "val_loss"


class BestWeights:
    """Keeps the weights of the best evaluation by the policy's metric. NaN is never best."""

    def __init__(self, snapshots: Snapshots, policy: Policy) -> None:
        self._snapshots, self._policy = snapshots, policy
        self.best: Best | None = None
        """The best evaluation with a finite value."""
        self._latest = Best(-1.0, math.nan)

    def evaluated(self, step: float, values: Mapping[str, float]) -> None:
        """After an evaluation: keep the weights if they are the best so far."""
        value = values.get(self._policy.best_by, math.nan)
        self._latest = Best(step, value)
        if math.isfinite(value) and (self.best is None or self._policy.is_better(value, self.best.value)):
            self._note(step, value, is_kept=self._snapshots.take_best(step, value))

    def adopt(self, step: float, value: float) -> None:
        """Keep the weights as the best, if they are finite, as rank 0 has found them to be."""
        self._note(step, value, is_kept=self._snapshots.adopt_best(step, value))

    def _note(self, step: float, value: float, *, is_kept: bool) -> None:
        if is_kept:
            self.best = Best(step, value, self._policy.best_by)
        elif self._snapshots.best is None:  # those that were the best had to go
            self.best = None

    def why_to_be_left(self, step: float, ill: Mapping[str, Finding]) -> str | None:
        """Why a run that ends after `step` with findings that go on should be left with its best weights; None if not.

        Where the last evaluation was of the weights of `step` its value decides. Where nothing is known of them, only a
        run that is unstable to the end is taken to be worse than it was.
        """
        if not ill or self.best is None:
            return None
        latest = self._latest
        if latest.step < step:
            worse = any(one.category == "unstable" and one.severity == "error" for one in ill.values())
        else:
            worse = not math.isfinite(latest.value) or self._policy.is_better(self.best.value, latest.value)
        if not worse:
            return None
        metric = self._policy.best_by
        now = f"{metric} is {latest.value:.4g}" if latest.step >= step else f"{metric} was not measured again"
        return f"the run ends while this goes on: {now}, it was {self.best.value:.4g} at step {self.best.step:.0f}."

    def state_dict(self) -> dict[str, Any] | None:
        """Step and value, as plain numbers."""
        return None if self.best is None else asdict(self.best)

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """The best value of another process is known, its weights are not: only a better evaluation can replace it."""
        self.best = None if state is None else Best(**state)
