"""The figures as Markdown: tables that are read in a terminal as well."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.accuracy.corpus import FIRST_HALF, Judged
from benchmarks.accuracy.figures import Figures, figures, halves, of_peer
from benchmarks.accuracy.peers import PEERS
from benchmarks.accuracy.thinned import LOGS

__all__ = ["report", "wrong"]


def report(judged: Sequence[Judged]) -> str:
    """All tables, and by name what is not as it should be."""
    parts = [
        _overall(judged),
        "### By rule",
        _by_cause(judged),
        "### Others on the same recordings",
        _peers(judged),
        "### As a tracker would have logged them",
        _thinned(judged),
        "### Not as it should be",
        *_exceptions(judged),
    ]
    return "\n\n".join(parts) + "\n"


def wrong(judged: Sequence[Judged]) -> list[str]:
    """A line for each wrong alarm on a thinned log: the log, the training, what was said and what the label is."""
    return [
        f"{log}: {one.recipe.name}: {', '.join(sorted(one.thinned[log].strays))}"
        f" (label: {', '.join(sorted(one.recipe.expected)) or 'healthy'})"
        for log in LOGS
        for one in judged
        if one.thinned[log].strays
    ]


def _overall(judged: Sequence[Judged]) -> str:
    first, second = halves(judged)
    rows = [("all", figures(judged)), ("first half", figures(first)), ("second half", figures(second))]
    head = "runs", "healthy", "with an alarm", "faulty", "recall", "right", "strays a run", "category", "delay"
    families = sorted({one.recipe.task for one in judged})
    return "\n\n".join(
        (
            _table(head, ([name, *_cells(found), _share(found.category), _delay(found)] for name, found in rows)),
            f"First half: {', '.join(name for name in families if name in FIRST_HALF)}.",
            f"Second half: {', '.join(name for name in families if name not in FIRST_HALF)}.",
            "\n".join(_timing(judged)),
        )
    )


def _timing(judged: Sequence[Judged]) -> list[str]:
    """How many were found in time."""
    lines = []
    for what, cause in (
        ("NaN in the loss found at its step", "non_finite_loss"),
        ("Divergence found before half of the progress was given back", "divergence"),
    ):
        asked = [one for one in judged if one.in_time is not None and cause in one.recipe.expected]
        late = [one.recipe.name for one in asked if not one.in_time]
        names = f" (not: {', '.join(late)})" if late else ""
        lines.append(f"* {what}: {len(asked) - len(late)} of {len(asked)}{names}")
    return lines


def _by_cause(judged: Sequence[Judged]) -> str:
    by_cause: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if not one.recipe.healthy:
            by_cause[one.cause].append(one)
    head = "rule", "runs", "recall", "right", "in halves", "strays on others", "on healthy", "delay"

    def row(cause: str, runs: Sequence[Judged]) -> list[str]:
        found, (first, second) = figures(runs), halves(runs)
        stray = sum(cause in one.strays for one in judged if not one.recipe.healthy)
        alarmed = sum(cause in one.strays for one in judged if one.recipe.healthy)
        both = f"{_share(figures(first).right)} / {_share(figures(second).right)}"
        counts = [str(len(runs)), _share(found.recall), _share(found.right), both, str(stray), str(alarmed)]
        return [f"`{cause}`", *counts, _delay(found)]

    return _table(head, (row(cause, runs) for cause, runs in sorted(by_cause.items())))


def _peers(judged: Sequence[Judged]) -> str:
    head = "tool", "healthy", "with an alarm", "faulty", "recall", "right", "strays a run"
    rows = [["lossdoctor", *_cells(figures(judged))]]
    rows += [[name, *_cells(of_peer(name, peer, judged))] for name, peer in PEERS.items()]
    sources = "\n".join(f"* {name}: {peer.source}" for name, peer in PEERS.items())
    return f"{_table(head, rows)}\n\nRules and defaults from:\n\n{sources}"


def _thinned(judged: Sequence[Judged]) -> str:
    head = ("log", "healthy: silent", "wrong", "faulty: right", "a consequence", "undecided", "missed", "wrong")
    healthy = [one for one in judged if one.recipe.healthy]
    faulty = [one for one in judged if not one.recipe.healthy]

    def row(log: str) -> list[str]:
        said = [one.thinned[log] for one in faulty]
        alarmed = sum(bool(one.thinned[log].strays) for one in healthy)
        kinds = [_kind(one) for one in said]
        order = ("right", "consequence", "undecided", "missed", "wrong")
        return [log, str(len(healthy) - alarmed), str(alarmed), *(str(kinds.count(kind)) for kind in order)]

    return _table(head, map(row, LOGS))


def _kind(one: Judged) -> str:
    """What a thinned log of a faulty run was called."""
    if one.strays:
        return "wrong"
    if one.right:
        return "right"
    if one.diagnosis.verdict in {"undecided", "healthy"}:
        return "undecided" if one.diagnosis.verdict == "undecided" else "missed"
    return "consequence"


def _exceptions(judged: Sequence[Judged]) -> list[str]:
    full = [
        f"* {one.recipe.name}: {one.diagnosis.verdict}"
        + (f"; stray: {', '.join(sorted(one.strays))}" if one.strays else "")
        for one in judged
        if not one.right or one.strays
    ]
    thinned = [f"* {line}" for line in wrong(judged)]
    return ["\n".join(full) or "Nothing.", "On thinned logs:", "\n".join(thinned) or "Nothing."]


# ----------------------------------------------------------------------------------------------------------- cells


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _cells(found: Figures) -> list[str]:
    strays = "" if found.strays is None else f"{found.strays:.2f}"
    shares = [_share(found.recall), _share(found.right)]
    return [str(found.healthy), str(len(found.alarmed)), str(found.faulty), *shares, strays]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _delay(found: Figures) -> str:
    if found.delay is None:
        return ""
    steps, runs = ("" if round(number) == 1 else "s" for number in (found.delay, found.delays))
    return f"{found.delay:.0f} step{steps} ({found.delays} run{runs})"
