"""The doctor's account: every intervention is written when it happens and again when its outcome is known."""

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from lossdoctor.runs.events import Intervention, Outcome

__all__ = ["Ledger"]

logger = logging.getLogger(__name__)


class Ledger:
    """Numbers, dates, logs and passes on interventions. `step` is the present step."""

    def __init__(self, record: Callable[[Intervention], None]) -> None:
        self._record = record
        self.step = 0.0
        self.next_id = 1

    def write(
        self,
        rule: str,
        action: str,
        reason: str,
        changes: dict[str, tuple[float, float]],
        *,
        outcome: Outcome = "pending",
    ) -> Intervention:
        """An intervention has just been made, and its outcome is pending; or it is only "proposed"."""
        intervention = Intervention(
            id=self.next_id,
            step=self.step,
            time=time.time(),
            rule=rule,
            action=action,
            reason=reason,
            changes=changes,
            outcome=outcome,
        )
        self.next_id += 1
        told = ", ".join(f"{name} {old:.4g} → {new:.4g}" for name, (old, new) in changes.items())
        logger.warning("step %.0f: %s: %s (%s)", self.step, rule, action, told)
        self._record(intervention)
        return intervention

    def settle(
        self,
        intervention: Intervention,
        outcome: Outcome,
        why: str,
        effect: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> None:
        """The outcome of an intervention is known; `effect` has the numbers behind its finding, before and after."""
        logger.info(
            "step %.0f: %s: %s of step %.0f: %s: %s",
            self.step,
            intervention.rule,
            intervention.action,
            intervention.step,
            outcome,
            why,
        )
        changed = msgspec.structs.replace(intervention, outcome=outcome, outcome_reason=why, effect=dict(effect))
        self._record(msgspec.structs.replace(changed, settled=self.step))
