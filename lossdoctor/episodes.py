"""From a condition at every tick to episodes: since when it held, when that was long enough, until when.

A streak of `patience` true ticks opens an episode; undecided ticks neither extend nor break it. The episode begins at
the streak's first tick and ends after `patience` clear ticks. A rule on layers has one episode while any layer holds,
with the list of those layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lossdoctor.statistics import Array, Held, Streak

__all__ = ["MAX_EPISODES", "Episode", "EpisodeTracker", "Frozen"]

Truth: TypeAlias = npt.NDArray[np.bool_]

MAX_EPISODES = 20
"""At most so many episodes of a rule are kept, the first ones and the latest; more are only counted."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a rule said at the tick that completed the streak: measures by name, the variant, the fixes with numbers."""

    values: dict[str, float]
    variant: int | None = None
    arguments: dict[int, dict[str, float]] = field(default_factory=dict)
    """The fixes that are offered, by number, with their arguments."""


@dataclass(slots=True)
class Episode:
    """One time a condition held long enough; `since`, `detected` and `until` are steps.

    `layers` maps a layer's number to the worst of the peak measure there; it is empty for rules without layers.
    """

    since: float
    detected: float
    until: float
    number: int
    frozen: Frozen
    over: bool = False
    grave: bool = False
    peak: float = float("nan")
    layers: dict[int, float] = field(default_factory=dict)


class EpisodeTracker:
    """Follows one rule's condition block by block."""

    def __init__(self, patience: int, *, layered: bool = False) -> None:
        self._patience, self._layered = patience, layered
        self._streak, self._clear, self._first = Streak(), Streak(), Held()
        self.episodes: list[Episode] = []
        self.count = 0
        self.decided = 0
        """Ticks at which the condition was decided (for rules on layers: for at least one layer)."""

    @property
    def current(self) -> Episode | None:
        """The episode that is going on."""
        return self.episodes[-1] if self.episodes and not self.episodes[-1].over else None

    def passes(self, truth: Array, ticks: int) -> bool:
        """Take in so many ticks if nothing can begin or end in them; False if they are to be observed.

        So it is with nearly every block of nearly every rule. All that can happen is that an unfinished streak breaks.
        `truth` is (ticks, layers), or (1, layers) where it is the same at all of them.
        """
        if self.current is not None or (truth == 1).any():
            return False
        if truth.size and not truth.any():
            self.decided += ticks
        else:
            decided = np.logical_or.reduce(~np.isnan(truth), axis=1)
            self.decided += int(np.count_nonzero(decided)) * (ticks if len(truth) == 1 else 1)
        if ticks:
            self._streak(np.fmin.reduce(truth, axis=0, keepdims=True))
        return True

    def observe(
        self, step: Array, truth: Array, *, peak: Array, grave: Array, freeze: Callable[[int, int], Frozen]
    ) -> list[Episode]:
        """Take in the next ticks and return the episodes that began.

        `step` is (ticks,); `truth`, `peak` and `grave` are (ticks, layers), with one layer for rules without. `freeze`
        is asked what the rule says at a (tick, layer) of this block.
        """
        if self.passes(truth, len(step)):
            return []
        true = truth == 1
        row_true, row_decided = true.any(axis=1), (~np.isnan(truth)).any(axis=1)
        self.decided += int(np.count_nonzero(row_decided))
        streak = self._streak(truth)
        first = self._first(np.broadcast_to(step.reshape(-1, 1), truth.shape), true & (streak == 1))
        firing = true & (streak >= self._patience)
        clear = self._clear(np.where(row_true, 0.0, np.where(row_decided, 1.0, np.nan)))
        began: list[Episode] = []
        for begin, end, number in self._spans(firing.any(axis=1), clear >= self._patience):
            if number > self.count:
                self.count = number
                began.append(self._begin(begin, step, first, firing=firing[begin], peak=peak[begin], freeze=freeze))
            rows = begin + np.flatnonzero(row_true[begin:end])
            self._extend(step[rows], true[rows], firing=firing[rows], peak=peak[rows], grave=grave[rows])
            self.episodes[-1].over = end < len(step)
        return began

    def _spans(self, firing: Truth, ending: Truth) -> list[tuple[int, int, int]]:
        """Where episodes are going on within a block, each as (row, row after the last, number of the episode).

        A condition that comes and goes at every tick must not cost by the episode: those that would not be kept are
        only counted.
        """
        rows = np.flatnonzero(firing | ending)
        fires = firing[rows]
        going_on = self.current is not None
        before = np.concatenate(([going_on], fires))[:-1]
        begins, ends = rows[fires & ~before], rows[~fires & before].tolist()
        room = max(MAX_EPISODES - len(self.episodes), 0)
        skipped = max(len(begins) - room - 1, 0)
        starts = [0, *begins.tolist()] if going_on else begins.tolist()
        numbers = range(self.count + (not going_on), self.count + len(begins) + 1)
        spans = list(zip(starts, [*ends, len(firing)], numbers, strict=False))
        kept = going_on + room
        return spans[:kept] + spans[kept + skipped :]

    def _begin(
        self,
        row: int,
        step: Array,
        first: Array,
        *,
        firing: Truth,
        peak: Array,
        freeze: Callable[[int, int], Frozen],
    ) -> Episode:
        """Open an episode at a row where `firing` says which layers fire and `peak` how badly."""
        layers = np.flatnonzero(firing)
        worst = int(layers[int(np.argmax(np.nan_to_num(peak[layers], nan=-np.inf)))])
        episode = Episode(
            since=float(np.min(first[row, layers])),
            detected=float(step[row]),
            until=float(step[row]),
            number=self.count,
            frozen=freeze(row, worst),
        )
        if len(self.episodes) == MAX_EPISODES:
            self.episodes.pop()
        self.episodes.append(episode)
        return episode

    def _extend(self, step: Array, true: Truth, *, firing: Truth, peak: Array, grave: Array) -> None:
        """Carry the current episode on over the rows at which the condition held."""
        if not len(step):
            return
        episode = self.episodes[-1]
        episode.until = float(step[-1])
        episode.grave = episode.grave or bool((true & (grave == 1)).any())
        episode.peak = float(np.fmax.reduce(peak[true], initial=episode.peak)) + 0.0
        if self._layered:
            # Only where a layer fires: what it was before cannot be known where a block begins in its streak.
            highest = np.fmax.reduce(np.where(firing, peak, np.nan), axis=0)
            for layer in np.flatnonzero(firing.any(axis=0)).tolist():
                episode.layers[layer] = float(np.fmax(episode.layers.get(layer, np.nan), highest[layer]))
