"""The settings of runs: what their owners configured and what was seen, and what of it differs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from lossdoctor.comparison.values import Difference
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Run

__all__ = ["Settings", "differences", "same", "settings_of"]

_ALIASES: Mapping[str, frozenset[str]] = {
    "optimizer": frozenset({"optimizer", "optim", "opt", "optimizer_name", "optimizer_type", "algorithm"}),
    "learning_rate": frozenset({"lr", "learning_rate", "base_lr", "max_lr", "peak_lr", "init_lr", "lr0", "eta"}),
    "weight_decay": frozenset({"weight_decay", "wd", "l2", "decay"}),
    "momentum": frozenset({"momentum", "beta1"}),
    "scheduler": frozenset({"scheduler", "lr_scheduler", "schedule", "lr_schedule", "sched", "lr_scheduler_type"}),
    "batch_size": frozenset(
        {"batch_size", "batch", "bs", "train_batch_size", "per_device_train_batch_size", "batchsize"}
    ),
    "accumulation": frozenset({"accumulation", "gradient_accumulation_steps", "accumulate_grad_batches", "accum"}),
    "precision": frozenset({"precision", "amp", "dtype", "fp16", "bf16", "mixed_precision"}),
    "world_size": frozenset({"world_size", "gpus", "devices", "num_gpus", "n_gpu"}),
    "planned_steps": frozenset({"total_steps", "max_steps", "steps", "num_steps", "max_iters", "epochs", "max_epochs"}),
    "model": frozenset({"model", "arch", "architecture", "model_name", "net"}),
    "dropout": frozenset({"dropout", "drop", "drop_rate", "p_drop"}),
}
"""What people call in a configuration what is also seen of a run."""

_BOUND = frozenset(
    {"parameters", "model", "dropout", "planned_steps", "accumulation", "momentum", "weight_decay", "scheduler"}
)
"""What usually follows from another setting: the width of a model, the kind of optimizer and its defaults."""
_LOOSE = frozenset({"model", "dropout", "planned_steps", "accumulation"})
"""What a configuration may say in other units: epochs for steps, a name for a type."""

_LABELS = frozenset(
    {
        *("name", "run_name", "run", "run_id", "id", "exp", "exp_name", "experiment", "experiment_name", "tag", "tags"),
        *("output", "output_dir", "out_dir", "out", "log_dir", "logdir", "logging_dir", "save_dir", "save_path", "dir"),
        *("run_dir", "checkpoint_dir", "ckpt_dir", "workdir", "work_dir", "cache_dir", "results_dir", "date", "time"),
        *("timestamp", "started", "host", "hostname", "port", "master_port", "project", "group", "notes", "comment"),
        *("verbose", "log_every", "log_interval", "logging_steps", "print_freq", "user"),
    }
)
"""Keys that name a run or say where it is kept: they cannot change what is learned."""

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Settings:
    """What is known of one run, by dotted names."""

    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    seeds: Mapping[str, Any]
    labels: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def seed(self) -> Any:
        """The seed that tells this run from its replicates; None where none is known."""
        return next(iter(self.seeds.values()), None)

    def get(self, name: str) -> Any:
        """A setting by the name it has in the configuration, or else in the recipe; None where it is not known."""
        for known in (self.config, self.recipe, self.seeds, self.labels, self.environment):
            if name in known:
                return known[name]
        return None

    @property
    def names(self) -> set[str]:
        """All names that `get` knows."""
        return {*self.config, *self.recipe, *self.seeds, *self.labels, *self.environment}


def settings_of(run: Run) -> Settings:
    """What is known of the settings of a run."""
    flat = _flattened(run.info.config)
    seeds = {name: value for name, value in flat.items() if _is_seed(name)}
    labels = {name: value for name, value in flat.items() if _tail(name) in _LABELS}
    config = {name: value for name, value in flat.items() if name not in seeds and name not in labels}
    if not seeds and (seed := run.info.seeds.get("torch")) is not None:
        seeds = {"seed": seed}
    return Settings(config, _recipe(run), seeds, labels, _environment(run.info))


def same(one: Any, other: Any) -> bool:
    """Whether two values of a setting are the same; numbers to six digits, as rounding differs between recordings."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other or (isinstance(one, bool) and isinstance(other, bool) and one == other)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6) or (one != one and other != other)  # noqa: PLR0124
    return type(one) is type(other) and bool(one == other)


