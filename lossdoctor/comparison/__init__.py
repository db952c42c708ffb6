"""Runs side by side, for people and for programs: what differs between them, and whether it is more than noise."""

from lossdoctor.comparison.comparing import compare
from lossdoctor.comparison.document import render_json, schema
from lossdoctor.comparison.text import render
from lossdoctor.comparison.values import Comparison

__all__ = ["Comparison", "compare", "render", "render_json", "schema"]
