"""What is known about a run as a whole: the contents of run.json."""

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ["GroupInfo", "LayerInfo", "ModelInfo", "OptimizerInfo", "RunInfo", "Status", "facts"]

Status: TypeAlias = Literal["running", "finished", "stopped", "crashed"]


class LayerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A module that owns parameters. `name` is cleaned for people (no module., _orig_mod., _fsdp_wrapped_module.)."""

    name: str
    type: str
    parameters: int
    trainable: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The model: its layers from input to output, as far as the order of registration tells."""

    type: str = ""
    parameters: int = 0
    trainable: int = 0
    layers: list[LayerInfo] = []
    dropout: float = 0.0
    """The largest dropout probability."""
    batch_norm: bool = False
    outputs: int | None = None
    """Rows of the last weight matrix: the classes of a classifier, the vocabulary of a language model."""


class GroupInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter group at the start of the run."""

    parameters: int
    tensors: int
    learning_rate: float
    momentum: float | None = None
    weight_decay: float | None = None


class OptimizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An optimizer and whether the scale of its gradients matters to it."""

    type: str
    groups: list[GroupInfo] = []
    scale_invariant: bool = False
    fused: bool = False


class RunInfo(msgspec.Struct, kw_only=True):
    """The contents of run.json."""

    schema: str = "lossdoctor.run/1"
    name: str = ""
    started: float | None = None
    heartbeat: float | None = None
    status: Status = "finished"
    attempt: int = 1
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    git: dict[str, Any] = {}
    seeds: dict[str, int] = {}
    flags: dict[str, bool | str] = {}
    hardware: dict[str, Any] = {}
    model: ModelInfo = ModelInfo()
    optimizers: list[OptimizerInfo] = []
    scheduler: str | None = None
    precision: str = ""
    loss_scaling: bool = False
    accumulation: int | None = None
    world_size: int = 1
    rank: int = 0
    total_steps: int | None = None
    classes: int | None = None
    remediate: str = "off"
    grad_norm_every: int = 1
    """Gradient norms are recorded at every k-th step."""
    fault: str = ""
    """Why the recording ended before the training did; empty where it did not."""


def facts(info: RunInfo) -> dict[str, float]:
    """The numbers of run.json that rules may use; what is unknown is left out."""
    found: dict[str, float | None] = {
        "total_steps": info.total_steps,
        "classes": info.classes,
        "world_size": info.world_size,
        "accumulation": info.accumulation,
        "layers": len(info.model.layers) or None,
        "parameters": info.model.trainable or None,
        "outputs": info.model.outputs,
    }
    if info.optimizers:
        found |= {
            "optimizers": len(info.optimizers),
            "scale_invariant": all(optimizer.scale_invariant for optimizer in info.optimizers),
            "has_scheduler": info.scheduler is not None,
            "uses_scaler": info.loss_scaling,
        }
    return {name: float(value) for name, value in found.items() if value is not None}
