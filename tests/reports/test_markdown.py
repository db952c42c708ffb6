"""The Markdown report: everything said, nothing obeyed."""

import re

from lossdoctor.reports import markdown


def test_every_finding_and_every_unchecked_rule_is_named(examples):
    diagnosis = examples["divergence"][0]
    report = markdown.render([diagnosis]).replace("\\", "")
    for name in [*(finding.rule for finding in diagnosis.findings), *(rule.rule for rule in diagnosis.undecided)]:
        assert name in report


def test_html_mentions_and_links_in_a_log_are_escaped(examples):
    diagnosis = examples["hostile"][0]
    report = markdown.render([diagnosis])
    assert not re.search(r"(?<!\\)[<\[]bold", report)
    assert "\x1b" not in report
    assert "\u202e" not in report
