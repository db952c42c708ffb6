"""A comparison as JSON for programs, and the schema of that JSON."""

import json
from typing import Any

import msgspec

from lossdoctor.comparison.values import Comparison
from lossdoctor.reports.json import finite, loosened

__all__ = ["render_json", "schema"]


def render_json(comparison: Comparison) -> str:
    """The document as indented ASCII text, with a newline at its end; non-finite numbers are strings."""
    return json.dumps(finite(msgspec.to_builtins(comparison, str_keys=True)), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every document conforms to."""
    plain: dict[str, Any] = loosened(msgspec.json.schema(Comparison))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **plain}
