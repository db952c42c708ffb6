"""From a path to diagnoses: find the runs, read them, judge them."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType

import msgspec

from lossdoctor.clocks import recorded
from lossdoctor.diagnosis import diagnose
from lossdoctor.errors import LogError
from lossdoctor.findings import Diagnosis
from lossdoctor.health import EVALUATION_NAMES, INTERVAL_NAMES
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.reader import find_runs, is_run, read_run
from lossdoctor.runs.tables import Run

__all__ = ["analyze", "judge", "judge_all", "needed_columns", "runs_at"]

_logger = logging.getLogger(__name__)

_ALWAYS = INTERVAL_NAMES | EVALUATION_NAMES | {"step"}
"""What reasons and the clock of evaluations need, whatever the rules are."""


def analyze(
    path: str | PathLike[str],
    *,
    rules: Iterable[str | PathLike[str]] = (),
    thresholds: Mapping[str, float] = MappingProxyType({}),
    ignore: Iterable[str] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
) -> list[Diagnosis]:
    """Diagnose the run or log at `path`, or all runs and logs below it; one diagnosis a run, in the order of paths.

    `rules` are directories with further rule files, `thresholds` maps "rule.threshold" to a number, and `ignore` lists
    ids of rules to leave out. `columns` says which column of a foreign log is which signal where its name does not:
    {"val_loss": "eval/nll"}. No configuration file is read. Below a directory, logs without a loss are passed over.

    Raises LogError if there is nothing to read, RuleError for a wrong rule file and ConfigurationError for a rule or
    threshold that does not exist.
    """
    rulebook = Rulebook.load([Path(directory) for directory in rules], thresholds, ignore)
    path = Path(path)
    found = runs_at(path)
    if found == [path]:
        return [diagnosis for _, diagnosis in judge_all(path, rulebook, columns)]
    diagnoses: list[Diagnosis] = []
    for place in found:
        try:
            diagnoses += [diagnosis for _, diagnosis in judge_all(place, rulebook, columns, searched=True)]
        except LogError as error:
            _logger.warning("%s", error)
    return diagnoses


def runs_at(path: Path) -> list[Path]:
    """The run or log at `path`, or else all runs and logs below it. Raises LogError if there are none.

    What lies in a run directory belongs to the run.
    """
    if is_run(path) or not path.is_dir():
        return [path]
    from lossdoctor.runs.readers import find_logs  # noqa: PLC0415  a run of our own needs none of the readers

    own = find_runs(path)
    found = sorted([*own, *find_logs(path, passing_over=own)])
    if not found:
        raise LogError(
            f"{path}: no run in this directory, and no log that can be read; give a directory that lossdoctor.Monitor "
            "or another logger wrote"
        )
    return found


def needed_columns(rulebook: Rulebook) -> frozenset[str]:
    """The recorded columns that these rules, the reasons of a verdict and the curves of a report are made from."""
    names = set(_ALWAYS)
    for rule in rulebook.rules.values():
        names |= rule.signals | rule.optional | {rule.evidence or "step"}
    return frozenset(recorded(name) for name in names)


def judge(path: Path, rulebook: Rulebook, *, whole: bool = False, also: Collection[str] = ()) -> tuple[Run, Diagnosis]:
    """Read one run and diagnose it under the name it was asked for. Raises LogError if it cannot be read.

    The run has only those columns that the diagnosis and its report need, and those `also` asked for, unless the
    `whole` one is.
    """
    if not path.exists() and not is_run(path):  # attempt-1 is a name for a directory of another name
        raise LogError(f"{path}: no such file or directory")
    run = read_run(path, None if whole else needed_columns(rulebook).union(also))
    return run, msgspec.structs.replace(diagnose(run, rulebook), run=str(path))


def judge_all(
    path: Path,
    rulebook: Rulebook,
    columns: Mapping[str, str] = MappingProxyType({}),
    *,
    name: str = "",
    searched: bool = False,
    whole: bool = False,
    also: Collection[str] = (),
) -> Iterator[tuple[Run, Diagnosis]]:
    """Read and diagnose every run at one of the paths of `runs_at`: one of our own, or all in a foreign log.

    `columns` maps signals to columns of a foreign log. Of a log that was `searched` for, those that it has count; of
    one that was asked for, a column that is missing is an error. The runs are called `name`, by default the path.
    Runs have the columns that are judged and those `also` asked for; with `whole`, all. Raises LogError.
    """
    if is_run(path) or not path.exists():
        run, diagnosis = judge(path, rulebook, whole=whole, also=also)
        yield run, msgspec.structs.replace(diagnosis, run=name or str(path))
        return
    from lossdoctor.runs.readers import is_log, logs_at, runs_of  # noqa: PLC0415  as above

    if any(is_run(parent) for parent in path.absolute().parents[:2]) and not is_log(path):
        yield judge(path, rulebook)  # says that it is a part of a run
        return
    runs = [run for log in logs_at(path) for run in runs_of(log, columns, strict=not searched)]
    for run in runs:
        own = f"{name or path}" if len(runs) == 1 else f"{name or path}#{run.name}"
        yield run, msgspec.structs.replace(diagnose(run, rulebook), run=own)
