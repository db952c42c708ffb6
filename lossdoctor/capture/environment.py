"""What a run ran with: versions, git, seeds, flags, hardware, model, optimizers. The facts of run.json."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lossdoctor.capture.modules import low_precision_share, precision_of
from lossdoctor.capture.names import Layer
from lossdoctor.capture.resources import accelerators
from lossdoctor.capture.scheduler import length_of, returns
from lossdoctor.capture.settings import momentum_of
from lossdoctor.capture.units import units_alike
from lossdoctor.runs.info import GroupInfo, LayerInfo, ModelInfo, OptimizerInfo, RunInfo, is_scale_invariant

__all__ = ["describe", "plain", "planned_steps"]

_PACKAGES = ("lossdoctor", "torch", "numpy", "torchvision", "transformers", "lightning", "accelerate")
_GIT_SECONDS = 2.0


def describe(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    layers: Sequence[Layer],
    *,
    scheduler: Any = None,
    uses_scaler: bool = False,
    total_steps: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> RunInfo:
    """All that is known before the first step. What cannot be found out is left out; nothing here raises."""
    return RunInfo(
        config={str(key): plain(value) for key, value in (config or {}).items()},
        versions=_safely(_versions) or {},
        git=_safely(_git) or {},
        seeds=_safely(_seeds) or {},
        flags=_safely(_flags) or {},
        hardware={**(_safely(_hardware) or {}), **(_safely(lambda: _devices(layers)) or {})},
        model=_model(model, layers),
        optimizers=[_optimizer(optimizer, layers) for optimizer in optimizers],
        scheduler=None if scheduler is None else _scheduler_name(scheduler),
        schedule_length=_safely(lambda: length_of(scheduler)),
        schedule_returns=bool(_safely(lambda: returns(scheduler))),
        precision=precision_of(parameter for layer in layers for parameter in layer.parameters),
        loss_scaling=uses_scaler,
        total_steps=total_steps if total_steps is not None else planned_steps(scheduler),
        world_size=_distributed("get_world_size", 1),
        rank=_distributed("get_rank", 0),
    )


def planned_steps(scheduler: Any) -> int | None:
    """The steps a scheduler states as the length of the training. Only OneCycleLR counts optimizer steps for sure."""
    total = getattr(scheduler, "total_steps", None)
    return total if isinstance(total, int) and total > 0 else None


def plain(value: Any) -> Any:
    """A value as JSON can hold it; what JSON has no word for becomes its text.

    >>> plain({"lr": 0.1, "kernel": (3, 3), "device": torch.device("cpu")})
    {'lr': 0.1, 'kernel': [3, 3], 'device': 'cpu'}
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _safely(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception:  # noqa: BLE001 - a fact we cannot learn must not stop a training from starting
        return None


def _versions() -> dict[str, str]:
    # Only what is loaded: asking for more would say what is installed, not what is used.
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        if package in sys.modules:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
    found["torch"] = str(torch.__version__)
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def _git() -> dict[str, Any]:
    git = shutil.which("git")
    if git is None:
        return {}

    def ask(*arguments: str) -> str:
        command = [git, *arguments]
        # No lock is taken, so a `git commit` of the user at the same moment is not disturbed.
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            env=environment,
        )
        return answer.stdout.strip()

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def _seeds() -> dict[str, int]:
    return {"torch": torch.initial_seed()}  # reading it does not move the generator


def _flags() -> dict[str, bool | str]:
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def _hardware() -> dict[str, Any]:
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    # is_initialized first: merely asking for devices would create a CUDA context.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = _safely(_memory)
    return found if memory is None else {**found, "memory": memory}


_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""What a container may take, by either version of cgroups."""


def _memory() -> int:
    """Bytes of RAM that this process may count on: the machine's, or its container's where that is less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        limit = Path(path)
        text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
        if text.isdigit():
            found = min(found, int(text))
    return found


def _devices(layers: Sequence[Layer]) -> dict[str, Any]:
    """The CUDA devices that hold the parameters: their number, and what the least of them can do."""
    devices = accelerators([parameter for layer in layers for parameter in layer.parameters])
    found: dict[str, Any] = {"cuda_devices": len(devices)}
    if devices:
        major, minor = min(map(torch.cuda.get_device_capability, devices))
        found["compute_capability"] = major + minor / 10
    return found


