"""A comparison as one web page: what differs and what came of it, beside the curves of all runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lossdoctor.comparison.grouped import has_groups
from lossdoctor.comparison.layout import letters
from lossdoctor.comparison.sections import sections_of
from lossdoctor.comparison.series import Floats, Series
from lossdoctor.comparison.values import Comparison
from lossdoctor.reports.chart import Chart, Charts
from lossdoctor.reports.html import document
from lossdoctor.reports.palette import RUNS
from lossdoctor.reports.paths import BOTTOM, TALL, TOP, Path, StepAxis, dots, through
from lossdoctor.reports.printable import step_number
from lossdoctor.reports.scales import Scale, fitting, step_ticks, ticks
from lossdoctor.reports.thinning import Thinned, thin

__all__ = ["render_html"]

_BADGES = {
    "error": "error",
    "warning": "warning",
    "undecided": "undecided",
    "info": "info",
    "benign": "benign",
    "healthy": "good",
}
_FOLDED = 16
"""Rows of a table from which on it is folded."""
_CHARTS = 4
_SAID = 8
"""Runs up to which the values under the pointer are told."""
_STRETCHES = 250
_FEW_DOTS = 60


def render_html(comparison: Comparison, curves: Sequence[Mapping[str, Series]]) -> str:
    """The page. `curves` has, for each run, the curves by their metric (comparing.compare_curves)."""
    names = letters(len(comparison.runs))
    colours = _colours(comparison)
    return document(
        "comparison.html",
        title=f"{len(names)} runs compared",
        comparison=comparison,
        sections=[section for section in sections_of(comparison, verbose=True) if section.rows],
        charts=_charts(comparison, curves, list(zip(colours, names, strict=True))),
        colours=dict(zip(names, colours, strict=True)),
        groups={f"{run.group + 1}": colour for run, colour in zip(comparison.runs, colours, strict=True)},
        badges=_BADGES,
        folded=_FOLDED,
    )


def _colours(comparison: Comparison) -> list[str]:
    """The classes of every run: a colour for each group where there are groups, else for each run."""
    several = has_groups(comparison)
    places = [run.group if several else number for number, run in enumerate(comparison.runs)]
    thin_too = " thin" if len(places) > RUNS else ""
    return [f"run-{place % RUNS}{' again' if place // RUNS % 2 else ''}{thin_too}" for place in places]


def _charts(
    comparison: Comparison, curves: Sequence[Mapping[str, Series]], lines: Sequence[tuple[str, str]]
) -> Charts | None:
    """The metric that runs are ranked by, the training loss, and what else all of them have."""
    common = [name for name in curves[0] if all(name in own for own in curves)]
    first = [name for name in common if name == comparison.metric] + [name for name in common if name == "train_loss"]
    shown = list(dict.fromkeys([*first, *common]))[:_CHARTS]
    ends = [own[name].steps[[0, -1]] for own in curves for name in shown]
    if not ends:
        return None
    low, high = float(np.min(ends)), float(np.max(ends))
    axis = StepAxis.over(low, high if high > low else low + 1)
    return Charts(
        first=axis.first,
        unit=axis.unit,
        width=axis.width,
        charts=tuple(_chart(name, comparison, [own[name] for own in curves], axis, lines=lines) for name in shown),
        lanes=(),
        more_lanes=0,
        axis=tuple((axis.percent(step), axis.at(step), label) for step, label in step_ticks(low, high)),
        epochs=(),
        acts=(),
        horizontal="steps",
    )


def _chart(
    metric: str, comparison: Comparison, series: Sequence[Series], axis: StepAxis, *, lines: Sequence[tuple[str, str]]
) -> Chart:
    """The curves of one metric; `lines` are colour and name of every run."""
    drawn = [_thinned(one) for one in series]
    scale = fitting([curve.values for curve in drawn])
    paths: list[Path] = []
    notes: list[tuple[str, str]] = []
    is_few = len(lines) <= _SAID
    for (colour, name), curve in zip(lines, drawn, strict=True):
        x, y = axis.x(curve.steps), _heights(scale, curve.values)
        paths.append(Path(through(x, y, curve.gaps), f"line {colour}", name if is_few else ""))
        if len(x) <= _FEW_DOTS and is_few:
            paths.append(Path(dots(x, y), f"dots {colour}"))
        if curve.non_finite_rows:
            notes.append(("bad", f"{name}: {curve.non_finite_rows:,} × NaN or Inf"))
            paths.append(Path(dots(axis.x(curve.non_finite), TOP // 2), "bad", ""))
    parted = [parting.parted_at for parting in comparison.partings if parting.signal == metric]
    if len(parted) == 1 and parted[0] is not None:
        paths.append(Path(f"M{axis.at(parted[0])} 0V{TALL}", "onset info"))
        notes.append(("plain", f"apart from step {step_number(parted[0])} on"))
    levels = [(value, label) for value, label in ticks(scale) if not scale.beyond(np.array([value]))[0]]
    heights = _heights(scale, np.array([value for value, _ in levels], dtype=np.float64))
    smooth = any(one.dense for one in series)
    return Chart(
        key="loss",
        title=metric,
        unit="means of fiftieths of a run" if smooth else "",
        grid=tuple((round(100 * y / TALL, 2), label) for y, (_, label) in zip(heights, levels, strict=True)),
        paths=tuple(paths),
        shades=(),
        keys=tuple(lines) if is_few else (),
        low=scale.low,
        high=scale.high,
        logarithmic=scale.logarithmic,
        notes=tuple(notes),
    )


def _thinned(series: Series) -> Thinned:
    """A dense curve by its course, as its noise would hide those of the others; every value that is no number."""
    curve = thin(series.steps, series.values, _STRETCHES)
    smooth = series.smooth()
    if len(smooth.values) == len(series.values):
        return curve
    return Thinned(
        steps=smooth.steps,
        values=smooth.values,
        gaps=frozenset(),
        non_finite=curve.non_finite,
        non_finite_rows=curve.non_finite_rows,
        rows=curve.rows,
    )


def _heights(scale: Scale, values: Floats) -> npt.NDArray[np.int64]:
    return np.round(BOTTOM - scale.heights(values) * (BOTTOM - TOP)).astype(np.int64)