def differences(runs: Sequence[Settings]) -> list[Difference]:
    """What differs between runs: configuration first, then what was seen of them beside it."""
    found = _differing([one.config for one in runs], "config")
    configured = {_tail(name) for one in runs for name in one.config}
    differing = {_tail(each.name) for each in found}
    for each in _differing([one.recipe for one in runs], "recipe"):
        names = _ALIASES.get(each.name, frozenset({each.name}))
        if names & differing or (names & configured and each.name in _LOOSE):
            continue  # the same setting, seen twice
        found.append(each)
    found = [_bound(each, found) for each in found]
    found += _differing([one.seeds for one in runs], "seed")
    found += _differing([one.environment for one in runs], "environment")
    return found + _differing([one.labels for one in runs], "label")


def _bound(each: Difference, found: Sequence[Difference]) -> Difference:
    """The same difference, with the setting it follows from: the only one whose values tell its own."""
    if each.source != "recipe" or each.name not in _BOUND:
        return each
    causes = [other for other in found if other.name not in _BOUND and _tells(other.values, each.values)]
    return msgspec.structs.replace(each, follows_from=causes[0].name) if len(causes) == 1 else each


def _tells(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether where `values` are the same, `others` are too."""
    pairs = list(zip(values, others, strict=True))
    return all(same(other, another) for one, other in pairs for two, another in pairs if same(one, two))


def _differing(runs: Sequence[Mapping[str, Any]], source: Any) -> list[Difference]:
    names = dict.fromkeys(name for run in runs for name in run)
    found = []
    for name in names:
        values = [run.get(name) for run in runs]
        known = [value for value in values if value is not None]
        if source in {"recipe", "environment", "seed"} and len(known) < len(values):
            continue  # not recorded is not different
        if any(not same(values[0], value) for value in values[1:]):
            found.append(Difference(name=name, source=source, values=values))
    return found


def _flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; what is no number, text or truth as text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flattened(value, f"{name}.")
        elif value is None or isinstance(value, bool | int | float | str):
            found[name] = _number(value)
        else:
            found[name] = str(value)
    return found


def _number(value: Any) -> Any:
    """A number that a log keeps as text, as a number."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() and "." not in value and "e" not in value.lower() else number


def _tail(name: str) -> str:
    return name.rpartition(".")[2].rpartition("/")[2].lower().replace("-", "_")


def _is_seed(name: str) -> bool:
    tail = _tail(name)
    return tail == "seed" or tail.endswith("_seed") or tail.startswith("seed_")


def _recipe(run: Run) -> dict[str, Any]:
    """What was seen of the recipe."""
    info = run.info
    groups = [group for optimizer in info.optimizers for group in optimizer.groups]
    rates = _observed(run, "learning_rate")
    samples = _observed(run, "samples")
    found: dict[str, Any] = {
        "optimizer": " + ".join(optimizer.type for optimizer in info.optimizers) or None,
        "learning_rate": float(rates.max())
        if len(rates)
        else max((group.learning_rate for group in groups), default=None),
        "weight_decay": max((group.weight_decay for group in groups if group.weight_decay is not None), default=None),
        "momentum": max((group.momentum for group in groups if group.momentum is not None), default=None),
        "scheduler": (info.scheduler or "none") if info.optimizers else None,
        "batch_size": float(samples.max()) if len(samples) else None,
        "accumulation": info.accumulation,
        "precision": info.precision or None,
        "world_size": info.world_size if info.optimizers else None,
        "planned_steps": info.total_steps,
        "model": info.model.type or None,
        "parameters": info.model.parameters or None,
        "dropout": info.model.dropout if info.model.layers else None,
        "remedies": info.remediate == "auto" if info.optimizers else None,
    }
    return {name: _rounded(value) for name, value in found.items() if value is not None}


def _observed(run: Run, name: str) -> Any:
    column = run.steps.columns.get(name)
    if column is None:
        return np.empty(0)
    values = column.values[column.mask()]
    return values[np.isfinite(values)]


def _rounded(value: Any) -> Any:
    """Without what float32 added."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _environment(info: RunInfo) -> dict[str, Any]:
    found: dict[str, Any] = {f"version of {name}": version for name, version in info.versions.items()}
    for name, value in info.git.items():
        if isinstance(value, str | bool | int):
            found[f"git {name}"] = value
    for name in ("device", "devices", "gpu", "cpu", "device_name", "machine"):
        if isinstance(info.hardware.get(name), str):
            found[name] = info.hardware[name]
    return found | info.flags
