"""Layers × time as a field of cells: where in the network, and when, gradients or updates leave the usual range."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lossdoctor.reports.printable import printable
from lossdoctor.runs.tables import Run

__all__ = ["BAD", "HEAT_COLUMNS", "LEVELS", "NONE", "ZERO", "HeatMap", "elided", "heat_maps"]

Values = npt.NDArray[np.float64]

HEAT_COLUMNS = ("layer_grad_to_param", "layer_update_ratio")
"""The recorded columns that heat maps are made from."""

LEVELS = 9
"""Steps of the colour scale."""

ZERO, BAD, NONE = -1, -2, -3
"""Cells without a level: exactly zero throughout, a NaN or Inf among the values, nothing recorded."""

_TITLES = {"layer_grad_to_param": "Gradient / weights, by layer", "layer_update_ratio": "Update / weights, by layer"}
_ROWS = 40
"""Rows of the picture; of more layers, neighbours share one."""

_COLUMNS = 90

_LABEL = 16
"""Characters of a layer's name that fit beside a picture."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Cells (rows, columns) with a level from 0 to LEVELS - 1, or ZERO, BAD or NONE.

    `names` has the layers of each row, from input to output; `edges` (columns + 1,) the steps between columns;
    `low` and `high` are the values at which the logarithmic colour scale begins and ends.
    """

    key: str
    title: str
    names: tuple[str, ...]
    edges: Values
    cells: npt.NDArray[np.int64]
    low: float
    high: float

    @property
    def bounds(self) -> Values:
        """The values between levels (LEVELS + 1,)."""
        return np.geomspace(self.low, self.high, LEVELS + 1)


def heat_maps(run: Run, *, columns: int = _COLUMNS) -> tuple[HeatMap, ...]:
    """A map for each layer signal that was recorded, of networks of two layers or more."""
    found = (_heat_map(run, signal, columns) for signal in HEAT_COLUMNS)
    return tuple(one for one in found if one is not None)


def _heat_map(run: Run, signal: str, columns: int) -> HeatMap | None:
    column = run.layers.columns.get(signal)
    names = [layer.name for layer in run.info.model.layers]
    if column is None or column.values.ndim != 2 or column.values.shape[1] < 2:  # noqa: PLR2004  layers
        return None
    seen = column.mask()
    layers = np.flatnonzero(seen.any(axis=0))
    ticks = np.flatnonzero(seen.any(axis=1))
    if len(layers) < 2 or len(ticks) < 2:  # noqa: PLR2004  nothing to compare
        return None
    names += [f"layer {number}" for number in range(len(names), column.values.shape[1])]
    steps = run.layers.step[ticks]
    logs, bad, zero = _rows(column.values[np.ix_(ticks, layers)].astype(np.float64), seen[np.ix_(ticks, layers)])
    across = _parts(len(layers), _ROWS)
    down = _columns(steps, columns)
    shown = _mean(_mean(logs, down, 0), across, 1).T
    bad_cells = _any(_any(bad, down, 0), across, 1).T
    zero_cells = _any(_any(zero, down, 0), across, 1).T
    low, high = _range(shown)
    cells = np.full(shown.shape, NONE)
    cells[zero_cells] = ZERO
    known = np.isfinite(shown)
    cells[known] = np.clip((shown[known] - low) / (high - low) * LEVELS, 0, LEVELS - 1).astype(int)
    cells[bad_cells] = BAD
    labels = tuple(_label([names[layer] for layer in layers[part]]) for part in across)
    edges = np.array([steps[part.start] for part in down] + [steps[-1]])
    edges[-1] += (edges[-1] - edges[0]) / max(len(edges) - 1, 1) if edges[-1] <= edges[-2] else 0.0
    return HeatMap(signal, _TITLES[signal], labels, edges, cells, 10.0**low, 10.0**high)


def _rows(values: Values, seen: npt.NDArray[np.bool_]) -> tuple[Values, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Logarithms (NaN where there is none), which are not finite, which are zero; all (ticks, layers)."""
    bad = seen & ~np.isfinite(values)
    positive = seen & ~bad & (values > 0)
    logs = np.full(values.shape, np.nan)
    logs[positive] = np.log10(values[positive])
    return logs, bad, seen & (values == 0)


def _parts(count: int, most: int) -> list[slice]:
    parts = min(count, most)
    return [slice(part * count // parts, (part + 1) * count // parts) for part in range(parts)]


def _columns(steps: Values, most: int) -> list[slice]:
    """Ticks in columns of equal width in steps; columns without a tick are left out, their neighbour is wider."""
    inner = np.linspace(steps[0], steps[-1], min(most, len(steps)) + 1)[1:-1]
    cuts = np.unique(np.concatenate([[0], np.searchsorted(steps, inner, "left"), [len(steps)]]))
    return [slice(int(begin), int(end)) for begin, end in pairwise(cuts)]


def _mean(logs: Values, parts: list[slice], axis: int) -> Values:
    """The mean over each part of what is known: of logarithms, so that it is a geometric one."""
    starts = [part.start for part in parts]
    known = np.isfinite(logs)
    total = np.add.reduceat(np.where(known, logs, 0.0), starts, axis=axis)
    count = np.add.reduceat(known.astype(np.float64), starts, axis=axis)
    mean: Values = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _any(cells: npt.NDArray[np.bool_], parts: list[slice], axis: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.logical_or.reduceat(cells, [part.start for part in parts], axis=axis)
    return found


def _range(logs: Values) -> tuple[float, float]:
    """The ends of the colour scale: nearly all cells lie within, and it spans a decade or more."""
    known = logs[np.isfinite(logs)]
    if not len(known):
        return -1.0, 0.0
    low, high = (float(end) for end in np.quantile(known, (0.01, 0.99)))
    low, high = math.floor(low * 2) / 2, math.ceil(high * 2) / 2
    return (low, high) if high - low >= 1 else ((low + high - 1) / 2, (low + high + 1) / 2)


def _label(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def elided(name: str) -> str:
    """A layer's name short enough to stand beside a picture: outer parts by their first letters, the last in full.

    >>> elided("encoder.layers.11.linear1"), elided("blocks.0"), elided("a_very_long_name_without_parts")
    ('e.l.11.linear1', 'blocks.0', '…e_without_parts')
    """
    parts = printable(name).split(".")
    for place in range(len(parts) - 1):
        if len(".".join(parts)) <= _LABEL:
            break
        parts[place] = parts[place] if parts[place].isdigit() else parts[place][:1]
    short = ".".join(parts)
    return short if len(short) <= _LABEL else f"…{short[1 - _LABEL :]}"
