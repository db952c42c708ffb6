"""A diagnosis as JSON for programs, and the schema of that JSON.

    {"schema": "lossdoctor.diagnosis/1", "runs": [{"run", "verdict", "category", "findings", ...}]}

Always a list, one entry a run, in a fixed order, without times of its own, so equal runs give equal bytes. JSON knows
no NaN and no Inf: they are the strings "nan", "inf" and "-inf". What is not ASCII is escaped, so nothing that a log
holds can steer the terminal it is printed on.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from lossdoctor.findings import Category, Diagnosis, Finding, Severity
from lossdoctor.runs.events import Intervention

__all__ = ["DiagnosisReport", "RunReport", "document", "finite", "loosened", "render", "schema"]


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `undecided` maps a rule to why it was not judged, `missing` to the signals that would decide it."""

    run: str
    verdict: str
    category: Category
    severity: Severity
    summary: str
    status: str
    steps: int
    evaluations: int
    findings: list[Finding]
    passed: list[str]
    undecided: dict[str, str]
    missing: dict[str, list[str]]
    worth: str
    reasons: list[str]
    interventions: list[Intervention]
    warnings: list[str]
    config: dict[str, Any]
    accepted: list[str]


class DiagnosisReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document."""

    schema: Literal["lossdoctor.diagnosis/1"] = "lossdoctor.diagnosis/1"
    runs: list[RunReport]


def document(diagnoses: Sequence[Diagnosis]) -> dict[str, Any]:
    """The document in plain dicts, lists, strings, bools and finite numbers."""
    report = DiagnosisReport(runs=[_run(diagnosis) for diagnosis in diagnoses])
    plain: dict[str, Any] = finite(msgspec.to_builtins(report, str_keys=True))
    return plain


def render(diagnoses: Sequence[Diagnosis]) -> str:
    """The document as indented ASCII text, with a newline at its end."""
    return json.dumps(document(diagnoses), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every document conforms to."""
    plain: dict[str, Any] = loosened(msgspec.json.schema(DiagnosisReport))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **plain}


def _run(diagnosis: Diagnosis) -> RunReport:
    return RunReport(
        run=diagnosis.run,
        verdict=diagnosis.verdict,
        category=diagnosis.category,
        severity=diagnosis.severity,
        summary=diagnosis.summary,
        status=diagnosis.status,
        steps=diagnosis.steps,
        evaluations=diagnosis.evaluations,
        findings=diagnosis.findings,
        passed=diagnosis.passed,
        undecided={rule.rule: rule.reason for rule in diagnosis.undecided},
        missing={rule.rule: rule.missing for rule in diagnosis.undecided if rule.missing},
        worth=diagnosis.worth,
        reasons=diagnosis.reasons,
        interventions=diagnosis.interventions,
        warnings=diagnosis.warnings,
        config=diagnosis.config,
        accepted=diagnosis.accepted,
    )


def finite(value: Any) -> Any:
    """`value` with every non-finite number as a string.

    >>> finite({"loss": [1.0, float("nan"), float("-inf")]})
    {'loss': [1.0, 'nan', '-inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def loosened(node: Any) -> Any:
    """A schema in which every number may be one of the strings that stand for non-finite ones."""
    if isinstance(node, list):
        return [loosened(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "number":
        return {"anyOf": [node, {"enum": ["nan", "inf", "-inf"]}]}
    return {key: inner if key == "default" else loosened(inner) for key, inner in node.items()}
