"""What a notebook shows of a diagnosis, a run or a Monitor: the page's cards and charts, still and without a script."""

from pathlib import Path

from lossdoctor.findings import Diagnosis
from lossdoctor.reports.html import fragment
from lossdoctor.reports.picture import picture_of
from lossdoctor.reports.views import view_of
from lossdoctor.runs.reader import read_run
from lossdoctor.runs.tables import Run

__all__ = ["diagnosis_html", "recording_html", "run_html"]

_STRETCHES = 250
"""A notebook keeps what it shows: half the points of a page do."""


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """The verdict and its findings."""
    return fragment(view_of(diagnosis))


def run_html(run: Run) -> str:
    """The curves of a run, unjudged."""
    unjudged = Diagnosis(
        run=run.name,
        verdict="undecided",
        category="undecided",
        summary="",
        steps=len(run.steps),
        evaluations=len(run.evaluations),
        status=run.info.status,
        warnings=list(run.warnings),
    )
    return fragment(view_of(unjudged, picture_of(run, stretches=_STRETCHES), judged=False))


def recording_html(directory: Path, diagnosis: Diagnosis | None) -> str:
    """A run that may still be written, with what was found so far. Raises LogError if it cannot be read."""
    run = read_run(directory)
    if diagnosis is None:
        return run_html(run)
    return fragment(view_of(diagnosis, picture_of(run, diagnosis, stretches=_STRETCHES)))
