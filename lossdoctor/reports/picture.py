"""What a run looks like, ready to be drawn: small, whatever the length of the run, and the same for every drawing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.findings import ADVICE, Diagnosis, Finding, Severity
from lossdoctor.reports.heat import HEAT_COLUMNS, HeatMap, heat_maps
from lossdoctor.reports.panels import PANEL_COLUMNS, Panel, panels_of
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Run

__all__ = ["PICTURE_COLUMNS", "Best", "Picture", "Span", "picture_of"]

PICTURE_COLUMNS = PANEL_COLUMNS | frozenset(HEAT_COLUMNS) | {"epoch"}
"""The recorded columns that a picture is made from, besides those of the findings' evidence."""

STRETCHES = 500
"""Stretches a curve is thinned to, for a picture a thousand pixels wide."""

_EPOCHS = 2000


@dataclass(frozen=True, slots=True)
class Span:
    """A finding on the step axis. `number` is its place in the diagnosis; `whole` says that it is about all steps."""

    number: int
    rule: str
    severity: Severity
    signal: str
    since: float
    until: float
    whole: bool
    cause: bool
    """Whether nothing else explains it."""


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation with the lowest validation loss."""

    step: float
    value: float


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn of one run: panels and heat maps over steps `first` to `last`, and what is marked on them.

    `epochs` are the steps after which an epoch began, without the first.
    """

    name: str
    info: RunInfo
    first: float
    last: float
    panels: tuple[Panel, ...]
    heat: tuple[HeatMap, ...]
    spans: tuple[Span, ...]
    interventions: tuple[Intervention, ...]
    epochs: tuple[float, ...]
    best: Best | None
    read_as: tuple[str, ...] = ()

    @property
    def horizontal(self) -> str:
        """What the step axis counts."""
        return "steps as they were logged" if self.read_as else "optimizer steps"


def picture_of(run: Run, diagnosis: Diagnosis | None = None, *, stretches: int = STRETCHES) -> Picture:
    """The picture of a run, with what the diagnosis found in it."""
    findings = [finding for finding in diagnosis.findings if finding.family != ADVICE] if diagnosis else []
    ends = [table.step[[0, -1]] for table in (run.steps, run.evaluations, run.layers) if len(table)]
    known = [end for end in np.concatenate(ends) if np.isfinite(end)] if ends else []
    first, last = (float(min(known)), float(max(known))) if known else (0.0, 1.0)
    last = last if last > first else first + 1
    numbered = [(number, one) for number, one in enumerate(diagnosis.findings if diagnosis else []) if one in findings]
    return Picture(
        name=diagnosis.run if diagnosis else run.name,
        info=run.info,
        first=first,
        last=last,
        panels=panels_of(run, findings, stretches=stretches),
        heat=heat_maps(run),
        spans=tuple(_span(number, finding, first, last) for number, finding in numbered),
        interventions=tuple(run.interventions),
        epochs=_epochs(run),
        best=_best(run),
        read_as=run.read_as,
    )


def _span(number: int, finding: Finding, first: float, last: float) -> Span:
    whole = finding.clock == "run"
    begin = first if whole else min(max(finding.since, first), last)
    end = last if whole or finding.until is None else min(max(finding.until, begin), last)
    return Span(
        number=number,
        rule=finding.rule,
        severity=finding.severity,
        signal=finding.evidence_signal or "",
        since=begin,
        until=end,
        whole=whole,
        cause=finding.explained_by is None,
    )


def _epochs(run: Run) -> tuple[float, ...]:
    """Where epochs began: by the marks, else by the recorded number of the epoch."""
    marks = sorted({mark.step for mark in run.marks if mark.name == "epoch"})
    if len(marks) < 2 and "epoch" in run.steps.columns:  # noqa: PLR2004  the first begins with the run
        column = run.steps.columns["epoch"]
        rows = np.flatnonzero(column.mask() & np.isfinite(column.values))
        rising = np.flatnonzero(np.diff(np.floor(column.values[rows].astype(np.float64))) >= 1)
        marks = [0.0, *run.steps.step[rows[rising]].tolist()]
    return tuple(marks[1 : _EPOCHS + 1])


def _best(run: Run) -> Best | None:
    column = run.evaluations.columns.get("val_loss")
    if column is None:
        return None
    values: npt.NDArray[np.float64] = np.where(column.mask(), column.values, np.nan).astype(np.float64)
    if np.isfinite(values).sum() < 2:  # noqa: PLR2004  the only one is no choice
        return None
    row = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return Best(float(run.evaluations.step[row]), float(values[row]))