def _model(model: nn.Module, layers: Sequence[Layer]) -> ModelInfo:
    described = [
        LayerInfo(
            name=layer.name,
            type=layer.type,
            parameters=sum(map(_size, layer.parameters)),
            trainable=sum(_size(parameter) for parameter in layer.parameters if parameter.requires_grad),
        )
        for layer in layers
    ]
    modules = list(model.modules())
    return ModelInfo(
        type=type(model).__name__,
        parameters=sum(layer.parameters for layer in described),
        trainable=sum(layer.trainable for layer in described),
        layers=described,
        dropout=max((_dropout(module) for module in modules), default=0.0),
        outputs=_outputs(layers),
        low_precision=low_precision_share(parameter for layer in layers for parameter in layer.parameters),
        batch_norm=any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules),  # noqa: SLF001 - the base class of all
        recurrent=any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in modules),
        attention=any(map(_is_attention, modules)),
        unsynchronized_batch_norm=any(map(_is_unsynchronized, modules)),
        units_alike=_safely(lambda: units_alike(modules)),
    )


def _is_attention(module: nn.Module) -> bool:
    """By its type, or by what the types of attention modules are called: CausalSelfAttention, BertAttention, Attn."""
    name = type(module).__name__.lower()
    return isinstance(module, nn.MultiheadAttention) or "attention" in name or "attn" in name


def _is_unsynchronized(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)  # noqa: SLF001


def _outputs(layers: Sequence[Layer]) -> int | None:
    """Rows of the last weight matrix, in the order of registration; None for models without one."""
    rows = (
        int(parameter.shape[0])
        for layer in reversed(layers)
        for parameter in layer.parameters
        if _size(parameter) and parameter.dim() > 1
    )
    return next(rows, None)


def _size(parameter: Tensor) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()


def _dropout(module: nn.Module) -> float:
    """The dropout probability of a module, whether it is its whole task or one of its settings (nn.LSTM)."""
    probability = getattr(module, "p" if "dropout" in type(module).__name__.lower() else "dropout", 0.0)
    return float(probability) if isinstance(probability, int | float) else 0.0


def _optimizer(optimizer: Optimizer, layers: Sequence[Layer]) -> OptimizerInfo:
    norms = {id(one) for layer in layers if "norm" in layer.type.lower() for one in layer.parameters}
    return OptimizerInfo(
        type=type(optimizer).__name__,
        groups=[
            GroupInfo(
                parameters=sum(map(_size, group["params"])),
                tensors=len(group["params"]),
                learning_rate=_number(group.get("lr")) or 0.0,
                momentum=_number(momentum_of(group)),
                weight_decay=_number(group.get("weight_decay")),
                norm_tensors=sum(id(one) in norms for one in group["params"]),
            )
            for group in optimizer.param_groups
        ],
        scale_invariant=is_scale_invariant(type(optimizer)),
        fused=any(bool(group.get("fused")) for group in optimizer.param_groups),
        coupled_decay=_couples_decay(optimizer),
    )


def _couples_decay(optimizer: Optimizer) -> bool:
    """Whether it is one of torch's own Adams and adds its weight decay to the gradient."""
    kinds = torch.optim.Adam | torch.optim.NAdam | torch.optim.RAdam | torch.optim.Adamax
    decoupled = isinstance(optimizer, torch.optim.AdamW) or any(
        group.get("decoupled_weight_decay") for group in optimizer.param_groups
    )
    return isinstance(optimizer, kinds) and not decoupled


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return float(value.detach().cpu().numpy()) if not value.is_meta else None  # once, before the training starts
    return None if value is None else float(value)


def _scheduler_name(scheduler: Any) -> str:
    inner = getattr(scheduler, "_schedulers", None)
    name = type(scheduler).__name__
    return f"{name}({', '.join(map(_scheduler_name, inner))})" if isinstance(inner, list) else name


def _distributed(question: str, alone: int) -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(getattr(distributed, question)())
    return alone
