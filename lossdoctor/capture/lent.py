"""Hooks that are lent to a model: they work in this model only, outside of what torch.compile makes of it."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["LentHook"]


class LentHook:
    """A forward hook or pre-hook; in a copied or pickled model it is a function that does nothing.

    A user may copy or save the model while hooks are attached, and load it where this package is not.
    """

    def __init__(self, call: Callable[[nn.Module, Any, Any], None]) -> None:
        self._call = call

    def __call__(self, module: nn.Module, given: Any, output: Any = None) -> None:
        """Do what it is for, unless the model is being compiled."""
        if torch.compiler.is_compiling():
            return
        self._call(module, given, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")  # called with three arguments it returns None
