"""Trying something out beside a training: everything that a few steps change is put back afterwards."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lossdoctor.remedies.keeping.copies import Saved, copied, fresh
from lossdoctor.remedies.keeping.snapshots import Snapshots

__all__ = ["Aside"]


class Aside:
    """The state of a training as it is now; `restore` puts it back, as often as one likes.

    Parameters, buffers, gradients, training mode, the optimizers' state and groups, the scaler's scale, schedulers,
    what `also` objects say is theirs, the global generators of torch, numpy and random, and the generators that
    `loaders` shuffle by.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        scaler: GradScaler | None = None,
        schedulers: Sequence[Any] = (),
        also: Sequence[Any] = (),
        loaders: Sequence[Any] = (),
    ) -> None:
        plans = [one for one in also if isinstance(one, LRScheduler)]  # a snapshot would refuse them
        also = [one for one in also if not isinstance(one, LRScheduler)]
        self._model, self._optimizers, self._schedulers = model, optimizers, [*schedulers, *plans]
        self._snapshots = Snapshots(model, optimizers, scaler=scaler, also=also)
        self._snapshot = self._snapshots.copy(0.0)
        self._gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        for parameter, _ in self._gradients:
            parameter.grad = None  # theirs are not written to
        self._modes = [(module, module.training) for module in model.modules()]
        self._groups = [
            [{name: copied(value) for name, value in group.items() if name != "params"} for group in one.param_groups]
            for one in optimizers
        ]
        self._plans = [copied(scheduler.state_dict()) for scheduler in self._schedulers]
        self._generators = list(_generators(loaders))
        self._random = self._random_states()

    def _random_states(self) -> dict[str, Any]:
        states: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 - the generator that users of numpy's functions share
            "loaders": [generator.get_state() for generator in self._generators],
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
        return states

    def restore(self) -> None:
        """Put everything back as it was."""
        self._snapshots.restore(self._snapshot)
        for parameter, _ in self._gradients:
            parameter.grad = None
        for module, mode in self._modes:
            module.training = mode
        for scheduler, plan in zip(self._schedulers, self._plans, strict=True):
            scheduler.load_state_dict(fresh(plan))
        for optimizer, groups in zip(self._optimizers, self._groups, strict=True):
            for group, saved in zip(optimizer.param_groups, groups, strict=True):
                for name, value in saved.items():
                    _put(group, name, value)
        torch.set_rng_state(self._random["torch"])
        random.setstate(self._random["python"])
        np.random.set_state(self._random["numpy"])  # noqa: NPY002 - as above
        for generator, state in zip(self._generators, self._random["loaders"], strict=True):
            generator.set_state(state)
        if "cuda" in self._random:
            torch.cuda.set_rng_state_all(self._random["cuda"])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put everything back at the end, whatever happens; the gradients, too, that were there before."""
        try:
            yield
        finally:
            self.restore()
            for parameter, gradient in self._gradients:
                parameter.grad = gradient


def _put(group: dict[str, Any], name: str, value: Any) -> None:
    live = group.get(name)
    if isinstance(value, Saved) and isinstance(live, Tensor):
        with torch.no_grad():
            live.copy_(value.values)
    else:
        group[name] = fresh(value)


def _generators(loaders: Sequence[Any]) -> Iterator[torch.Generator]:
    """The generators that loaders and their samplers draw from, each once."""
    seen: set[int] = set()
    for loader in loaders:
        for owner in (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator) and id(generator) not in seen:
                seen.add(id(generator))
                yield generator
