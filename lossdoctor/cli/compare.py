"""`lossdoctor compare`: what differs between runs, and whether it is more than noise."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from lossdoctor.cli.analyze import MapOption, RulesOption, SetOption, columns_of, load_rulebook
from lossdoctor.cli.output import page_for, write, write_file
from lossdoctor.configuration import find_configuration

__all__ = ["compare"]

ComparisonFormat: TypeAlias = Literal["text", "json"]


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN", help="Runs, logs, or directories of them.")],
    *,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="KEYS", help="Group runs by these settings, e.g. optimizer,lr; seeds replicate."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="Rank by this metric. Default: val_loss.")
    ] = None,
    format: Annotated[  # noqa: A002 (the name of the option)
        ComparisonFormat, typer.Option("--format", help="How to report.")
    ] = "text",
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the report here.")] = None,
    set_: SetOption = None,
    rules: RulesOption = None,
    map_: MapOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All metrics and all settings.")] = False,
) -> None:
    """Compare runs with the first: settings, where they part, results with intervals, findings gained and lost.

    Exit code: 0, or 2 for bad usage or unreadable input.
    """
    from lossdoctor.comparison import compare as compared
    from lossdoctor.comparison import render, render_json

    rulebook = load_rulebook(find_configuration(), rules or [], set_ or [])
    keys = [key.strip() for key in (by or "").split(",") if key.strip()]
    comparison = compared(paths, by=keys, metric=metric, rulebook=rulebook, columns=columns_of(map_ or []))
    report = render_json(comparison) if format == "json" else render(comparison, page=page_for(output, verbose=verbose))
    if output is not None:
        write_file(output, report)
    else:
        write(report)
