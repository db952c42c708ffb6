"""What a plot says of findings and interventions: a timeline above the panels, shades and lines within them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lossdoctor.reports.panels import Panel
from lossdoctor.reports.picture import Picture, Span
from lossdoctor.reports.printable import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_spans", "draw_timeline", "lanes_of"]

_LANES = 8


def lanes_of(spans: Sequence[Span]) -> list[tuple[str, list[Span]]]:
    """The rules that found something, causes first, each with its episodes."""
    rules: dict[str, list[Span]] = {}
    for span in spans:
        if span.severity != "benign":
            rules.setdefault(span.rule, []).append(span)
    ordered = sorted(rules.items(), key=lambda item: not any(span.cause for span in item[1]))
    return ordered[:_LANES]


def draw_timeline(
    axes: "Axes", lanes: Sequence[tuple[str, list[Span]]], picture: Picture, colours: Mapping[str, str]
) -> None:
    """A row for each rule that found something, with its name at the onset, and one for what was done."""
    least = (picture.last - picture.first) / 300  # a single step is still seen
    for row, (rule, spans) in enumerate(lanes):
        cause = any(span.cause for span in spans)
        bars = [(span.since, max(span.until - span.since, least)) for span in spans]
        fills = [colours[f"{span.severity}-fill"] for span in spans]
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=fills, alpha=0.8 if cause else 0.4)
        times = f" × {len(spans)}" if len(spans) > 1 else ""
        _name(
            axes,
            f"{rule}{times}{'' if cause else ' (follows)'}",
            spans[0].since,
            row,
            picture,
            colours=colours,
            several=len(spans) > 1,
        )
    acts = [act.step for act in picture.interventions]
    if acts:
        axes.plot(acts, [len(lanes)] * len(acts), "D", color=colours["act"], markersize=6)
        _name(axes, "treated", min(acts), len(lanes), picture, colours=colours, several=len(acts) > 1)
    axes.set_ylim(len(lanes) + bool(picture.interventions) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(axis="x", which="both", length=0)


def _name(
    axes: "Axes",
    text: str,
    step: float,
    height: float,
    picture: Picture,
    *,
    colours: Mapping[str, str],
    top: bool = False,
    several: bool = False,
) -> None:
    """A name beside a step, on the side where there is room; beside the first of `several` not over the others."""
    from matplotlib import patheffects  # noqa: PLC0415

    flip = step > picture.first + (0.3 if several else 0.6) * (picture.last - picture.first)
    axes.annotate(
        cut(text, 44),
        (step, height),
        xycoords=("data", "axes fraction") if top else "data",
        xytext=(-5 if flip else 5, 0),
        textcoords="offset points",
        ha="right" if flip else "left",
        va="top" if top else "center",
        fontsize=9,
        fontweight="bold",
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground=colours["card"])],
        annotation_clip=False,
        zorder=6,
    )


def draw_spans(axes: "Axes", panel: Panel, picture: Picture, colours: Mapping[str, str]) -> None:
    """Findings as shades with a line at the onset; a cause's name where its evidence is drawn."""
    whole_height = axes.get_xaxis_transform()
    local = [span for span in picture.spans if not span.whole and span.severity != "benign"]
    for severity, cause in sorted({(span.severity, span.cause) for span in local}):
        alike = [span for span in local if (span.severity, span.cause) == (severity, cause)]
        colour = colours[f"{severity}-fill"]
        bars = [(span.since, span.until - span.since) for span in alike]
        axes.broken_barh(bars, (0, 1), transform=whole_height, color=colour, alpha=0.1 if cause else 0.04,
                         linewidth=0, zorder=1)  # fmt: skip
        if cause:
            axes.vlines([span.since for span in alike], 0, 1, transform=whole_height, color=colour, linewidth=0.9,
                        linestyle=(0, (4, 3)), zorder=2)  # fmt: skip
    about = {span.rule: span for span in reversed(local) if span.cause and span.signal in panel.signals}
    for row, span in enumerate(sorted(about.values(), key=lambda span: span.since)[:3]):
        below = 0.27 / (2.0 if panel.key == "loss" else 1.15) * row
        _name(axes, span.rule, span.since, 0.95 - below, picture, colours=colours, top=True)
    steps = [act.step for act in picture.interventions]
    axes.vlines(
        steps, 0, 1, transform=whole_height, color=colours["act"], linewidth=1.2, linestyle=(0, (1, 2)), zorder=2
    )
