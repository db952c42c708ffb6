"""What may be concluded from a comparison, and what may not."""

from collections.abc import Sequence
from typing import Any

from lossdoctor.comparison.settings import same
from lossdoctor.comparison.values import Difference, Group, RunSummary

__all__ = ["attribution", "remarks", "settings_that_differ"]


def settings_that_differ(found: Sequence[Difference]) -> list[Difference]:
    """The differences that may change what is learned, without what follows from another one."""
    return [one for one in found if one.source in {"config", "recipe"} and one.follows_from is None]


def attribution(found: Sequence[Difference], runs: Sequence[RunSummary], *, identical: bool) -> str | None:
    """The one setting that an effect can be put down to."""
    settings = settings_that_differ(found)
    if identical or len(settings) != 1:
        return None
    seeds_differ = any(one.source == "seed" for one in found)
    replicated = min((sum(run.group == group for run in runs) for group in {run.group for run in runs}), default=0)
    return settings[0].name if not seeds_differ or replicated > 1 else None


def remarks(
    found: Sequence[Difference],
    runs: Sequence[RunSummary],
    groups: Sequence[Group],
    by: Sequence[str],
    *,
    identical: bool,
) -> list[str]:
    """Sentences on what the comparison can tell."""
    sentences = []
    settings = [one.name for one in settings_that_differ(found)]
    seeds = [one for one in found if one.source == "seed"]
    environment = [one.name for one in found if one.source == "environment"]
    if identical:
        sentences.append("The runs are identical: every loss and metric has the same value at every step.")
    elif twins := [run for run in runs if run.same_as is not None]:
        pairs = "; ".join(f"{run.run} is the same as {run.same_as}" for run in twins)
        sentences.append(f"Runs with exactly the same numbers are no replicates: {pairs}.")
    if not settings and not identical:
        sentences.append(_without_settings(runs, has_seeds=bool(seeds)))
    elif len(settings) == 1:
        sentences.append(f"The only recorded setting that differs is {settings[0]}.")
        if seeds and max((group.replicates for group in groups), default=1) < 2:  # noqa: PLR2004  one run each
            sentences.append(
                "The seed differs too, and with one run of each its effect cannot be told from the setting's: "
                "the effect is not attributable."
            )
    elif settings:
        more = f" and {len(settings) - 4} more" if len(settings) > 4 else ""  # noqa: PLR2004  enough to see the point
        sentences.append(
            f"{len(settings)} settings differ ({', '.join(settings[:4])}{more}): "
            "an effect is not attributable to any one of them."
        )
    sentences += _beside(found, runs, by)
    if not identical and min((group.replicates for group in groups), default=1) < 2:  # noqa: PLR2004  one run
        sentences.append("Of a single run, intervals show the noise within it; another seed may differ by more.")
    if environment and not identical:
        sentences.append(f"The environment differs too: {', '.join(environment[:4])}.")
    return sentences


def _without_settings(runs: Sequence[RunSummary], *, has_seeds: bool) -> str:
    if not any(run.settings for run in runs):
        return "No settings were recorded, so what differs is not known; record them with Monitor(..., config={...})."
    if has_seeds:
        return "The same settings with other seeds: what differs is chance."
    return (
        "No recorded setting differs, and neither does the seed: the training is not deterministic, or something "
        "that was not recorded differs (code, data)."
    )


def _beside(found: Sequence[Difference], runs: Sequence[RunSummary], by: Sequence[str]) -> list[str]:
    """Of groups that were asked for: settings that vary within one, or along with the groups."""
    if not by:
        return []
    within: list[str] = []
    along: list[str] = []
    for one in settings_that_differ(found):
        if one.name in by:
            continue
        (within if _varies_within(one.values, [run.group for run in runs]) else along).append(one.name)
    sentences = []
    if within:
        sentences.append(f"Within groups, {', '.join(within)} varies too, so their runs are no mere replicates.")
    if along:
        sentences.append(f"The groups differ in {', '.join(along)} as well as in {', '.join(by)}.")
    return sentences


def _varies_within(values: Sequence[Any], groups: Sequence[int]) -> bool:
    first: dict[int, Any] = {}
    return any(not same(first.setdefault(group, value), value) for value, group in zip(values, groups, strict=True))
