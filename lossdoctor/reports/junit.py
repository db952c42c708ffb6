"""Diagnoses as JUnit XML, which every CI system shows: a suite a run, a test case a rule.

A rule with a finding as grave as `fail_on` failed; one that could not be judged, or whose findings are accepted, was
skipped; graver or milder findings that do not count are told in the output of their case.
"""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from lossdoctor.configuration import FailOn
from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding
from lossdoctor.reports.finding import steps_of
from lossdoctor.reports.printable import printable

__all__ = ["render"]


def render(diagnoses: Sequence[Diagnosis], *, fail_on: FailOn = "error") -> str:
    """The document as text. `fail_on` is a severity, or "never"."""
    root = ET.Element("testsuites", name="lossdoctor")
    for diagnosis in diagnoses:
        root.append(_suite(diagnosis, fail_on))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", "0")
    ET.indent(root)
    # ASCII: what is not is written as a reference, whatever the encoding of the file or pipe it goes to.
    content: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=True)
    return content.decode("ascii") + "\n"


def _suite(diagnosis: Diagnosis, fail_on: FailOn) -> ET.Element:
    run = printable(diagnosis.run)
    suite = ET.Element("testsuite", name=run, errors="0", time="0")
    properties = ET.SubElement(suite, "properties")
    for name in ("verdict", "category", "severity", "status", "steps", "evaluations"):
        value = printable(str(getattr(diagnosis, name)))
        ET.SubElement(properties, "property", name=name, value=value)
    found: dict[str, list[Finding]] = {}
    for finding in diagnosis.findings:
        if finding.family != ADVICE:
            found.setdefault(finding.rule, []).append(finding)
    cases = {rule: _found(findings, diagnosis, fail_on) for rule, findings in found.items()}
    cases |= {rule: [] for rule in diagnosis.passed if rule not in cases}
    for rule in diagnosis.undecided:
        if rule.family != ADVICE:
            cases[rule.rule] = [_skipped(f"undecided: {rule.reason}")]
    for rule_id in sorted(cases):
        case = ET.SubElement(suite, "testcase", name=printable(rule_id), classname=run, time="0")
        case.extend(cases[rule_id])
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(1 for case in suite if case.find("failure") is not None)))
    suite.set("skipped", str(sum(1 for case in suite if case.find("skipped") is not None)))
    return suite


def _found(findings: Sequence[Finding], diagnosis: Diagnosis, fail_on: FailOn) -> list[ET.Element]:
    """What a test case holds of a rule's findings."""
    worst = max(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    text = "\n".join(line for finding in findings for line in _lines(finding, diagnosis.steps))
    output = ET.Element("system-out")
    output.text = text
    if worst.rule in diagnosis.accepted:
        return [_skipped(f"accepted: {worst.message}"), output]
    if fail_on == "never" or SEVERITIES.index(worst.severity) < SEVERITIES.index(fail_on):
        return [output]
    failure = ET.Element("failure", message=printable(worst.message), type=worst.severity)
    failure.text = text
    return [failure]


def _lines(finding: Finding, steps: int) -> list[str]:
    where = steps_of(finding, float(steps) if steps else None)
    lines = [f"{finding.severity}[{finding.rule}]: {finding.message}", f"  {where}"]
    if finding.explained_by:
        lines.append(f"  explained by {finding.explained_by}")
    lines += [f"  help: {fix.advice}" for fix in finding.prescriptions]
    return [printable(line) for line in lines]


def _skipped(message: str) -> ET.Element:
    return ET.Element("skipped", message=printable(message))
