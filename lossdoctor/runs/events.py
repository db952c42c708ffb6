"""What happened to a run besides its numbers: interventions of the doctor, marks, findings as they appeared."""

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Event", "FindingEvent", "Intervention", "Mark", "Outcome"]

Outcome: TypeAlias = Literal["pending", "kept", "reverted", "failed", "proposed", "tried"]
"""What became of an intervention.

"proposed" was never made: a dry run says what it would have done. "tried" was put back at once: treatments were run
side by side to choose between them.
"""


class Intervention(msgspec.Struct, frozen=True, kw_only=True, tag="intervention", tag_field="kind"):
    """One occasion on which the doctor acted on a training.

    It is written twice under one `id`: when it is applied (outcome "pending") and when it is settled; the later line
    wins. `changes` maps a knob ("learning_rate", "max_norm", "weights") to [old, new].
    """

    id: int
    step: float
    time: float
    rule: str
    action: str
    reason: str
    changes: dict[str, tuple[float, float]] = {}
    outcome: Outcome = "pending"
    outcome_reason: str = ""
    settled: float | None = None
    """The step at which the outcome was known."""
    effect: dict[str, tuple[float, float]] = {}
    """The numbers behind the finding: as they were when it was found, and when the outcome was known."""


class Mark(msgspec.Struct, frozen=True, kw_only=True, tag="mark", tag_field="kind"):
    """A moment worth naming: an epoch, a resume, a checkpoint, an exception.

    On a resume, rows in segments before `segment` whose step is beyond `step` are superseded.
    """

    name: Literal["epoch", "resume", "checkpoint", "exception", "stop"]
    step: float
    time: float
    detail: str = ""
    segment: int | None = None


class FindingEvent(msgspec.Struct, frozen=True, kw_only=True, tag="finding", tag_field="kind"):
    """A finding as it appeared while the training ran: for people, never read back as truth.

    `step` and `time` say when it was written; `since` and `detected` are the finding's own.
    """

    rule: str
    severity: str
    since: float
    detected: float
    message: str
    step: float
    time: float


Event: TypeAlias = Mark | Intervention | FindingEvent
