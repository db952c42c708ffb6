"""`lossdoctor compare`: what differs between runs, and whether it is more than noise."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from lossdoctor.cli.analyze import MapOption, RulesOption, SetOption, columns_of, load_rulebook
from lossdoctor.cli.output import page_for, write, write_file
from lossdoctor.configuration import find_configuration

__all__ = ["compare"]

ComparisonFormat: TypeAlias = Literal["text", "json", "html"]


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
    from lossdoctor.comparison import compare_curves, render, render_html, render_json

    rulebook = load_rulebook(find_configuration(), rules or [], set_ or [])
    keys = [key.strip() for key in (by or "").split(",") if key.strip()]
    comparison, curves = compare_curves(
        paths, by=keys, metric=metric, rulebook=rulebook, columns=columns_of(map_ or [])
    )
    send = write if output is None else partial(write_file, output)
    if format == "html":
        send(render_html(comparison, curves))
    elif format == "json":
        send(render_json(comparison))
    else:
        send(render(comparison, page=page_for(output, verbose=verbose)))
