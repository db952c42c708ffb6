"""`lossdoctor watch`: a running training in the terminal, or line by line in a log."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lossdoctor.cli.analyze import MapOption, RulesOption, SetOption, analyze, columns_of, exit_code, load_rulebook
from lossdoctor.cli.output import console_on, page_for, write
from lossdoctor.configuration import FailOn, find_configuration
from lossdoctor.errors import LogError
from lossdoctor.reports import live
from lossdoctor.reports.live import LiveView
from lossdoctor.reports.printable import printable
from lossdoctor.reports.text import verdict_line
from lossdoctor.watching import Watch, is_watchable, newest_run

__all__ = ["watch"]

_BUSY = 25.0
"""So many times the CPU time of a look is waited until the next, however short the interval: 4 % of a core."""
_LONGEST = 5.0
"""Seconds between two looks at most: the first, which reads everything, may take long."""
_ABSENT = 5
"""Looks in a row that may fail while a run is being replaced."""
_POLL = 0.25


def watch(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, a log, or a directory of runs.")],
    *,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print, and end: for scripts.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0.0, help="Wait so long for a run that is not there yet.")
    ] = 0.0,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="Exit with 1 from this severity on. Default: error.")
    ] = None,
    set_: SetOption = None,
    rules: RulesOption = None,
    map_: MapOption = None,
) -> None:
    """Watch a training while it runs; when it ends, print what `lossdoctor analyze` says of it.

    Of a directory of runs, the one written last is watched. Where stdout is no terminal, every change is a line.
    Exit code: that of analyze; 130 after Ctrl-C.
    """
    fail_on = fail_on or find_configuration().fail_on
    rulebook = load_rulebook(find_configuration(), rules or [], set_ or [])
    found = _awaited(path, wait)
    watched = Watch(found, rulebook, columns_of(map_ or []))
    if once:
        view = watched.look_once()
        write(Text("\n").join([live.render(view, page=page_for(None)), Text(verdict_line(view.diagnosis))]))
        raise typer.Exit(exit_code([view.diagnosis], fail_on))
    show = _show if sys.stdout.isatty() else _log
    show(watched, interval)
    analyze([str(found)], format="text", fail_on=fail_on, set_=set_, rules=rules, map_=map_)


def _awaited(path: Path, seconds: float) -> Path:
    """The run to watch, as soon as it is there."""
    deadline = time.monotonic() + seconds
    while True:
        found = newest_run(path)
        if is_watchable(found):
            return found
        if time.monotonic() >= deadline:
            hint = "" if seconds else "; --wait SECONDS waits for it"
            raise LogError(f"{path}: nothing to watch, neither a run nor a log that can be read{hint}")
        time.sleep(min(_POLL, max(deadline - time.monotonic(), 0.01)))


def _views(watched: Watch, interval: float) -> Iterator[LiveView]:
    """A view after each look, until the run is over. Looking takes 4 % of a core at most."""
    absent = 0
    while True:
        begun = time.process_time()
        try:
            view = watched.look()
        except LogError:
            absent += 1
            if absent > _ABSENT:
                raise
            time.sleep(interval)
            continue
        absent = 0
        yield view
        if watched.is_over:
            return
        time.sleep(max(interval, min(_BUSY * (time.process_time() - begun), _LONGEST)))


def _show(watched: Watch, interval: float) -> None:
    """A screen that is drawn anew after every look."""
    from rich.live import Live

    console = console_on(sys.stdout)
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as screen:
        for view in _views(watched, interval):
            screen.update(live.render(view, page=page_for(None), rows=console.height - 1), refresh=True)


def _log(watched: Watch, interval: float) -> None:
    """A line for every change, with the time of day."""
    before: LiveView | None = None
    for view in _views(watched, interval):
        for line in live.changes(before, view):
            write(f"{time.strftime('%H:%M:%S')} {printable(line)}\n")
        before = view
    write("\n")
