"""A rule as its file says it: one pathology, with its fixes and its tests."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from lossdoctor.clocks import names_on
from lossdoctor.expressions import Scope
from lossdoctor.findings import Applicability, Category, Severity
from lossdoctor.signals import FACTS, Clock

__all__ = ["ACTIONS", "OPTIONAL", "Fix", "Rule", "RuleTest", "Variant", "Verify"]

ACTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "scale_lr": ("factor",),
        "warm_up_again": ("steps",),
        "scale_weight_decay": ("factor",),
        "tighten_clipping": ("max_norm",),
        "loosen_clipping": ("max_norm",),
        "skip_step": (),
        "skip_batch": ("max_norm",),
        "rewind": ("before", "factor"),
        "early_stop": ("to_step",),
        "lower_loss_scale": ("factor",),
    }
)
"""What can be done to a running training, with the numbers each action takes."""

OPTIONAL: Mapping[str, frozenset[str]] = MappingProxyType({"rewind": frozenset({"before", "factor"})})
"""Numbers that may be left out: without `before` a rewind goes back to before the finding's `since`.

With `factor` it also multiplies the learning rate.
"""

_COUNTED = frozenset({"steps", "evaluations"})
"""What is counted rather than recorded: facts of rules on the run clock."""


class Verify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which condition a fix counts as a success, and within how many ticks of the rule's clock."""

    when: str
    within: int


class Fix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do about a pathology.

    `when` limits it to some runs; `arguments` are expressions over the rule's measures. A fix whose numbers are not
    known is not offered.
    """

    advice: str
    action: str | None = None
    applicability: Applicability = "manual"
    when: str | None = None
    arguments: dict[str, str] = {}
    verify: Verify | None = None


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A special case of a pathology: the first whose condition holds gives the message, and fixes if it has any.

    `severity` replaces the rule's, where the case is a graver or a lighter one.
    """

    when: str
    message: str
    severity: Severity | None = None
    fixes: list[Fix] = []


class RuleTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test inside a rule file: signals in promtool's notation, and what is expected of them.

    `given` maps a signal to "a+bxn" notation, or to a list of those, one for each layer; `facts` are facts of the run.
    `expect` has one of `fires_at` (the 0-based tick that completes the streak), `silent`, `undecided`; with fires_at
    also `episode` (which of several is meant, by default the first), `until` (tick), `severity`, `message` (a part of
    it), `layers` (numbers), `advice` (a part of the first fix), `action` (among the fixes), `arguments` (numbers that
    this action, or the first one, takes, to three digits).
    """

    name: str
    given: dict[str, str | list[str]]
    expect: dict[str, Any]
    facts: dict[str, float] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pathology, as its file says it.

    `peak` names the measure whose highest value tells how bad an episode became (and which layer is worst). `evidence`
    is the signal to draw beside a finding. `applies_when` is a condition on facts of the run: where it is known to be
    false the rule has nothing to say, and is neither passed nor undecided. Without a decision on every `vital` rule a
    run is not called healthy. `names` are lists in the `checks` of run.json with the names of what a finding is about.
    `at_layer` names the measure that is the number of the layer a finding is about, for rules not on layers; `at_step`
    the one that is the step at which it happened, for rules that know an event by what comes of it later.
    """

    id: str
    title: str
    family: Literal["numerics", "stability", "learning", "generalization", "throughput", "recipe", "benign"]
    category: Category
    severity: Severity
    kind: Literal["state", "event"]
    clock: Clock
    when: str
    message: str
    explain: str
    sources: list[str]
    each: Literal["layer"] | None = None
    applies_when: str | None = None
    error_when: str | None = None
    peak: str | None = None
    evidence: str | None = None
    patience: int = 1
    vital: bool = False
    explains: list[str] = []
    names: list[str] = []
    at_layer: str | None = None
    at_step: str | None = None
    thresholds: dict[str, float] = {}
    measures: dict[str, str] = {}
    variants: list[Variant] = []
    fixes: list[Fix] = []
    tests: list[RuleTest] = []

    # Known once the file was checked; a file may not set them.
    path: str = ""
    signals: frozenset[str] = frozenset()
    """The names `when` depends on: the rule ticks where all of them were observed."""
    optional: frozenset[str] = frozenset()
    """Names that only messages, variants and fixes use."""
    facts: frozenset[str] = frozenset()
    """Facts of the run `when` depends on."""

    @property
    def scope(self) -> Scope:
        """The names its expressions may use."""
        return Scope(
            where=self.path,
            signals=names_on(self.clock),
            facts=frozenset(FACTS) | (_COUNTED if self.clock == "run" else frozenset()),
            constants=self.thresholds,
            measures=self.measures,
        )
