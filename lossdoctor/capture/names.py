"""Names of layers and parameters as people know them, whatever wrapped the model."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

__all__ = ["Layer", "clean_name", "layers_of"]

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What torch.compile, FSDP and activation checkpointing put into names, at any depth."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A module that owns parameters, with the parameters no earlier layer owns."""

    name: str
    type: str
    parameters: tuple[nn.Parameter, ...]


def clean_name(name: str) -> str:
    """The name without what wrappers added to it.

    >>> clean_name("_orig_mod.module.blocks.0._fsdp_wrapped_module.fc.weight")
    'blocks.0.fc.weight'
    >>> clean_name("fc.parametrizations.weight.original0")
    'fc.weight.original0'
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while parts and parts[0] == "module":  # DistributedDataParallel and DataParallel wrap the root only
        del parts[0]
    return ".".join(part for part in parts if part != "parametrizations")


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers in order of registration. A tied weight belongs to the first module that owns it."""
    found: dict[str, Layer] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = tuple(_first_seen(module._parameters.values(), seen))  # noqa: SLF001 - parameters(recurse=False) skips no tied ones
        if own:
            owner, kind = _owner(model, name, module)
            earlier = found.get(owner)
            parameters = own if earlier is None else (*earlier.parameters, *own)
            found[owner] = Layer(owner, kind if earlier is None else earlier.type, parameters)
    return list(found.values())


def _owner(model: nn.Module, name: str, module: nn.Module) -> tuple[str, str]:
    """The layer that people would name: a parametrized weight belongs to the module that uses it."""
    if ".parametrizations." in f".{name}":
        name = f".{name}".partition(".parametrizations.")[0].removeprefix(".")
        module = model.get_submodule(name)
    return clean_name(name) or type(module).__name__, type(module).__name__.removeprefix("Parametrized")


def _first_seen(parameters: Iterable[nn.Parameter | None], seen: set[int]) -> Iterable[nn.Parameter]:
    for parameter in parameters:
        if parameter is not None and id(parameter) not in seen:
            seen.add(id(parameter))
            yield parameter
