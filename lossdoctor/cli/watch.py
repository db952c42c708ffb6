"""`lossdoctor watch`: a running training in the terminal, or line by line in a log."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from lossdoctor.cli.analyze import MapOption, RulesOption, SetOption, columns_of, exit_code, load_rulebook, report_on
from lossdoctor.cli.output import console_on, page_for, write
from lossdoctor.configuration import FailOn, find_configuration
from lossdoctor.errors import LogError
from lossdoctor.reports import live
from lossdoctor.reports.printable import printable
from lossdoctor.reports.text import verdict_line
from lossdoctor.rulebook import Rulebook
from lossdoctor.watching import Watch, newest_run

__all__ = ["watch"]

_BUSY = 25.0
"""So many times the CPU time of a look is waited until the next, however short the interval: 4 % of a core."""
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
    configuration = find_configuration()
    load = partial(load_rulebook, configuration, rules or [], set_ or [])
    columns = columns_of(map_ or [])
    rulebook = load()
    path = _awaited(path, wait)
    fail_on = fail_on or configuration.fail_on
    watched = Watch(path, rulebook, columns)
    if once:
        view = watched.look_once()
        write(live.render(view, page=page_for(None)))
        write(f"{verdict_line(view.diagnosis)}\n")
        raise typer.Exit(exit_code([view.diagnosis], fail_on))
    if sys.stdout.isatty():
        _show(watched, interval)
    else:
        _log(watched, interval)
    report, diagnoses = report_on(path, rulebook, page_for(None), columns)
    write(report)
    raise typer.Exit(exit_code(diagnoses, fail_on))


def _awaited(path: Path, seconds: float) -> Path:
    """The run to watch, as soon as it is there."""
    deadline = time.monotonic() + seconds
    while True:
        found = newest_run(path)
        if found.exists() and (found.is_file() or _can_be_watched(found)):
            return found
        if time.monotonic() >= deadline:
            if not found.exists():
                raise LogError(f"{path}: no such file or directory; --wait SECONDS waits for it")
            return found
        time.sleep(min(_POLL, max(deadline - time.monotonic(), 0.01)))
