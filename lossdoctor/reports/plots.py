"""A picture of a run as a file: PNG, SVG or PDF, by matplotlib, which is imported only when something is drawn."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from lossdoctor.errors import UsageError
from lossdoctor.findings import Diagnosis
from lossdoctor.reports.finding import since
from lossdoctor.reports.heat import BAD, LEVELS, NONE, ZERO, HeatMap, elided
from lossdoctor.reports.outline import leading
from lossdoctor.reports.palette import DARK, HEAT, LIGHT
from lossdoctor.reports.panels import Line, Panel
from lossdoctor.reports.picture import Picture
from lossdoctor.reports.plot_marks import draw_spans, draw_timeline, lanes_of
from lossdoctor.reports.printable import cut, number, printable, step_number
from lossdoctor.reports.scales import step_ticks, ticks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "Paper", "figure_of", "save_plot"]

Paper: TypeAlias = Literal["light", "dark"]

SUFFIXES = (".png", ".svg", ".pdf")

_WIDTH = 8.0
"""Inches. With letters of 10 points this can still be read when it is shown 600 pixels wide."""

_HEAD, _BETWEEN, _FOOT, _LEFT, _RIGHT = 0.3, 0.34, 0.55, 1.12, 0.16
"""Inches above, between, below and beside the panels."""

_DOTS = 150
_DOTTED = 120
"""Evaluations up to which each has a dot."""


def save_plot(path: Path, diagnosis: Diagnosis, picture: Picture, *, paper: Paper = "light") -> None:
    """Draw a run into a file whose suffix says the format.

    Raises:
        UsageError: The suffix is not one of SUFFIXES, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(SUFFIXES)}")
    import matplotlib as mpl  # noqa: PLC0415  a second that only those pay who want a plot

    figure = figure_of(diagnosis, picture, paper=paper)
    # Equal runs give equal files: no date, and ids that are not random.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    quick: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if path.suffix.lower() == ".png" else {}
    try:
        with mpl.rc_context({"svg.hashsalt": "lossdoctor", "svg.fonttype": "none"}), _quietly():
            figure.savefig(path, dpi=_DOTS, metadata=metadata, **quick)
    except OSError as error:
        raise UsageError(f"--plot {path}: cannot be written: {error.strerror}") from None


def figure_of(diagnosis: Diagnosis, picture: Picture, *, paper: Paper = "light") -> "Figure":
    """The figure: a timeline of the findings, then a panel for each kind of signal that was recorded."""
    import matplotlib as mpl  # noqa: PLC0415  as above
    from matplotlib.figure import Figure  # noqa: PLC0415

    colours = DARK if paper == "dark" else LIGHT
    lanes = lanes_of(picture.spans)
    timeline = len(lanes) + bool(picture.interventions)
    heights = [0.24 * timeline] if timeline else []
    heights += [2.0 if panel.key == "loss" else 1.15 for panel in picture.panels]
    heights += [max(0.5, min(3.0, 0.16 * len(heat.names))) for heat in picture.heat]
    with mpl.rc_context(_style(colours)):
        total = _HEAD + sum(heights) + _BETWEEN * len(heights) + _FOOT
        figure = Figure(figsize=(_WIDTH, total))
        figure.text(0.12 / _WIDTH, 1 - 0.14 / total, _title(diagnosis), va="top", fontsize=13, fontweight="bold")
        if not heights:
            figure.text(0.5, 0.4, "nothing was recorded that could be drawn", ha="center")
            return figure
        axes = _placed(figure, heights)
        margin = 0.006 * (picture.last - picture.first)
        axes[0].set_xlim(picture.first - margin, picture.last + margin)
        for one in axes:
            one.set_autoscale_on(False)  # limits are known; finding them again for every line takes a second
        places = iter(axes)
        if timeline:
            draw_timeline(next(places), lanes, picture, colours)
        for panel in picture.panels:
            _draw_panel(next(places), panel, picture, colours)
        for heat in picture.heat:
            _draw_heat(next(places), heat, colours)
        _draw_steps(axes, picture)
        return figure


