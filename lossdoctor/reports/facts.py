"""What is known about a run besides its curves, as tables for people: settings, machine, versions, the model."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lossdoctor.reports.printable import number
from lossdoctor.runs.info import LayerInfo, RunInfo

__all__ = ["MOST_LAYERS", "Facts", "facts_of", "layer_rows"]

Facts = list[tuple[str, list[tuple[str, str]]]]
"""Tables: a heading, and rows of a name and a value."""

MOST_LAYERS = 200
_MOST_ROWS = 150
_LONGEST = 300


def facts_of(info: RunInfo, config: Mapping[str, Any]) -> Facts:
    """The tables that have something in them."""
    tables = [
        ("Configuration", _flat(config)),
        ("Training", _training(info)),
        ("Versions", _flat(info.versions)),
        ("Code", _flat({**info.git, **{f"seed ({name})": seed for name, seed in info.seeds.items()}})),
        ("Machine", _flat({**info.hardware, **info.flags})),
    ]
    return [(heading, rows) for heading, rows in tables if rows]


def _training(info: RunInfo) -> list[tuple[str, str]]:
    model = info.model
    optimizers = "; ".join(
        f"{optimizer.type}: " + ", ".join(_group(group) for group in optimizer.groups[:4])
        for optimizer in info.optimizers
    )
    rows: dict[str, Any] = {
        "started": "" if info.started is None else _moment(info.started),
        "model": model.type,
        "parameters": f"{model.parameters:,} ({model.trainable:,} trainable)" if model.parameters else "",
        "optimizer": optimizers,
        "scheduler": info.scheduler,
        "planned steps": info.total_steps,
        "precision": info.precision,
        "loss scaling": "GradScaler" if info.loss_scaling else "",
        "gradient accumulation": info.accumulation,
        "processes": info.world_size if info.world_size > 1 else None,
        "classes": info.classes,
        "remedies": info.remediate if info.remediate != "off" else "",
        "ended by": info.exception,
    }
    return [(name, _value(value)) for name, value in rows.items() if value not in (None, "")]


def _group(group: Any) -> str:
    decay = f", weight decay {number(group.weight_decay)}" if group.weight_decay else ""
    return f"lr {number(group.learning_rate)}{decay}"


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings under dotted names; of very many, the first ones."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((_cut(f"{prefix}{name}"), _value(value)))
        if len(rows) > _MOST_ROWS:
            return [*rows[:_MOST_ROWS], ("…", f"and more than {_MOST_ROWS} in all")]
    return rows


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, digits=6)
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def layer_rows(layers: list[LayerInfo]) -> list[tuple[str, str, str, str]]:
    """Name, type, parameters and how many of them are trained, of the first MOST_LAYERS layers."""
    return [
        (_cut(layer.name), _cut(layer.type), f"{layer.parameters:,}", _trained(layer)) for layer in layers[:MOST_LAYERS]
    ]


def _trained(layer: LayerInfo) -> str:
    if layer.trainable == layer.parameters:
        return "all"
    return f"{layer.trainable:,}" if layer.trainable else "frozen"
