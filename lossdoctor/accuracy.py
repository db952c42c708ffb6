"""How often each rule was right where that was measured: figures that ship with the rules."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from lossdoctor.rulebook import rules_directory

__all__ = ["Accuracy", "Measured", "load_accuracy"]

_FILE = "accuracy.json"


class Measured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured of one rule, in trainings.

    `runs` trainings had its fault; in `found` of them it, or another name the label accepts, was among the findings,
    in `right` it was the verdict. `false_alarms` are healthy trainings on which the rule raised a warning or an error,
    `strays` trainings with another fault on which it did so wrongly. `delay` is the median number of steps from the
    onset of the fault to its detection, None where no onset is known.
    """

    runs: int
    found: int
    right: int
    false_alarms: int
    strays: int
    delay: float | None = None

    def sentence(self, healthy: int) -> str:
        """The figures in words; `healthy` is the number of healthy trainings.

        >>> Measured(runs=12, found=11, right=11, false_alarms=0, strays=0, delay=14.0).sentence(62)
        'found in 11 of 12 trainings with this fault, named as the cause in 11; 0 false alarms ... 14 steps'
        >>> Measured(runs=0, found=0, right=0, false_alarms=0, strays=1).sentence(62)
        'not measured on a training with this fault; 0 false alarms ..., 1 on a training with another fault'
        """
        if self.runs:
            trainings = f"training{'' if self.runs == 1 else 's'} with this fault"
            said = f"found in {self.found} of {self.runs} {trainings}, named as the cause in {self.right}"
        else:
            said = "not measured on a training with this fault"
        plural = "" if self.false_alarms == 1 else "s"
        said += f"; {self.false_alarms} false alarm{plural} on {healthy} healthy trainings"
        if self.strays:
            said += f", {self.strays} on {'a training' if self.strays == 1 else 'trainings'} with another fault"
        if self.delay is not None:
            said += f"; median delay {self.delay:.0f} step{'' if round(self.delay) == 1 else 's'}"
        return said


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of all rules: by which version, when, on how many trainings."""

    schema: str = "lossdoctor.accuracy/1"
    version: str = ""
    measured: str = ""
    """The date, as in 2026-11-22."""
    healthy: int = 0
    faulty: int = 0
    rules: Mapping[str, Measured] = MappingProxyType({})


def load_accuracy() -> Accuracy:
    """What was measured of the rules that come with lossdoctor; nothing where the file is missing."""
    file = rules_directory() / _FILE
    if not file.is_file():
        return Accuracy()
    return msgspec.json.decode(file.read_bytes(), type=Accuracy)
