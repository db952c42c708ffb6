"""Figures over many judged runs, and the entry a rule gets in what is shipped."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.corpus import FIRST_HALF, Judged
from benchmarks.accuracy.peers import Peer

__all__ = ["Figures", "figures", "halves", "of_peer", "share"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to say about a tool on some runs; None where there is nothing to divide by."""

    healthy: int
    alarmed: tuple[str, ...]
    """Healthy runs with an alarm."""
    faulty: int
    recall: float | None
    """Share of the faulty runs where an accepted cause is among what is said."""
    right: float | None
    """Share of the faulty runs where the verdict is accepted."""
    strays: float | None
    """Alarms for a faulty run that its label knows neither as cause nor as consequence."""
    category: float | None = None
    """Share of all runs whose category is right."""
    delay: float | None = None
    """Median steps from the onset to the detection, where the onset is known."""
    delays: int = 0


def share(true: Iterable[bool]) -> float | None:
    """The share of what is true; None of nothing."""
    values = list(true)
    return sum(values) / len(values) if values else None


def figures(judged: Sequence[Judged]) -> Figures:
    """Ours."""
    healthy, faulty = _parted(judged)
    delays = [one.delay for one in faulty if one.delay is not None]
    return Figures(
        healthy=len(healthy),
        alarmed=tuple(one.recipe.name for one in healthy if one.alarms),
        faulty=len(faulty),
        recall=share(one.found for one in faulty),
        right=share(one.right for one in faulty),
        strays=statistics.fmean(len(one.strays) for one in faulty) if faulty else None,
        category=share(one.right_category for one in judged),
        delay=statistics.median(delays) if delays else None,
        delays=len(delays),
    )


def of_peer(name: str, peer: Peer, judged: Sequence[Judged]) -> Figures:
    """A peer's. It ranks nothing: `right` is where all it says is accepted, as cause or consequence, and a cause is."""
    healthy, faulty = _parted(judged)

    def known(one: Judged, word: str) -> bool:
        return bool(peer.accepted(frozenset({word})) & (one.recipe.expected | one.recipe.consequences))

    def found(one: Judged) -> bool:
        return bool(peer.accepted(one.peers[name]) & one.recipe.expected)

    return Figures(
        healthy=len(healthy),
        alarmed=tuple(one.recipe.name for one in healthy if one.peers[name]),
        faulty=len(faulty),
        recall=share(map(found, faulty)),
        right=share(found(one) and all(known(one, word) for word in one.peers[name]) for one in faulty),
        strays=(
            statistics.fmean(sum(not known(one, word) for word in one.peers[name]) for one in faulty)
            if faulty
            else None
        ),
    )


def halves(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """The runs in two halves by task family."""
    first: Callable[[Judged], bool] = lambda one: one.recipe.task in FIRST_HALF  # noqa: E731
    return [one for one in judged if first(one)], [one for one in judged if not first(one)]


def _parted(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    return [one for one in judged if one.recipe.healthy], [one for one in judged if not one.recipe.healthy]
