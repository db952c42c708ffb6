"""The JSON report: a fixed, documented form that any program can read."""

import json as stdlib_json
import math

import msgspec
import pytest

from lossdoctor.findings import SCHEMA, Diagnosis, Finding
from lossdoctor.reports import json


def test_the_document_conforms_to_the_exported_schema(examples):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json.schema())
    document = stdlib_json.loads(json.render([diagnosis for diagnosis, _ in examples.values()]))
    jsonschema.validate(document, json.schema())


def test_the_schema_rejects_a_document_with_an_unknown_verdict_category(examples):
    jsonschema = pytest.importorskip("jsonschema")
    document = json.document([examples["healthy"][0]])
    document["runs"][0]["category"] = "splendid"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.schema())


def test_the_document_can_be_read_back_into_findings(examples):
    diagnosis = examples["divergence"][0]
    run = stdlib_json.loads(json.render([diagnosis]))["runs"][0]
    assert msgspec.convert(run["findings"], list[Finding]) == diagnosis.findings


def test_the_schema_name_is_the_one_of_findings(examples):
    assert json.document([])["schema"] == SCHEMA
    assert json.DiagnosisReport(runs=[]).schema == SCHEMA


def test_non_finite_numbers_are_strings(examples):
    rendered = json.render([examples["hostile"][0]])
    evidence = stdlib_json.loads(rendered, parse_constant=pytest.fail)["runs"][0]["findings"][0]["evidence"]
    assert sorted(evidence.values()) == ["inf", "nan"]


def test_undecided_maps_a_rule_to_its_reason_and_missing_to_its_signals(examples):
    run = json.document([examples["vanishing_gradient"][0]])["runs"][0]
    assert run["undecided"]["overfitting"].startswith("no val_loss was recorded")
    assert run["missing"] == {"overfitting": ["val_loss"], "underfitting": ["val_loss"]}


def test_every_field_of_a_diagnosis_is_in_the_document(examples):
    run = json.document([examples["healthy"][0]])["runs"][0]
    assert {*Diagnosis.__struct_fields__} <= {*run}


def test_the_document_is_ascii_and_the_same_every_time(examples):
    diagnoses = [diagnosis for diagnosis, _ in examples.values()]
    assert json.render(diagnoses).isascii()
    assert json.render(diagnoses) == json.render(diagnoses)
    assert not any(math.isnan(value) for value in _numbers(stdlib_json.loads(json.render(diagnoses))))


def _numbers(node):
    if isinstance(node, dict):
        for inner in node.values():
            yield from _numbers(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _numbers(inner)
    elif isinstance(node, float):
        yield node
