"""What an expression of the rule language may refer to, and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Scope"]


@dataclass(frozen=True, slots=True)
class Scope:
    """The names an expression may use.

    `measures` maps a name to its expression, `constants` are thresholds, `signals` what may be observed and `facts`
    the numbers of the run. `where` begins every error message, e.g. "rules/overfitting.toml".
    """

    where: str
    signals: frozenset[str]
    facts: frozenset[str] = frozenset()
    constants: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, str] = field(default_factory=dict)
