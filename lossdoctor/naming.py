"""The names of what a finding is about, from the lists that run.json keeps of a model's parameters and modules.

Rules judge how many there are, as numbers have a history and go through the clocks; which they are is known as of the
last sample step.
"""

from collections.abc import Mapping

import msgspec

from lossdoctor.findings import Finding
from lossdoctor.rule import Rule
from lossdoctor.runs.info import ModelChecks

__all__ = ["LISTS", "named"]

LISTS = frozenset(field.name for field in msgspec.structs.fields(ModelChecks) if field.type == list[str])
"""The lists of names a rule may ask for."""


def named(finding: Finding, rules: Mapping[str, Rule], checks: ModelChecks) -> Finding:
    """The finding with the names of what it is about; what is over is about nothing any more.

    >>> sorted(LISTS)[:2]
    ['modules_in_eval', 'parameters_never_moved']
    """
    rule = rules.get(finding.rule)
    if rule is None or not rule.names or finding.resolved:
        return finding
    names = dict.fromkeys(name for each in rule.names for name in getattr(checks, each))
    return msgspec.structs.replace(finding, names=list(names))