def _placed(figure: "Figure", heights: Sequence[float]) -> list["Axes"]:
    """Axes below each other, of so many inches each: by arithmetic, as a layout engine would take longest of all."""
    total = float(figure.get_figheight())
    axes: list[Axes] = []
    top = _HEAD
    for height in heights:
        top += _BETWEEN + height
        box = (_LEFT / _WIDTH, 1 - top / total, 1 - (_LEFT + _RIGHT) / _WIDTH, height / total)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
    return axes


_FURTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS"),
)
"""Fonts for scripts that DejaVu Sans does not have, on Linux, macOS and Windows; those that are there are used."""


@cache
def _further_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import get_font_names  # noqa: PLC0415

    known = frozenset(get_font_names())
    return tuple(name for name in _FURTHER_FONTS if name in known)


@contextmanager
def _quietly() -> Iterator[None]:
    """Nothing said of glyphs and weights that the fonts of this machine do not have."""
    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            yield
    finally:
        log.setLevel(before)


def _style(colours: "Mapping[str, str]") -> dict[Any, Any]:
    return {
        "font.size": 10,
        "font.family": ["DejaVu Sans", *_further_fonts()],
        "figure.facecolor": colours["paper"],
        "savefig.facecolor": colours["paper"],
        "axes.facecolor": colours["card"],
        "axes.edgecolor": colours["rule"],
        "axes.labelcolor": colours["faint"],
        "axes.titlecolor": colours["ink"],
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlepad": 4,
        "axes.titley": 1.0,  # not moved out of the way of a colour bar
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.unicode_minus": False,
        "grid.color": colours["grid"],
        "text.color": colours["ink"],
        "text.parse_math": False,  # a name with dollar signs is a name
        "xtick.color": colours["faint"],
        "ytick.color": colours["faint"],
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "path.simplify": False,
    }


def _title(diagnosis: Diagnosis) -> str:
    finding = leading(diagnosis)
    words = f"{cut(finding.title, 42)} {since(finding)}" if finding else cut(diagnosis.verdict.capitalize(), 48)
    name = printable(diagnosis.run)
    room = 62 - len(words)
    return f"{words}   {name if len(name) <= room else '…' + name[1 - max(room, 12) :]}"


def _draw_panel(axes: "Axes", panel: Panel, picture: Picture, colours: "Mapping[str, str]") -> None:
    unit = ", ".join(part for part in (panel.unit, "log scale" if panel.scale.logarithmic else "") if part)
    axes.set_title(cut(panel.title, 60) + (f" ({unit})" if unit else ""))
    if panel.scale.logarithmic:
        axes.set_yscale("log")
    axes.set_ylim(panel.scale.low, panel.scale.high)
    found = ticks(panel.scale, 6 if panel.key == "loss" else 4)
    axes.set_yticks([value for value, _ in found], labels=[label for _, label in found])
    axes.set_yticks([], minor=True)
    for line in panel.lines:
        _draw_line(axes, panel, line, colours)
    if len(panel.marks):
        label = f"{panel.marks_label} ({panel.marks_rows:,})"
        axes.plot(panel.marks, np.full(len(panel.marks), 0.03), "s", transform=axes.get_xaxis_transform(),
                  color=colours["warning-fill"], markersize=3, label=label)  # fmt: skip
    if panel.key == "loss" and picture.best is not None:
        label = f"best {number(picture.best.value)} at {step_number(picture.best.step)}"
        axes.plot([picture.best.step], [picture.best.value], "o", color=colours["val"], markersize=9, alpha=0.5,
                  label=label, clip_on=False, zorder=5)  # fmt: skip
    draw_spans(axes, panel, picture, colours)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.97), ncols=4, borderpad=0.1, handlelength=1.4,
                    columnspacing=1.2, handletextpad=0.5)  # fmt: skip


