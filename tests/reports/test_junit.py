"""JUnit reports: what fails, what is skipped, and that nothing in a log can break the document."""

from pathlib import Path
from xml.etree.ElementTree import XML

import msgspec
import pytest
import xmlschema

from lossdoctor.reports import junit

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))


def _cases(document):
    return {case.get("name"): case for case in XML(document).iter("testcase")}


@pytest.mark.parametrize("fail_on", ["never", "info", "warning", "error"])
def test_every_document_is_valid_ascii_xml(examples, fail_on):
    document = junit.render([diagnosis for diagnosis, _ in examples.values()], fail_on=fail_on)
    assert document.isascii()
    SCHEMA.validate(document)


def test_a_finding_as_grave_as_asked_fails_and_a_milder_one_is_only_told(examples):
    diagnosis, _ = examples["divergence"]
    strict, lenient = (_cases(junit.render([diagnosis], fail_on=level)) for level in ("error", "never"))
    failure = strict["divergence"].find("failure")
    assert failure.get("type") == "error"
    assert failure.get("message") == diagnosis.findings[0].message
    assert "help: " in failure.text
    assert lenient["divergence"].find("failure") is None
    assert "error[divergence]" in lenient["divergence"].findtext("system-out")


def test_counts_are_those_of_the_cases(examples):
    root = XML(junit.render([diagnosis for diagnosis, _ in examples.values()], fail_on="info"))
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        assert int(suite.get("failures")) == sum(case.find("failure") is not None for case in cases)
        assert int(suite.get("skipped")) == sum(case.find("skipped") is not None for case in cases)
    assert int(root.get("failures")) == sum(int(suite.get("failures")) for suite in root)


def test_what_was_undecided_is_skipped_with_its_reason(examples):
    diagnosis, _ = examples["healthy"]
    skipped = _cases(junit.render([diagnosis]))["amp_overflow"].find("skipped")
    assert skipped.get("message").startswith("undecided: no loss_scale was recorded")


def test_what_is_accepted_is_skipped_too(examples):
    diagnosis, _ = examples["divergence"]
    diagnosis = msgspec.structs.replace(diagnosis, accepted=["divergence"])
    case = _cases(junit.render([diagnosis], fail_on="info"))["divergence"]
    assert case.find("failure") is None
    assert case.find("skipped").get("message").startswith("accepted: ")


def test_markup_and_control_characters_in_names_stay_text(examples):
    diagnosis, _ = examples["healthy"]
    hostile = 'a"<b>&amp;]]>\x1b[31m\x00\u202e/../ü'
    suite = XML(junit.render([msgspec.structs.replace(diagnosis, run=hostile)]))[0]
    assert suite.get("name") == 'a"<b>&amp;]]>\\x1b[31m\\x00\\u202e/../ü'
    assert suite.get("tests") != "0"
