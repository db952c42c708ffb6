"""Diagnoses written down: as text for a terminal, as JSON for programs, as Markdown for a comment.

A report is a pure function of a diagnosis (and of the run, where curves are drawn): it judges nothing.
"""

from lossdoctor.reports import json, markdown, text
from lossdoctor.reports.page import Page

__all__ = ["Page", "json", "markdown", "text"]
