"""Pictures as geometry for SVG: paths whose x is the step and whose y is a height, drawn at any width.

The field of a chart is an inner `<svg>` that is stretched over whatever room there is, while labels beside it keep
their size; zooming is another `viewBox`. Since x counts steps and y parts of the axis, a script can read the values
back from the very paths that are drawn: nothing is stored twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lossdoctor.reports.heat import BAD, LEVELS, NONE, ZERO, HeatMap
from lossdoctor.reports.panels import Line, Panel
from lossdoctor.reports.paths import BOTTOM, TALL, TOP, Path, StepAxis, dots, through
from lossdoctor.reports.picture import Picture, Span
from lossdoctor.reports.printable import number, step_number
from lossdoctor.reports.scales import step_ticks, ticks

__all__ = ["Chart", "Charts", "Lane", "Shade", "charts_of", "sparkline_path"]

Values = npt.NDArray[np.float64]

_LANES = 12
_OFF_SHOWN = 60
_EPOCH_ROOM = 7.0
"""Percent of the axis that the number of an epoch takes."""


@dataclass(frozen=True, slots=True)
class Shade:
    """A finding in a chart: from `x`, `width` wide. `percent` is where its name begins, `flip` if it ends there."""

    number: int
    rule: str
    severity: str
    x: int
    width: int
    percent: float
    flip: bool
    cause: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of the timeline: the spans of a rule, or the interventions."""

    name: str
    shades: tuple[Shade, ...]
    cause: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel or heat map. `grid` has (percent from the top, label); `names` the rows of a heat map instead."""

    key: str
    title: str
    unit: str
    grid: tuple[tuple[float, str], ...]
    paths: tuple[Path, ...]
    shades: tuple[Shade, ...]
    keys: tuple[tuple[str, str], ...]
    """The lines, where there are several: (CSS class, name)."""
    low: float
    high: float
    logarithmic: bool = False
    notes: tuple[tuple[str, str], ...] = ()
    """What marks mean: (CSS class, words)."""
    names: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    """A heat map's rows: a digit a column for the level, z for zero, x for what is not finite, - for nothing."""
    edges: tuple[int, ...] = ()
    bounds: tuple[str, ...] = ()
    best: tuple[int, int, float, float] | None = None
    """Where the best evaluation is: x, y, and both in percent."""

    @property
    def height(self) -> int:
        """Pixels."""
        if self.names:
            return max(56, (13 if len(self.names) <= 24 else 9) * len(self.names))  # noqa: PLR2004
        return {"loss": 190}.get(self.key, 116)


@dataclass(frozen=True, slots=True)
class Charts:
    """All charts of a run over one step axis: x = (step - first) / unit, up to `width`."""

    first: float
    unit: float
    width: int
    charts: tuple[Chart, ...]
    lanes: tuple[Lane, ...]
    more_lanes: int
    axis: tuple[tuple[float, int, str], ...]
    """Ticks: percent, x, label."""
    epochs: tuple[tuple[float, int, str], ...]
    acts: tuple[tuple[int, float, str], ...]
    """Interventions: x, percent, words."""
    horizontal: str


def charts_of(picture: Picture) -> Charts:
    """The geometry of a picture."""
    axis = StepAxis.over(picture.first, picture.last)
    lanes = _lanes(picture.spans, axis)
    return Charts(
        first=picture.first,
        unit=axis.unit,
        width=axis.width,
        charts=(
            *(_panel(panel, picture, axis) for panel in picture.panels),
            *(_heat(heat, picture, axis) for heat in picture.heat),
        ),
        lanes=tuple(lanes[:_LANES]),
        more_lanes=max(len(lanes) - _LANES, 0),
        axis=tuple(
            (axis.percent(step), axis.at(step), label) for step, label in step_ticks(picture.first, picture.last)
        ),
        epochs=_epochs(picture, axis),
        acts=tuple(
            (axis.at(act.step), axis.percent(act.step), f"{act.action} at step {step_number(act.step)}: {act.outcome}")
            for act in picture.interventions
            if picture.first <= act.step <= picture.last
        ),
        horizontal=picture.horizontal,
    )


