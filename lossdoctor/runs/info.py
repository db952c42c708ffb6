"""What is known about a run as a whole: the contents of run.json."""

import re
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
    recurrent: bool | None = None
    """Whether a module is recurrent: an RNN, a GRU, an LSTM, or a cell of one."""
    attention: bool | None = None
    """Whether a module is attention, by its type or the name of its type."""
    unsynchronized_batch_norm: bool | None = None
    """Whether a BatchNorm takes its statistics from the batch of one device alone."""
    units_alike: float | None = None
    """Share of the hidden layers whose units begin as copies of each other."""


class GroupInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter group at the start of the run."""

    parameters: int
    tensors: int
    learning_rate: float
    momentum: float | None = None
    weight_decay: float | None = None
    norm_tensors: int | None = None
    """Tensors of normalization layers among them."""


class OptimizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An optimizer and whether the scale of its gradients matters to it."""

    type: str
    groups: list[GroupInfo] = []
    scale_invariant: bool = False
    fused: bool = False
    coupled_decay: bool | None = None
    """Whether weight decay is added to the gradient and then divided by its scale, as in Adam but not in AdamW."""


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
    schedule_length: int | None = None
    """Steps of the LR scheduler after which it has run its course; whether by batch or by epoch is up to the loop."""
    schedule_returns: bool = False
    """Whether the learning rate rises again if the scheduler is stepped further than that."""
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
    losses_comparable: bool | None = None
    """Whether training and validation loss seem to be one quantity: known of foreign logs only, None where unknown."""
    remediate: str = "off"
    grad_norm_every: int = 1
    """Gradient norms are recorded at every k-th step."""
    monitor_memory: int = 0
    """The most memory that the Monitor itself held, in bytes, host and device together: an estimate."""
    fault: str = ""
    """Why the recording ended before the training did; empty where it did not."""
    exception: str = ""
    """The exception that ended the training, such as "OutOfMemoryError: CUDA out of memory. ..."."""


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
        "dropout": info.model.dropout if info.model.layers else None,
        "schedule_length": info.schedule_length,
        "outputs": info.model.outputs,
        "weights_low_precision": info.model.low_precision,
        "train_rows_repeated": info.train_rows_repeated,
        "validation_rows_seen": info.validation_rows_seen,
        "losses_comparable": info.losses_comparable,
    }
    if info.optimizers:
        found |= {
            "optimizers": len(info.optimizers),
            "scale_invariant": all(optimizer.scale_invariant for optimizer in info.optimizers),
            "has_scheduler": info.scheduler is not None,
            "schedule_returns": info.schedule_returns,
            "schedule_reacts": any(kind in (info.scheduler or "") for kind in ("ReduceLROnPlateau", "SWALR")),
            "uses_scaler": info.loss_scaling,
        }
    found |= _ending(info) | _recipe(info)
    return {name: float(value) for name, value in found.items() if value is not None}


_OUT_OF_MEMORY = re.compile(r"OutOfMemory|out of memory|MemoryError|can't allocate memory|Cannot allocate memory")
"""torch's own error, its words for any device, Python's, and those of torch's and the system's CPU allocator."""


_OUT_OF_RANGE = re.compile(r"Target -?\d+ is out of bounds|index out of range in target|t >= 0 && t < n_classes")
"""What torch's cross entropy says of a label that is no class, on a CPU and on a GPU."""


def _ending(info: RunInfo) -> dict[str, float | None]:
    """How a training ended that a Monitor recorded; nothing is known of one that still runs, or of another's log."""
    if info.started is None or info.status == "running":
        return {}
    return {
        "out_of_memory": _OUT_OF_MEMORY.search(info.exception) is not None,
        "killed": info.status == "killed",
        "labels_out_of_range": _OUT_OF_RANGE.search(info.exception) is not None,
        "machine_memory": _number(info.hardware.get("memory")),
    }


_KINDS = {
    "is_sgd": {"sgd"},
    "is_adam": {
        *("adam", "adamw", "adamax", "nadam", "radam", "fusedadam", "adam8bit", "adamw8bit", "pagedadamw"),
        *("pagedadamw8bit", "pagedadamw32bit", "pagedadam8bit", "deepspeedcpuadam"),
    },
    "is_lion": {"lion", "lion8bit", "pagedlion8bit"},
    "is_adagrad": {"adagrad"},
}
"""Names of optimizers, in lower case, of which rules know something: usual learning rates, steps that shrink."""


def _recipe(info: RunInfo) -> dict[str, float | None]:
    """What advice on the recipe needs to know."""
    model, hardware, checks = info.model, info.hardware, info.checks
    groups = [group for optimizer in info.optimizers for group in optimizer.groups]
    on_norms = [group.weight_decay or 0.0 for group in groups if group.norm_tensors]
    coupled = [
        max((group.weight_decay or 0.0 for group in optimizer.groups), default=0.0) if optimizer.coupled_decay else 0.0
        for optimizer in info.optimizers
        if optimizer.coupled_decay is not None
    ]
    seen = checks.samples > 0 and not checks.activations_unchecked
    is_half = checks.autocast == "float16" or "fp16" in info.precision
    found: dict[str, float | None] = {
        "dropout": model.dropout if model.layers else None,
        "recurrent": model.recurrent,
        "attention": model.attention,
        "unsynchronized_batch_norm": model.unsynchronized_batch_norm,
        "units_alike": model.units_alike,
        "norm_weight_decay": max(on_norms, default=None),
        "coupled_weight_decay": max(coupled, default=None),
        "seeded": _is_seeded(info),
        "machine_memory": _number(hardware.get("memory")),
        "cuda_devices": _number(hardware.get("cuda_devices")),
        "compute_capability": _number(hardware.get("compute_capability")),
        "autocast": 1.0 if checks.autocast or "autocast" in info.precision else 0.0 if seen else None,
        "half_precision": 1.0 if is_half else 0.0 if seen else None,
    }
    if info.optimizers:
        kinds = {optimizer.type.lower() for optimizer in info.optimizers}
        found |= {name: kinds <= kind for name, kind in _KINDS.items()}
    return found


_LARGEST_CHOSEN_SEED = 2**32
"""torch draws the seed of a generator that nobody seeded from 53 random bits or more; numpy takes no larger one."""


def _is_seeded(info: RunInfo) -> bool | None:
    """Whether somebody chose the seed: it is one that people choose, or the configuration names one."""
    if any("seed" in name.lower() and value is not None for name, value in info.config.items()):
        return True
    seed = info.seeds.get("torch")
    return None if seed is None else abs(seed) < _LARGEST_CHOSEN_SEED


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
