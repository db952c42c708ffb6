"""The corpus, recorded and judged: each training with its label and with what was said of it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.accuracy.peers import PEERS
from benchmarks.accuracy.thinned import LOGS
from lossdoctor.diagnosis import diagnose
from lossdoctor.findings import Diagnosis, Finding
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import Run, is_run, read_run
from tests.pathologies.recipes import RECIPES, Recipe
from tests.pathologies.record import record_all

__all__ = ["FIRST_HALF", "Judged", "judge", "recorded"]

FIRST_HALF = frozenset({"autoencoder", "diabetes", "digits_mlp", "digits_vit", "text_transformer", "views"})
"""Task families of one half; all others are the other one."""

_ONSET_KNOWN = 10
"""A label whose span of onsets is wider says nothing about a delay."""

_LEVEL = 20
"""Steps over which the level of a loss is taken."""


@dataclass(frozen=True)
class Judged:
    """A recipe and what was said of its recording by the rules in force.

    `thinned` has the same by ways of logging, `peers` the alarms of other tools by their names.
    """

    recipe: Recipe
    diagnosis: Diagnosis
    rulebook: Rulebook
    thinned: Mapping[str, "Judged"] = field(default_factory=dict)
    peers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    in_time: bool | None = None
    """Whether what the run needs said early was: NaN at its step, divergence before half of the progress was lost."""

    @property
    def alarms(self) -> list[Finding]:
        """Findings that ask for attention: warnings and errors that have not resolved themselves."""
        return [finding for finding in self.diagnosis.findings if finding.severity in {"warning", "error"}]

    @property
    def hint(self) -> bool:
        """Whether all that is expected is information, which leaves a verdict as it is."""
        rules = [self.rulebook.rules.get(cause) for cause in self.recipe.expected]
        return bool(rules) and all(rule is not None and rule.severity in {"info", "benign"} for rule in rules)

    @cached_property
    def accepted(self) -> list[Finding]:
        """Findings that the label accepts as the cause."""
        said = self.alarms
        if self.hint:
            said = [finding for finding in self.diagnosis.findings if not finding.resolved]
        return [finding for finding in said if finding.rule in self.recipe.expected]

    @property
    def found(self) -> bool:
        """Whether an accepted cause is among what is said."""
        return bool(self.accepted)

    @property
    def right(self) -> bool:
        """Whether the verdict is accepted; for information: that it is said, and no alarm leads."""
        if self.hint:
            return self.found and self.diagnosis.verdict in self.recipe.expected | {"healthy"}
        return self.diagnosis.verdict in (self.recipe.expected or {"healthy"})

    @property
    def right_category(self) -> bool:
        """Whether an experimenter who acts on the category alone would do the right thing."""
        rules = [self.rulebook.rules[cause] for cause in self.recipe.expected if cause in self.rulebook.rules]
        wanted: set[str] = {rule.category for rule in rules} if rules and not self.hint else {"healthy"}
        return self.diagnosis.category in wanted

    @property
    def strays(self) -> set[str]:
        """Alarms that the label knows neither as cause nor as consequence."""
        return {finding.rule for finding in self.alarms} - self.recipe.expected - self.recipe.consequences

    @property
    def cause(self) -> str:
        """The accepted cause that the recipe is named after."""
        named = [cause for cause in self.recipe.expected if self.recipe.name.startswith(cause)]
        return max(named, key=len) if named else min(self.recipe.expected, default="")

    @property
    def delay(self) -> float | None:
        """Steps from the known onset of the fault, its injection or a narrow label, to its detection."""
        since, injected = self.recipe.since, [fault.step for fault in self.recipe.settings.faults]
        if injected:
            onset = float(min(injected))
        elif since is not None and since[1] - since[0] <= _ONSET_KNOWN:
            onset = since[0]
        else:
            return None
        return max(0.0, min(finding.detected for finding in self.accepted) - onset) if self.accepted else None


def recorded(recordings: Path, recipes: Sequence[Recipe] = RECIPES) -> None:
    """Train and record what is missing."""
    missing = [recipe for recipe in recipes if not is_run(recordings / recipe.name)]
    if missing:
        record_all(missing, recordings, jobs=2, tell=print)


def judge(recordings: Path, recipes: Sequence[Recipe] = RECIPES) -> Iterator[Judged]:
    """Diagnose every recording, in full and thinned, and ask the peers."""
    rulebook = Rulebook.load()
    for recipe in recipes:
        run = read_run(recordings / recipe.name)
        diagnosis = diagnose(run, rulebook)
        thinned = {name: Judged(recipe, diagnose(log(run), rulebook), rulebook) for name, log in LOGS.items()}
        peers = {name: _asked(peer.alarms, run) for name, peer in PEERS.items()}
        yield Judged(recipe, diagnosis, rulebook, thinned, peers, _in_time(recipe, run, diagnosis))


def _asked(peer: Callable[[Run], frozenset[str]], run: Run) -> frozenset[str]:
    with np.errstate(all="ignore"):
        return peer(run)


def _in_time(recipe: Recipe, run: Run, diagnosis: Diagnosis) -> bool | None:
    """See `Judged.in_time`; None where the run is none of these, or made no progress that it could lose."""
    losses = run.steps.columns["train_loss"].values
    if "non_finite_loss" in recipe.expected and not np.isfinite(losses).all():
        first = run.steps.step[int(np.argmin(np.isfinite(losses)))]
        return any(found.rule == "non_finite_loss" and found.detected == first for found in diagnosis.findings)
    if recipe.expected != {"divergence"}:
        return None
    detected = min((found.detected for found in diagnosis.findings if found.rule == "divergence"), default=math.inf)
    level = _levels(losses.astype(np.float64))
    lowest = np.minimum.accumulate(level)
    progress = level[0] - lowest
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.where(progress > 0, (level - lowest) / progress, 0.0)
    worst = np.flatnonzero((lost > 0.5) & (progress > 0.2 * (level[0] - lowest[-1])))
    if not len(worst) or lowest[-1] >= level[0]:
        return None
    return bool(detected <= run.steps.step[worst[0]])


def _levels(losses: np.ndarray) -> np.ndarray:
    """The median of the last steps at each step; what is not finite counts as infinite."""
    losses = np.where(np.isfinite(losses), losses, np.inf)
    padded = np.concatenate((np.full(_LEVEL - 1, losses[0]), losses))
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _LEVEL), axis=-1)
