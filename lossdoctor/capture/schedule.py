"""When what is measured: sample steps, and the cadence of the gradient norms. Both follow rows, not time."""

import statistics

__all__ = ["CADENCES", "Cadence", "SampleSteps", "Sparse"]

CADENCES = (1, 2, 4, 8, 16)
"""The gradient norms are read at every k-th step, k out of these."""

_CALIBRATION_STEPS = 50
_SHARE = 0.004
"""Share of a step that gradient norms may take; what is left of one per cent is for the rest of the Monitor."""

_COLD = 2.5
"""A reading that is not taken at every step costs this much more: its code and its data have left the caches."""

_SHRINK = 20
_LEAST = 2
_EVERY = 1000
_DENSE = 8
_SPARSE = 4


class SampleSteps:
    """The rows at which parameters, updates and layers are measured.

    One at the start of each interval of the geometric partition that the rules' `interval` clock uses (an interval
    that starts at row r holds max(2, r // 20) rows), so each interval has one, and one in every 1,000 rows.
    """

    def __init__(self) -> None:
        self._start = 0

    def is_due(self, row: int) -> bool:
        """Whether row `row` (from 0, asked in ascending order) is a sample step."""
        while self._start < row:
            self._start += max(_LEAST, self._start // _SHRINK)
        return row == self._start or row % _EVERY == 0

    def after(self, row: int) -> int:
        """The first sample step after row `row`."""
        row += 1
        while not self.is_due(row):
            row = min(self._start, row - row % _EVERY + _EVERY)
        return row


class Sparse:
    """Which sample steps look inside the model too: the first eight and then every fourth.

    Activations and the direction of gradients cost several times what norms do, on small models more than the step.
    """

    def __init__(self) -> None:
        self._samples = 0

    def turn(self) -> bool:
        """Count the next sample step; whether it is one of them."""
        self._samples += 1
        return self._samples <= _DENSE or self._samples % _SPARSE == 0


class Cadence:
    """How often gradient norms are read: every step at first, then at every `every`-th, fixed after 50 steps.

    `every` is the smallest of `CADENCES` that keeps the cost within 0.4 % of a step. It is fixed once, so that no
    recorded number depends on the speed of the machine after that.
    """

    def __init__(self, pinned: int | None = None) -> None:
        self.every = pinned or 1
        self.settled = pinned is not None
        self._costs: list[float] = []
        self._steps: list[float] = []

    def add(self, step_time: float | None, cost: float) -> None:
        """Take in a step of `step_time` seconds, if that is known, in which gradient norms took `cost` seconds."""
        if step_time is None:
            return
        self._costs.append(cost)
        self._steps.append(step_time)
        if len(self._steps) < _CALIBRATION_STEPS:
            return
        budget = _SHARE * statistics.median(self._steps)
        typical = statistics.median(self._costs)
        if typical > budget:
            self.every = next((every for every in CADENCES[1:] if _COLD * typical <= every * budget), CADENCES[-1])
        self.settled = True
