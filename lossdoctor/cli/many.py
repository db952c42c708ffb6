"""Many runs: each is read, judged and written up on its own; of more than a few, several at a time."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from lossdoctor.analysis import judge_all
from lossdoctor.cli.output import console_on
from lossdoctor.errors import LogError
from lossdoctor.findings import Diagnosis
from lossdoctor.reports import text
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook

if TYPE_CHECKING:
    from lossdoctor.reports.picture import Picture
    from lossdoctor.runs.tables import Run

__all__ = ["Examined", "Place", "Sheet", "Task", "examine_all"]

_FEW = 8
"""So many are read one after the other: a process takes longer to start than a log to read."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A run's diagnosis and the report on it, written while the run was in memory; its picture if one is wanted."""

    diagnosis: Diagnosis
    report: Text
    picture: "Picture | None" = None


@dataclass(frozen=True, slots=True)
class Place:
    """A run directory or a log; `searched` says that it was found below a directory, not asked for.

    `name` is what its runs are called in reports.
    """

    path: Path
    name: str
    searched: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """What became of a place: the sheets of its runs, or why it cannot be read."""

    place: Place
    sheets: tuple[Sheet, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What every place is examined with. `load` makes the rulebook, once in every process.

    With `pictures`, sheets have what is to be drawn.
    """

    load: Callable[[], Rulebook]
    page: Page
    columns: Mapping[str, str]
    pictures: bool = False


def examine_all(places: Sequence[Place], task: Task, rulebook: Rulebook) -> Iterator[Examined]:
    """Examine places, in their order; in several processes where there are more than a few.

    `rulebook` is what `task.load` gives, for this process. Raises LogError if a process dies.
    """
    workers = min(
        len(places), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if len(places) <= _FEW or workers < 2:  # noqa: PLR2004  one processor
        yield from _shown((_examine(place, rulebook, task) for place in places), len(places))
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # a fork would copy locks of threads that are not there
    with ProcessPoolExecutor(workers, context, initializer=_Worker.start, initargs=(task,)) as pool:
        try:
            chunk = max(1, min(16, len(places) // (4 * workers)))
            yield from _shown(pool.map(_Worker.examine, places, chunksize=chunk), len(places))
        except BrokenProcessPool:
            raise LogError("a process that read logs was killed (out of memory?); analyze fewer at a time") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Worker:
    """What a process keeps between places."""

    task: Task
    rulebook: Rulebook

    @classmethod
    def start(cls, task: Task) -> None:
        cls.task, cls.rulebook = task, task.load()

    @classmethod
    def examine(cls, place: Place) -> Examined:
        return _examine(place, cls.rulebook, cls.task)


def _examine(place: Place, rulebook: Rulebook, task: Task) -> Examined:
    """Read, judge and report the runs at one place. No run stays in memory after its report."""
    sheets = []
    also, pictured = _pictures() if task.pictures else (frozenset[str](), None)
    try:
        for run, diagnosis in judge_all(
            place.path, rulebook, task.columns, name=place.name, searched=place.searched, also=also
        ):
            report = text.render(diagnosis, run, rules=rulebook.rules, page=task.page)
            if task.page.verbose and run.read_as:
                report = Text("\n\n").join([report, _read_as(run.read_as, task.page)])
            sheets.append(Sheet(diagnosis, report, None if pictured is None else pictured(run, diagnosis)))
    except LogError as error:
        return Examined(place, tuple(sheets), str(error).replace(str(place.path), place.name))
    return Examined(place, tuple(sheets))


def _pictures() -> "tuple[frozenset[str], Callable[[Run, Diagnosis], Picture]]":
    """The columns that are drawn, and what makes a picture: loaded only where one is wanted."""
    from lossdoctor.reports.picture import PICTURE_COLUMNS, picture_of

    return PICTURE_COLUMNS, picture_of


def _read_as(lines: Sequence[str], page: Page) -> Text:
    """What in a log was taken for what."""
    found = [page.text(("read as:", "bold"))]
    for line in lines:
        found += page.hang(Text("  - "), line)
    return Text("\n").join(found)


def _shown(results: Iterator[Examined], total: int) -> Iterator[Examined]:
    """The same, with a bar on stderr where somebody may be waiting and looking."""
    if total <= _FEW or not sys.stderr.isatty():
        yield from results
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console_on(sys.stderr), transient=True) as progress:
        task = progress.add_task("reading", total=total)
        for result in results:
            yield result
            progress.advance(task)