def _draw_line(axes: "Axes", panel: Panel, line: Line, colours: "Mapping[str, str]") -> None:
    """The line broken where nothing was finite; what does not fit and what is no number as marks at the edges."""
    curve, colour = line.curve, colours[line.role]
    cuts = sorted(curve.gaps)
    steps, values = np.insert(curve.steps, cuts, np.nan), np.insert(curve.values, cuts, np.nan)
    dotted = line.role == "val" and len(curve.values) <= _DOTTED
    lone = len(curve.values) <= 2 * len(cuts) + 1  # hardly a line: show the points
    shown = np.clip(values, panel.scale.low, panel.scale.high)
    faint = line.trend is not None
    order = 2 if line.role == "second" else 3  # the second lies below the first
    axes.plot(steps, shown, "-o" if dotted or lone else "-", color=colour, markersize=3,
              linewidth=0.8 if faint else 1.3, alpha=0.4 if faint else 1.0,
              label=None if faint else cut(line.label), zorder=order)  # fmt: skip
    if line.trend is not None:
        trend = np.clip(line.trend[1], panel.scale.low, panel.scale.high)
        axes.plot(line.trend[0], trend, "-", color=colour, linewidth=1.4, label=cut(line.label), zorder=order + 0.5)
    beyond = panel.scale.beyond(curve.values)
    for side, mark, edge in ((curve.values > panel.scale.high, "^", panel.scale.high),
                             (curve.values < panel.scale.low, "v", panel.scale.low)):  # fmt: skip
        at = curve.steps[beyond & side]
        if len(at):
            axes.plot(at, np.full(len(at), edge), mark, color=colour, markersize=6, clip_on=False, zorder=5,
                      label=f"{len(at)} beyond the axis")  # fmt: skip
    if curve.non_finite_rows:
        axes.plot(curve.non_finite, np.full(len(curve.non_finite), 0.95), "x", transform=axes.get_xaxis_transform(),
                  color=colours["error-fill"], markersize=5, markeredgewidth=1.6, zorder=5,
                  label=f"{cut(line.label)}: {curve.non_finite_rows:,} × NaN or Inf")  # fmt: skip


def _draw_heat(axes: "Axes", heat: HeatMap, colours: "Mapping[str, str]") -> None:
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import BoundaryNorm, ListedColormap  # noqa: PLC0415

    palette = ListedColormap([colours["error-fill"], colours["zero"], *HEAT])
    levels = np.where(heat.cells >= 0, heat.cells + 2, np.where(heat.cells == BAD, 0, 1))
    shown = np.ma.masked_where(heat.cells == NONE, levels)
    rows = len(heat.names)
    axes.pcolormesh(heat.edges, np.arange(rows + 1), shown, cmap=palette, vmin=-0.5, vmax=LEVELS + 1.5, rasterized=True)
    also = ["grey: exactly zero"] * bool((heat.cells == ZERO).any())
    also += ["orange: NaN or Inf"] * bool((heat.cells == BAD).any())
    axes.set_title(f"{heat.title}" + (f" ({', '.join(also)})" if also else ""))
    axes.set_ylim(rows, 0)
    every = max(1, -(-rows // 20))
    labels = [elided(name) for name in heat.names]
    axes.set_yticks(np.arange(0, rows, every) + 0.5, labels=labels[::every], fontsize=8.5 if rows <= 12 else 7.5)  # noqa: PLR2004
    axes.grid(visible=False)
    scale = ScalarMappable(BoundaryNorm(heat.bounds, LEVELS), ListedColormap(list(HEAT)))
    inch = 1 / max(axes.get_position().height * float(axes.figure.get_figheight()), 0.1)  # type: ignore[union-attr]
    bar = axes.inset_axes((0.72, 1 + 0.065 * inch, 0.2, 0.1 * inch))
    axes.figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=[])
    bar.minorticks_off()
    for x, value, side in ((-0.04, heat.low, "right"), (1.04, heat.high, "left")):
        bar.text(x, 0.5, number(value, digits=2), transform=bar.transAxes, ha=side, va="center_baseline", fontsize=9,
                 color=colours["faint"])  # fmt: skip


def _draw_steps(places: Sequence["Axes"], picture: Picture) -> None:
    """The step axis, at the bottom of all panels, with ticks for epochs."""
    for axes in places:
        axes.tick_params(axis="x", which="both", labelbottom=axes is places[-1])
    axes = places[-1]
    found = step_ticks(picture.first, picture.last, 8)
    axes.set_xticks([step for step, _ in found], labels=[label for _, label in found])
    words = picture.horizontal
    begins = [step for step in picture.epochs if picture.first <= step < picture.last]
    if begins and len(begins) <= 200:  # noqa: PLR2004  more are a bar
        axes.set_xticks(begins, minor=True)
        words += f"; small ticks: {len(begins) + 1} epochs"
    axes.set_xlabel(words)
