"""The recorded curve that shows a finding: which signal, of which layer, with its steps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.clocks import recorded
from lossdoctor.findings import Finding
from lossdoctor.runs.tables import Run, Table
from lossdoctor.signals import SIGNALS

__all__ = ["Curve", "evidence_curve"]


@dataclass(frozen=True, slots=True)
class Curve:
    """What was observed of one signal: `values` (rows,) at `steps` (rows,); `label` names it for people."""

    label: str
    steps: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


def evidence_curve(run: Run, finding: Finding) -> Curve | None:
    """The curve of the finding's evidence signal; of its worst layer for a layer signal; None if there is none."""
    name = recorded(finding.evidence_signal or "")
    signal = SIGNALS.get(name)
    table = {"evaluation": run.evaluations, "layer": run.layers}.get(signal.source if signal else "step", run.steps)
    if name == "step" or name not in table.columns:
        return None
    if table is run.layers:
        return _layer_curve(run, name, finding.layers)
    return _curve(table, name, name)


def _layer_curve(run: Run, name: str, layers: list[str]) -> Curve | None:
    names = [layer.name for layer in run.info.model.layers]
    worst = layers[0] if layers else ""
    if worst not in names or names.index(worst) >= run.layers.columns[name].values.shape[1]:
        return None
    return _curve(run.layers, name, f"{name} of {worst}", names.index(worst))


def _curve(table: Table, name: str, label: str, layer: int | None = None) -> Curve | None:
    column = table.columns[name]
    values, observed = column.values, column.mask()
    if layer is not None:
        values, observed = values[:, layer], observed[:, layer]
    if not observed.any():
        return None
    return Curve(label, table.step[observed], values[observed].astype(np.float64))
