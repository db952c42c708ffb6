"""Reading losses in host memory: at once, or cheaper, many at a time, where the loop lets them be."""

import torch
from torch import Tensor

from lossdoctor.capture.record import Record

__all__ = ["LossWatch"]

_PROBATION = 64


class LossWatch:
    """Reads losses later if the loop allows it.

    Reading a number at once costs four times as much as keeping its tensor and reading hundreds together. That is only
    right as long as the loop does not change the tensor in place, as `total = loss.detach()` and `total += loss` do.
    So losses are read at once for 64 steps, and for ever if one of them was changed after it was reported.
    """

    def __init__(self) -> None:
        self.is_patient = False
        """Whether losses may be read later."""
        self._changed = False
        self.kept: list[tuple[Tensor, int, Record]] = []
        """Losses of no dimensions, in host memory, with their versions, the only sign of a change, and records."""

    def watch(self, loss: Tensor, record: Record) -> None:
        """Take note of a loss that is read at once."""
        if not self._changed:
            self.keep(loss, record)
            if len(self.kept) >= _PROBATION:
                self._changed = any(kept._version != version for kept, version, _ in self.kept)  # noqa: SLF001
                self.is_patient = not self._changed
                self.kept = []

    def keep(self, loss: Tensor, record: Record) -> None:
        """Keep a loss of no dimensions, in host memory, to be read by `read`."""
        kept = loss.detach()
        self.kept.append((kept, kept._version, record))  # noqa: SLF001 - the only sign of a change

    def read(self) -> None:
        """Give the records their losses. One that was changed is lost, and ends the patience."""
        if not self.is_patient or not self.kept:
            return
        kept, self.kept = self.kept, []
        numbers: list[float] = torch.stack([loss for loss, _, _ in kept]).double().numpy().tolist()
        for number, (loss, version, record) in zip(numbers, kept, strict=True):
            if loss._version == version:  # noqa: SLF001
                record.losses.append(number)
            else:
                self._changed, self.is_patient = True, False
