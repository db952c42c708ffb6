"""What is in a model: its parameters by name, which are frozen or forgotten, and which modules are in eval mode."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lossdoctor.capture.activations import kind_of
from lossdoctor.capture.forwards import Target
from lossdoctor.capture.names import Layer, clean_name

__all__ = ["Inventory", "ModeModule", "in_eval", "low_precision_share", "precision_of", "without_optimizer"]

_SHORT = {"float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16"}
_CHANNELS_FIRST = ("Conv", "BatchNorm", "SyncBatchNorm", "LazyConv", "LazyBatchNorm", "GroupNorm", "InstanceNorm")


@dataclass(frozen=True, slots=True)
class ModeModule:
    """A module that behaves differently in eval mode, and the parameters whose training it belongs to."""

    name: str
    module: nn.Module
    owner: nn.Module


class Inventory:
    """The modules and parameters of a model at this moment."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        """By clean name, tied ones once."""
        for name, parameter in model.named_parameters():
            self.parameters.setdefault(clean_name(name), parameter)
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.modes = list(_mode_modules(model))
        self.targets = list(_targets(model, {layer.name: at for at, layer in enumerate(layers)}))
        self.sparse_inputs: set[int] = set()
        """Weights whose gradient is zero wherever a word did not occur, by id."""
        for module in model.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                self.sparse_inputs.update(map(id, module.parameters(recurse=False)))

    @property
    def frozen(self) -> int:
        """Parameters that are not to be trained."""
        return sum(not parameter.requires_grad for parameter in self.parameters.values())

    def named(self, ids: Iterable[int]) -> list[str]:
        """Names of parameters of the model, in its order."""
        wanted = set(ids)
        return [name for name, parameter in self.parameters.items() if id(parameter) in wanted]


def without_optimizer(parameters: Mapping[str, Tensor], optimizers: Sequence[Optimizer]) -> list[str]:
    """Names of the parameters that require a gradient and are in no group of any optimizer.

    >>> layer = nn.Linear(2, 1)
    >>> without_optimizer(dict(layer.named_parameters()), [torch.optim.SGD([layer.weight], lr=0.1)])
    ['bias']
    """
    held = {id(one) for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]}
    return [name for name, one in parameters.items() if one.requires_grad and id(one) not in held]


def in_eval(modules: Sequence[ModeModule]) -> tuple[list[str], int]:
    """Names of the modules in eval mode, and how many there are in all; frozen parts of the model do not count.

    A part is frozen if it has parameters and none of them requires a gradient; a module without parameters belongs to
    the module around it.

    >>> part = nn.Dropout(0.5)
    >>> frozen = nn.Linear(2, 2).requires_grad_(False)
    >>> in_eval([ModeModule("a", part.eval(), nn.Linear(2, 2)), ModeModule("b", part, frozen)])
    (['a'], 1)
    """
    names = []
    frozen = 0
    for one in modules:
        if one.module.training:
            continue
        if _is_frozen(one.owner):
            frozen += 1
        else:
            names.append(one.name)
    return names, len(modules) - frozen


def precision_of(parameters: Iterable[Tensor], *, autocast: str = "") -> str:
    """The dtypes of the weights that are trained (of all, if none is), the most common first, and of autocast.

    >>> precision_of([torch.ones(3, dtype=torch.bfloat16), torch.ones(2)])
    'bf16 and fp32 weights'
    >>> precision_of([torch.ones(3)], autocast="float16")
    'fp32 weights, fp16 autocast'
    """
    parameters = list(parameters)
    sizes: dict[str, int] = {}
    for parameter in [one for one in parameters if one.requires_grad] or parameters:
        name = str(parameter.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + _size(parameter)
    if not sizes:
        return ""
    weights = " and ".join(_SHORT.get(name, name) for name in sorted(sizes, key=lambda name: -sizes[name])) + " weights"
    return f"{weights}, {_SHORT.get(autocast, autocast)} autocast" if autocast else weights


def low_precision_share(parameters: Iterable[Tensor]) -> float | None:
    """Share of the trained entries that are held in fp16 or bf16; None if nothing is trained.

    >>> low_precision_share([nn.Parameter(torch.ones(3, dtype=torch.float16)), nn.Parameter(torch.ones(1))])
    0.75
    """
    sizes = [(_size(one), one.dtype in {torch.float16, torch.bfloat16}) for one in parameters if one.requires_grad]
    total = sum(size for size, _ in sizes)
    return sum(size for size, is_low in sizes if is_low) / total if total else None


def _size(parameter: Tensor) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()


def _is_frozen(owner: nn.Module) -> bool:
    parameters = list(owner.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _mode_modules(model: nn.Module) -> Iterable[ModeModule]:
    owners: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        has_own = next(module.parameters(), None) is not None
        owners[name] = module if has_own or not name else owners.get(name.rpartition(".")[0], model)
        if _minds_its_mode(module):
            yield ModeModule(clean_name(name) or type(module).__name__, module, owners[name])


def _minds_its_mode(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - the base class of all
        return module.p > 0
    if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
        return module.track_running_stats
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    return False


def _targets(model: nn.Module, numbers: Mapping[str, int]) -> Iterable[Target]:
    """The modules worth a hook. What has no parameters belongs to the layer that was registered before it."""
    before: int | None = None
    unit_dim = -1
    for name, module in model.named_modules():
        if ".parametrizations." in f".{name}." or isinstance(module, torch.jit.ScriptModule):
            continue
        layer = numbers.get(clean_name(name) or type(module).__name__)
        if layer is not None:
            before = layer
            unit_dim = 1 if type(module).__name__.startswith(_CHANNELS_FIRST) else -1
        kind = kind_of(module)
        if layer is not None or kind is not None:
            yield Target(module, kind, layer, before, unit_dim)
