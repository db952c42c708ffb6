"""Actions that put earlier weights in place: going back to before a fault, and ending with the best."""

from collections.abc import Mapping

from lossdoctor.remedies.action import Done, Occasion, Patient, Refused

__all__ = ["early_stop", "rewind"]


def rewind(patient: Patient, arguments: Mapping[str, float], occasion: Occasion) -> Done | Refused:
    """Go back to the newest verified snapshot that is older than the fault; counters, LR and data order go on.

    Where a rule knows of an earlier step at which all was well, it says so by `before`. A snapshot that was gone back
    to in vain is used again only if there is no older one.
    """
    snapshots = patient.snapshots
    since = occasion.since
    if "before" in arguments:
        since = max(min(since, arguments["before"]), 1.0)  # the first snapshot is always old enough
    snapshot = snapshots.before(since, other_than=occasion.tried) or snapshots.before(since)
    if snapshot is None:
        return Refused(f"there is no verified snapshot from before step {since:.0f}")
    before = snapshots.copy(occasion.step)
    snapshots.restore(snapshot)
    changes = {"weights": (occasion.step, snapshot.step)}
    return Done(changes, lambda: snapshots.restore(before), rewound_to=snapshot.step)


def early_stop(patient: Patient, _: Mapping[str, float], occasion: Occasion) -> Done | Refused:
    """Put the best weights in place, then ask the loop to stop."""
    snapshots = patient.snapshots
    best = snapshots.best_of_all()
    if best is None:
        return Refused("there are no best weights: no evaluation with a finite val_loss was reported to this process")
    before = snapshots.copy(occasion.step)

    def undo() -> None:
        patient.stopped = False
        snapshots.restore(before)

    snapshots.restore(best)
    patient.stopped = True
    return Done({"weights": (occasion.step, best.step)}, undo)
