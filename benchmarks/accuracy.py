"""How often the doctor is right, on a corpus of real small trainings: `python -m benchmarks.accuracy [RECORDINGS]`.

Each recipe of tests/pathologies is trained once and recorded (some minutes; kept in RECORDINGS), then diagnosed.

* recall: faulty runs with an open finding that the label accepts as the cause
* right: faulty runs whose verdict, the leading cause, the label accepts
* stray: open findings of warning or error that are neither an accepted cause nor a consequence, per faulty run
* false alarms: healthy runs with an open finding of warning or error; passing: healthy runs with any finding at all,
  resolved ones and hints included
* delay: steps from the onset of the fault, where the recipe knows it to ten steps, to the step of detection
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lossdoctor.diagnosis import diagnose
from lossdoctor.findings import Diagnosis, Finding
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs import is_run, read_run
from tests.pathologies.recipes import RECIPES, Recipe
from tests.pathologies.record import record_all

_ONSET_KNOWN = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """A recipe and what was said of its recording."""

    recipe: Recipe
    diagnosis: Diagnosis

    @property
    def alarms(self) -> list[Finding]:
        """Findings that ask for attention: warnings and errors that have not resolved themselves."""
        return [finding for finding in self.diagnosis.findings if finding.severity in {"warning", "error"}]

    @property
    def found(self) -> bool:
        """Whether an accepted cause is among the alarms."""
        return any(finding.rule in self.recipe.expected for finding in self.alarms)

    @property
    def right(self) -> bool:
        """Whether the verdict is accepted."""
        return self.diagnosis.verdict in (self.recipe.expected or {"healthy"})

    @property
    def strays(self) -> set[str]:
        """Alarms that the label knows neither as cause nor as consequence."""
        return {finding.rule for finding in self.alarms} - self.recipe.expected - self.recipe.consequences

    @property
    def delay(self) -> float | None:
        """Steps from the known onset of the fault to its detection."""
        since = self.recipe.since
        if since is None or since[1] - since[0] > _ONSET_KNOWN:
            return None
        detected = [finding.detected for finding in self.alarms if finding.rule in self.recipe.expected]
        return min(detected) - since[0] if detected else None


def judge(recordings: Path) -> list[Judged]:
    """Record what is missing, diagnose everything."""
    missing = [recipe for recipe in RECIPES if not is_run(recordings / recipe.name)]
    if missing:
        record_all(missing, recordings, jobs=2, tell=print)
    rulebook = Rulebook.load()
    return [Judged(recipe, diagnose(read_run(recordings / recipe.name), rulebook)) for recipe in RECIPES]


def report(judged: Sequence[Judged]) -> list[str]:
    """The figures as lines."""
    healthy = [one for one in judged if one.recipe.healthy]
    faulty = [one for one in judged if not one.recipe.healthy]
    alarmed = [one.recipe.name for one in healthy if one.alarms]
    passing = [one.recipe.name for one in healthy if one.diagnosis.findings]
    lines = [
        f"{len(healthy)} healthy runs: {len(alarmed)} with an alarm {alarmed or ''}, {len(passing)} with a passing one",
        (
            f"{len(faulty)} faulty runs: recall {_share(faulty, 'found')}, right {_share(faulty, 'right')}, "
            f"stray alarms per run {sum(len(one.strays) for one in faulty) / len(faulty):.2f}"
        ),
        "",
        f"{'first accepted cause':24} {'runs':>4} {'recall':>7} {'right':>7} {'delay, median steps':>20}",
    ]
    by_cause: dict[str, list[Judged]] = defaultdict(list)
    for one in faulty:
        by_cause[next(cause for cause in one.recipe.expected if one.recipe.name.startswith(cause))].append(one)
    for cause, runs in sorted(by_cause.items()):
        delays = [one.delay for one in runs if one.delay is not None]
        delay = f"{statistics.median(delays):.0f}" if delays else ""
        lines.append(f"{cause:24} {len(runs):4} {_share(runs, 'found'):>7} {_share(runs, 'right'):>7} {delay:>20}")
    lines.append("")
    lines += [f"  {one.recipe.name}: {one.diagnosis.verdict}" for one in judged if not one.right]
    return lines


def _share(runs: Sequence[Judged], what: str) -> str:
    return f"{sum(getattr(one, what) for one in runs) / len(runs):.2f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="?", default=Path("build/corpus"))
    print("\n".join(report(judge(parser.parse_args().recordings))))


if __name__ == "__main__":
    main()
