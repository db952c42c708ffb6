"""Runs side by side, for people and for programs: what differs between them, and whether it is more than noise."""

from lossdoctor.comparison.comparing import compare, compare_curves
from lossdoctor.comparison.document import render_json, schema
from lossdoctor.comparison.html import render_html
from lossdoctor.comparison.text import render
from lossdoctor.comparison.values import Comparison

__all__ = ["Comparison", "compare", "compare_curves", "render", "render_html", "render_json", "schema"]