def sparkline_path(picture: Picture) -> str:
    """The training loss, else the validation loss, in a field of 1000 x TALL; empty if there is none."""
    if not picture.panels or picture.panels[0].key != "loss":
        return ""
    panel = picture.panels[0]
    line = panel.lines[0]
    steps, values = line.trend if line.trend is not None else (line.curve.steps, line.curve.values)
    every = max(1, len(steps) // 160)
    x = np.round((steps[::every] - picture.first) / (picture.last - picture.first) * 1000).astype(int)
    return through(x, _heights(panel, values[::every]), frozenset())


def _heights(panel: Panel, values: Values) -> npt.NDArray[np.int64]:
    return np.round(BOTTOM - panel.scale.heights(values) * (BOTTOM - TOP)).astype(np.int64)


def _panel(panel: Panel, picture: Picture, axis: StepAxis) -> Chart:
    paths: list[Path] = []
    notes: list[tuple[str, str]] = []
    for line in sorted(panel.lines, key=lambda line: line.role != "second"):  # the second lies below the first
        paths += _line_paths(panel, line, axis)
        if line.curve.non_finite_rows:
            count = line.curve.non_finite_rows
            notes.append(("bad", f"{line.label}: {count:,} × NaN or Inf"))
            paths.append(Path(dots(axis.x(line.curve.non_finite), TOP // 2), "bad", f"{line.label} not finite"))
    if any(path.classes.startswith("off") for path in paths):
        rows = sum(int(panel.scale.beyond(line.curve.values).sum()) for line in panel.lines)
        notes.append(("off", f"{rows} beyond the axis, at its edge"))
    if len(panel.marks):
        paths.append(Path(dots(axis.x(panel.marks), (BOTTOM + TALL) // 2), "skip"))
        notes.append(("skip", f"{panel.marks_label} ({panel.marks_rows:,})"))
    scale = panel.scale
    most = 6 if panel.key == "loss" else 4
    levels = [(value, label) for value, label in ticks(scale, most) if not scale.beyond(np.array([value]))[0]]
    heights = _heights(panel, np.array([value for value, _ in levels], dtype=np.float64))
    best = None
    if panel.key == "loss" and picture.best is not None:
        y = int(_heights(panel, np.array([picture.best.value]))[0])
        best = (axis.at(picture.best.step), y, axis.percent(picture.best.step), y * 100 / TALL)
        notes.append(("best", f"best validation {number(picture.best.value)} at {step_number(picture.best.step)}"))
    return Chart(
        key=panel.key,
        title=panel.title,
        unit=panel.unit,
        grid=tuple((round(100 * y / TALL, 2), label) for y, (_, label) in zip(heights, levels, strict=True)),
        paths=tuple(paths),
        shades=_shades(picture.spans, axis, panel.signals),
        keys=tuple((line.role, line.label) for line in panel.lines) if len(panel.lines) > 1 else (),
        low=scale.low,
        high=scale.high,
        logarithmic=scale.logarithmic,
        notes=tuple(notes),
        best=best,
    )


def _line_paths(panel: Panel, line: Line, axis: StepAxis) -> list[Path]:
    curve = line.curve
    x, y = axis.x(curve.steps), _heights(panel, curve.values)
    beyond = panel.scale.beyond(curve.values)
    points = np.flatnonzero(beyond)
    far = points[np.argsort(-np.abs(curve.values[points]))[:_OFF_SHOWN]]
    off = " ".join(f"{x[row]}:{number(float(curve.values[row]))}" for row in np.sort(far))
    kind = f"line {line.role}" + (" faint" if line.trend is not None else "")
    found = [Path(through(x, y, curve.gaps), kind, line.label, off)]
    if line.trend is not None:
        steps, values = line.trend
        found.append(Path(through(axis.x(steps), _heights(panel, values), frozenset()), f"line {line.role}"))
    if line.role == "val" and len(x) <= 120:  # noqa: PLR2004  more dots are a band
        found.append(Path(dots(x, y), "dots val"))
    if len(points):
        found.append(Path(dots(x[points], y[points]), f"off {line.role}"))
    return found


def _shades(spans: Sequence[Span], axis: StepAxis, signals: frozenset[str]) -> tuple[Shade, ...]:
    """The findings that are about some of the steps; a cause's name is shown where its evidence is drawn."""
    local = [span for span in spans if not span.whole and span.severity != "benign"]
    about = [span for span in local if span.signal in signals]
    named = [span for span in about if span.cause] or about[:1]
    return tuple(
        _shade(span, axis, named=span in named) for span in sorted(local, key=lambda span: span.since - span.until)
    )


def _shade(span: Span, axis: StepAxis, *, named: bool, several: bool = False) -> Shade:
    percent = axis.percent(span.since)
    return Shade(
        number=span.number,
        rule=span.rule if named else "",
        severity=span.severity,
        x=axis.at(span.since),
        width=max(axis.at(span.until) - axis.at(span.since), 1),
        percent=percent,
        flip=percent > (30 if several else 60),  # on the side with more room; of several, not over the others
        cause=span.cause,
    )


def _lanes(spans: Sequence[Span], axis: StepAxis) -> list[Lane]:
    rules: dict[str, list[Span]] = {}
    for span in spans:
        if span.severity != "benign":
            rules.setdefault(span.rule, []).append(span)
    return [
        Lane(
            rule,
            tuple(_shade(span, axis, named=True, several=len(group) > 1) for span in group),
            any(span.cause for span in group),
        )
        for rule, group in sorted(rules.items(), key=lambda item: not any(span.cause for span in item[1]))
    ]


def _epochs(picture: Picture, axis: StepAxis) -> tuple[tuple[float, int, str], ...]:
    shown: list[tuple[float, int, str]] = []
    for number_of, step in enumerate(picture.epochs, 2):
        percent = axis.percent(step)
        if picture.first <= step < picture.last and (not shown or percent - shown[-1][0] >= _EPOCH_ROOM):
            shown.append((percent, axis.at(step), str(number_of)))
    return tuple(shown)


def _heat(heat: HeatMap, picture: Picture, axis: StepAxis) -> Chart:
    edges = np.clip(axis.x(heat.edges), 0, axis.width)
    tall = TALL / max(len(heat.names), 1)
    tops = [round(row * tall) for row in range(len(heat.names) + 1)]
    drawn: dict[int, list[str]] = {}
    for row, cells in enumerate(heat.cells):
        cuts = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(cells)]
        for begin, end in pairwise(cuts):
            box = f"M{edges[begin]} {tops[row]}H{edges[end]}V{tops[row + 1]}H{edges[begin]}z"
            drawn.setdefault(int(cells[begin]), []).append(box)
    classes = {level: f"heat-{level}" for level in range(LEVELS)} | {ZERO: "heat-zero", BAD: "heat-bad"}
    marks = {ZERO: "z", BAD: "x", NONE: "-"}
    found = {int(cell) for cell in np.unique(heat.cells)}
    notes = [("heat-zero", "exactly zero")] * (ZERO in found) + [("heat-bad", "NaN or Inf")] * (BAD in found)
    return Chart(
        key=heat.key,
        title=heat.title,
        unit="",
        grid=(),
        paths=tuple(
            Path("".join(boxes), f"cell {classes[level]}") for level, boxes in sorted(drawn.items()) if level != NONE
        ),
        shades=tuple(shade for shade in _shades(picture.spans, axis, frozenset()) if shade.cause),
        keys=(),
        low=heat.low,
        high=heat.high,
        notes=tuple(notes),
        names=heat.names,
        cells=tuple("".join(marks.get(int(cell), str(cell)) for cell in row) for row in heat.cells),
        edges=tuple(int(edge) for edge in edges),
        bounds=tuple(number(float(bound), digits=2) for bound in heat.bounds),
    )
