"""Reading losses in host memory: at once, or cheaper, many at a time, where the loop lets them be."""

from torch import Tensor

from lossdoctor.capture.record import Record

__all__ = ["LossWatch"]

_PROBATION = 64


class LossWatch:
    """Whether a loss may be read some steps after it was reported.

    Reading a number at once costs four times as much as keeping its tensor and reading hundreds together. That is only
    right as long as the loop does not change the tensor in place, as `total = loss.detach()` and `total += loss` do.
    So losses are read at once for 64 steps, and for ever if one of them was changed after it was reported.
    """

    def __init__(self) -> None:
        self.is_patient = False
        """Whether losses may be read later."""
        self._changed = False
        self._kept: list[tuple[Tensor, int, Record]] = []

    def keep(self, loss: Tensor, record: Record) -> Tensor:
        """The loss without its graph; whether it is changed from now on will be seen."""
        kept = loss.detach()
        if not self._changed:
            self._kept.append((kept, kept._version, record))  # noqa: SLF001 - the only sign of a change
            if not self.is_patient and len(self._kept) >= _PROBATION:
                self.changed()
                self.is_patient = not self._changed
        return kept

    def changed(self) -> list[Record]:
        """The records of losses that were changed since they were reported; the others are forgotten."""
        kept, self._kept = self._kept, []
        found = [record for loss, version, record in kept if loss._version != version]  # noqa: SLF001
        if found:
            self._changed, self.is_patient = True, False
        return found
