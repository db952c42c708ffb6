"""From a path to diagnoses: find the runs, read them, judge them."""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType

import msgspec

from lossdoctor.clocks import recorded
from lossdoctor.diagnosis import diagnose
from lossdoctor.errors import LogError
from lossdoctor.findings import Diagnosis
from lossdoctor.health import INTERVAL_NAMES
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.reader import find_runs, is_run, read_run
from lossdoctor.runs.tables import Run

__all__ = ["analyze", "judge", "needed_columns", "runs_at"]

_ALWAYS = INTERVAL_NAMES | {"step", "val_loss", "val_accuracy"}
"""What reasons and the clock of evaluations need, whatever the rules are."""


def analyze(
    path: str | PathLike[str],
    *,
    rules: Iterable[str | PathLike[str]] = (),
    thresholds: Mapping[str, float] = MappingProxyType({}),
    ignore: Iterable[str] = (),
) -> list[Diagnosis]:
    """Diagnose the run at `path`, or every run below it; one diagnosis a run, in the order of their paths.

    `rules` are directories with further rule files, `thresholds` maps "rule.threshold" to a number, and `ignore` lists
    ids of rules to leave out. No configuration file is read.

    Raises LogError if there is nothing to read, RuleError for a wrong rule file and ConfigurationError for a rule or
    threshold that does not exist.
    """
    rulebook = Rulebook.load([Path(directory) for directory in rules], thresholds, ignore)
    return [judge(run, rulebook)[1] for run in runs_at(Path(path))]


def runs_at(path: Path) -> list[Path]:
    """The run at `path` or else all runs below it. Raises LogError if there are none."""
    if is_run(path) or not path.is_dir():
        return [path]
    found = find_runs(path)
    if not found:
        raise LogError(f"{path}: no run in this directory; give a directory that lossdoctor.Monitor wrote")
    return found


def needed_columns(rulebook: Rulebook) -> frozenset[str]:
    """The recorded columns that these rules, the reasons of a verdict and the curves of a report are made from."""
    names = set(_ALWAYS)
    for rule in rulebook.rules.values():
        names |= rule.signals | rule.optional | {rule.evidence or "step"}
    return frozenset(recorded(name) for name in names)


def judge(path: Path, rulebook: Rulebook) -> tuple[Run, Diagnosis]:
    """Read one run and diagnose it under the name it was asked for. Raises LogError if it cannot be read.

    The run has only those columns that the diagnosis and its report need.
    """
    if not path.exists() and not is_run(path):  # attempt-1 is a name for a directory of another name
        raise LogError(f"{path}: no such file or directory")
    run = read_run(path, needed_columns(rulebook))
    return run, msgspec.structs.replace(diagnose(run, rulebook), run=str(path))
