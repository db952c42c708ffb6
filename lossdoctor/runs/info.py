"""What is known about a run as a whole: the contents of run.json."""

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "GroupInfo",
    "LayerInfo",
    "ModelChecks",
    "ModelInfo",
    "OptimizerInfo",
    "RunInfo",
    "Status",
    "facts",
    "is_scale_invariant",
]

Status: TypeAlias = Literal["running", "finished", "stopped", "crashed", "killed"]
"""How a run ended. "killed" is never written: it is what a reader calls a run that still says "running" though its
process is gone."""


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
    low_precision: float | None = None
    """Share of the trained entries that are held in fp16 or bf16."""


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


class ModelChecks(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the model at sample steps, as of the last one. Names are cleaned for people."""

    samples: int = 0
    """Sample steps so far: without any, the lists say little."""
    parameters_without_gradient: list[str] = []
    """They require a gradient, and had none at the last two sample steps or more."""
    parameters_without_optimizer: list[str] = []
    """They require a gradient, are in no group of an optimizer, and nobody else changes them."""
    parameters_never_moved: list[str] = []
    """They had gradients and a learning rate at three sample steps or more, and were never changed at one."""
    frozen_parameters: int = 0
    """Tensors that require no gradient. They are in none of the lists."""
    modules_in_eval: list[str] = []
    """Dropout and BatchNorm that were in eval mode at the last training step seen, outside of frozen parts."""
    activation_modules: int = 0
    """Modules whose dead or saturated units are looked for; functions such as F.relu cannot be seen."""
    activations_unchecked: str = ""
    """Why no activations were looked at, such as "torch.compile"; empty where they were."""
    autocast: str = ""
    """The dtype of the autocast region that layers ran in; empty where there was none, or it could not be seen."""


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
    """Such as "fp32 weights, bf16 autocast"."""
    checks: ModelChecks = ModelChecks()
    loss_scaling: bool = False
    accumulation: int | None = None
    world_size: int = 1
    rank: int = 0
    sharded: bool = False
    """Whether the recorded norms are this rank's shares: the root of their squares' sum over the ranks is the norm."""
    total_steps: int | None = None
    classes: int | None = None
    train_rows_repeated: float | None = None
    """Share of the sampled training rows that occurred before in the same epoch."""
    validation_rows_seen: float | None = None
    """Share of the sampled validation rows that are among the training rows."""
    remediate: str = "off"
    grad_norm_every: int = 1
    """Gradient norms are recorded at every k-th step."""
    monitor_memory: int = 0
    """The most memory that the Monitor itself held, in bytes, host and device together: an estimate."""
    fault: str = ""
    """Why the recording ended before the training did; empty where it did not."""


_SCALE_INVARIANT = (
    *("ada", "adopt", "lamb", "lars", "lion", "muon", "nadam", "novograd", "nvnovograd", "prodigy", "radam", "ranger"),
    *("rmsprop", "rprop", "shampoo", "sign", "soap", "sophia", "sparseadam", "yogi"),
)
"""Beginnings of the names of optimizers whose update does not change when all gradients are scaled alike."""


def is_scale_invariant(optimizer: type) -> bool:
    """Whether a class of optimizers divides the gradient's scale out, by its name and those of its parents."""
    return any(kind.__name__.lower().startswith(_SCALE_INVARIANT) for kind in optimizer.__mro__)


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
        "weights_low_precision": info.model.low_precision,
        "train_rows_repeated": info.train_rows_repeated,
        "validation_rows_seen": info.validation_rows_seen,
    }
    if info.optimizers:
        found |= {
            "optimizers": len(info.optimizers),
            "scale_invariant": all(optimizer.scale_invariant for optimizer in info.optimizers),
            "has_scheduler": info.scheduler is not None,
            "uses_scaler": info.loss_scaling,
        }
    return {name: float(value) for name, value in found.items() if value is not None}
