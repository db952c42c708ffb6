"""The charts of a run: which signals belong together, each thinned to what a page can show, on one fitting scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lossdoctor.findings import Finding
from lossdoctor.reports.curves import evidence_curve
from lossdoctor.reports.scales import Scale, fitting
from lossdoctor.reports.thinning import Thinned, thin, typical
from lossdoctor.runs.tables import Run, Table
from lossdoctor.signals import SIGNALS

__all__ = ["PANEL_COLUMNS", "Line", "Panel", "Role", "panels_of"]

Values = npt.NDArray[np.float64]
Role: TypeAlias = Literal["train", "val", "second"]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a panel. `trend` is the median course (steps, values) of a noisy curve that was thinned."""

    label: str
    signal: str
    role: Role
    curve: Thinned
    trend: tuple[Values, Values] | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. `marks` are steps worth a mark at its foot, `marks_label` says of what."""

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: Scale
    marks: Values
    marks_label: str = ""
    marks_rows: int = 0

    @property
    def signals(self) -> frozenset[str]:
        """The signals drawn."""
        return frozenset(line.signal for line in self.lines)


@dataclass(frozen=True, slots=True)
class _Plan:
    key: str
    title: str
    unit: str
    lines: Sequence[tuple[str, str, Role]]
    """Signal, label, role; the first that was recorded of those in the same role is drawn."""
    logarithmic: bool | None = None
    from_zero: bool = False


_PLANS = (
    _Plan("loss", "Loss", "", (("train_loss", "training", "train"), ("val_loss", "validation", "val"))),
    _Plan(
        "accuracy",
        "Accuracy",
        "",
        (("train_accuracy", "training", "train"), ("val_accuracy", "validation", "val")),
        logarithmic=False,
    ),
    _Plan("learning_rate", "Learning rate", "", (("learning_rate", "learning rate", "train"),), from_zero=True),
    _Plan(
        "grad_norm",
        "Gradient norm",
        "",
        (("grad_norm", "before clipping", "train"), ("grad_norm_clipped", "after clipping", "second")),
    ),
    _Plan("update_ratio", "Update / weights", "", (("update_ratio", "update / weights", "train"),), logarithmic=True),
    _Plan("loss_scale", "Loss scale", "", (("loss_scale", "loss scale", "train"),), logarithmic=True),
    _Plan(
        "throughput",
        "Throughput",
        "samples/s",
        (("samples_per_second", "samples/s", "train"),),
        from_zero=True,
        logarithmic=False,
    ),
)

PANEL_COLUMNS = frozenset({"skipped", "tokens", "step_time", *(name for plan in _PLANS for name, _, _ in plan.lines)})
"""The recorded columns that panels are made from."""

_NOISY_ROWS = 600
"""Rows from which on a training curve gets its median course drawn over it."""

_TREND_STRETCHES = 160
_WITHOUT_TREND = frozenset({"learning_rate", "loss_scale"})
_MARKS = 400


def panels_of(run: Run, findings: Sequence[Finding], *, stretches: int) -> tuple[Panel, ...]:
    """The panels that have data; evidence of findings that is in none of them gets panels of its own."""
    found = [panel for plan in _PLANS if (panel := _panel(run, plan, stretches)) is not None]
    drawn = {signal for panel in found for signal in panel.signals} | set(PANEL_COLUMNS)
    for finding in findings:
        curve = evidence_curve(run, finding)
        if curve is None or curve.label in drawn or curve.label.split(" of ")[0] in drawn:
            continue
        drawn.add(curve.label)
        signal = curve.label.split(" of ")[0]
        unit = SIGNALS[signal].unit if signal in SIGNALS else ""
        line = _line(curve.label, signal, "train", (curve.steps, curve.values), stretches)
        found.append(_made(_Plan(curve.label, _title(curve.label), "" if unit == "1" else unit, ()), [line]))
    return tuple(found)


def _title(label: str) -> str:
    """A signal's name as a heading.

    >>> _title("data_wait"), _title("layer_grad_norm of blocks.0_a")
    ('Data wait', 'Layer grad norm of blocks.0_a')
    """
    signal, of, layer = label.partition(" of ")
    return signal.replace("_", " ").capitalize() + of + layer


def _panel(run: Run, plan: _Plan, stretches: int) -> Panel | None:
    lines: list[Line] = []
    tables: Mapping[str, Table] = MappingProxyType({"evaluation": run.evaluations, "step": run.steps})
    for signal, label, role in plan.lines:
        table = tables[SIGNALS[signal].source]
        observed = _observed(table, signal)
        if observed is None and signal == "samples_per_second":
            observed, label, plan = _rate(run.steps, plan)  # noqa: PLW2901  what is recorded decides
        if observed is not None:
            lines.append(_line(label, signal, role, observed, stretches))
    lines = [line for line in lines if line.role != "second" or _differs(run.steps, line.signal)]
    if not lines:
        return None
    if len(lines) == 1 and plan.key == "grad_norm":
        lines = [Line("gradient norm", lines[0].signal, "train", lines[0].curve, lines[0].trend)]
    return _made(plan, lines, _skipped(run.steps) if plan.key == "loss_scale" else None)


def _made(plan: _Plan, lines: Sequence[Line], skipped: Values | None = None) -> Panel:
    values = [line.curve.values for line in lines]
    logarithmic = _is_stepped(values[0]) if plan.key == "learning_rate" else plan.logarithmic
    skipped = np.empty(0) if skipped is None else skipped
    return Panel(
        plan.key,
        plan.title,
        plan.unit,
        tuple(lines),
        fitting(values, logarithmic=logarithmic, from_zero=plan.from_zero),
        skipped[np.linspace(0, len(skipped) - 1, min(len(skipped), _MARKS)).astype(int)],
        "update skipped" if len(skipped) else "",
        len(skipped),
    )


_STEEP = 30.0


def _is_stepped(rates: Values) -> bool:
    """Whether a learning rate falls by orders of magnitude early on, so that most of it would lie at zero."""
    positive = rates[rates > 0]
    return bool(len(positive)) and bool(np.quantile(positive, 0.98) > _STEEP * np.quantile(positive, 0.25))


def _observed(table: Table, signal: str) -> tuple[Values, Values] | None:
    """Steps and values at which a signal was observed, None if nowhere."""
    if signal not in table.columns:
        return None
    column = table.columns[signal]
    if column.observed is None:
        values = column.values.astype(np.float64)
        return (table.step, values) if len(values) else None
    rows = np.flatnonzero(column.observed)
    return (table.step[rows], column.values[rows].astype(np.float64)) if len(rows) else None


def _rate(steps: Table, plan: _Plan) -> tuple[tuple[Values, Values] | None, str, _Plan]:
    """Throughput where samples were not counted: tokens, else steps, a second."""
    times = _observed(steps, "step_time")
    if times is None:
        return None, "", plan
    at, seconds = times
    amount, unit = np.ones(len(at)), "steps/s"
    tokens = _observed(steps, "tokens")
    if tokens is not None and np.isin(at, tokens[0]).all():
        amount, unit = tokens[1][np.searchsorted(tokens[0], at)], "tokens/s"
    known = seconds > 0
    made = _Plan(plan.key, plan.title, unit, plan.lines, from_zero=True, logarithmic=False)
    return ((at[known], amount[known] / seconds[known]) if known.any() else None), unit, made


def _line(label: str, signal: str, role: Role, observed: tuple[Values, Values], stretches: int) -> Line:
    steps, values = observed
    curve = thin(steps, values, stretches)
    noisy = len(values) >= _NOISY_ROWS and signal not in _WITHOUT_TREND and role != "val"
    return Line(label, signal, role, curve, typical(steps, values, _TREND_STRETCHES) if noisy else None)


def _differs(steps: Table, signal: str) -> bool:
    """Whether gradients were ever clipped: otherwise the second curve would hide the first."""
    before, after = (steps.columns.get(name) for name in (signal.removesuffix("_clipped"), signal))
    if before is None or after is None or len(before) != len(after):
        return before is None
    both = before.mask() & after.mask() & np.isfinite(before.values) & np.isfinite(after.values)
    gone = np.abs(before.values[both] - after.values[both]) > 1e-3 * np.abs(before.values[both])
    return bool(gone.any())


def _skipped(steps: Table) -> Values:
    observed = _observed(steps, "skipped")
    return np.empty(0) if observed is None else observed[0][observed[1] > 0]
