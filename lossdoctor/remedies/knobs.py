"""What the doctor turns on one optimizer, in force from its step pre-hook to its post-hook and unseen outside.

Schedulers, the loop and checkpoints see the learning rate they set; only the update sees it multiplied. Nothing is
ever assigned to `optimizer.step`, and with a multiplier of 1 and no clipping nothing at all is touched.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lossdoctor.remedies.finite import floating
from lossdoctor.remedies.keeping.holding import local
from lossdoctor.remedies.skipping import StepGuard
from lossdoctor.remedies.together.exchange import LeftError

__all__ = ["OptimizerKnobs", "ignores_learning_rate"]

logger = logging.getLogger(__name__)


def ignores_learning_rate(optimizer: Optimizer) -> bool:
    """Whether a change of the learning rate has no effect after the first step: Rprop keeps a step size of its own."""
    return any(cls.__name__ == "Rprop" for cls in type(optimizer).__mro__)


class OptimizerKnobs:
    """The multipliers, the clipping and the guard against steps that must not be taken, of one optimizer.

    `multiplier` (1.0: untouched) scales the learning rate of every group during the step, `decay_multiplier` its weight
    decay. `max_norm` (None: no clipping) bounds the global norm of the unscaled gradients. `guard` skips steps whose
    gradients are not finite. `before_step` is called at the beginning of every step, before anything is changed, and
    `on_fault` when these knobs do nothing any more because they failed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        guard: StepGuard,
        *,
        before_step: Callable[[], None],
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        self.optimizer = optimizer
        self.guard = guard
        self.multiplier = self.decay_multiplier = 1.0
        self.max_norm: float | None = None
        self.rests = False
        """Whether steps are taken as if the knobs were not there."""
        self._warm_up: tuple[int, int] | None = None
        """Steps taken and steps in all."""
        self._before_step, self._on_fault = before_step, on_fault
        self._numbers: list[tuple[dict[str, Any], str, Any, float]] = []
        self._tensors: list[tuple[Tensor, Tensor, int]] = []
        disable: Callable[..., Any] = torch.compiler.disable
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(disable(self._before)),
            optimizer.register_step_pre_hook(disable(self._last_before)),
            optimizer.register_step_post_hook(disable(self._after)),
        ]
        self._faulty = self._clip_now = self._clip_late = False
        # Other post-hooks (a scheduler stepped in one, say) must find the learning rate as the loop set it.
        self._move(optimizer._optimizer_step_post_hooks, self._handles[2], last=False)  # noqa: SLF001 - no public order

    @property
    def in_force(self) -> float:
        """What the learning rate is multiplied by at the next step: the multiplier and a warm-up's share."""
        if self._warm_up is None:
            return self.multiplier
        taken, steps = self._warm_up
        return self.multiplier * min((taken + 1) / (steps + 1), 1.0)

    @property
    def is_warming_up(self) -> bool:
        """Whether a warm-up is under way."""
        return self._warm_up is not None

    def warm_up(self, steps: int) -> None:
        """Let the learning rate rise in a line over the next `steps` steps."""
        self._warm_up = (0, steps)

    def stop_warm_up(self) -> None:
        """Back to the full learning rate."""
        self._warm_up = None

    def block_last(self) -> None:
        """Let the hook that takes gradients away run after all others, so that observers still see them."""
        self._move(self.optimizer._optimizer_step_pre_hooks, self._handles[1], last=True)  # noqa: SLF001 - no public order

    @staticmethod
    def _move(hooks: Any, handle: RemovableHandle, *, last: bool) -> None:
        if hasattr(hooks, "move_to_end") and handle.id in hooks:
            hooks.move_to_end(handle.id, last=last)

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """First of the pre-hooks: look at the gradients, clip them, multiply the learning rate."""
        if self.rests:
            return
        self.guard.begin()
        if self._faulty:  # other ranks wait for this one until all know that its remedies have ended
            self.guard.leave(step=True)
            return
        try:
            self.undo()
            closure = (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None
            blocked = self.guard.inspect(closure=closure, clips=self.max_norm is not None)
            self._before_step()
            # A fused optimizer under a scaler gets scaled gradients; who watches for changes of such gradients takes
            # them for a bug of the loop, so this one is left to the last hook.
            self._clip_late = isinstance(getattr(self.optimizer, "grad_scale", None), Tensor)
            self._clip_now = self.max_norm is not None and not blocked and not closure
            if not self._clip_late:
                self._clip()
            if self.in_force != 1:
                self._multiply("lr", self.in_force)
            if self.decay_multiplier != 1:
                self._multiply("weight_decay", self.decay_multiplier)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._retire(error)

    def _last_before(self, _: Optimizer, __: tuple[Any, ...], ___: dict[str, Any]) -> None:
        """Last of the pre-hooks: keep non-finite gradients from the update."""
        if self._faulty or self.rests:
            return
        try:
            self._clip()
            self.guard.block()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._retire(error)

    def _after(self, _: Optimizer, __: tuple[Any, ...], ___: dict[str, Any]) -> None:
        if self.rests:
            return
        try:
            self.guard.finished()
            self.undo()
            if self._warm_up is not None:
                taken, steps = self._warm_up
                self._warm_up = (taken + 1, steps) if taken + 1 < steps else None
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._retire(error)

    def _retire(self, error: Exception) -> None:
        """A fault of ours must not break the training: say so once, put everything back and do nothing any more."""
        if not self._faulty and not isinstance(error, LeftError):
            logger.warning("a remedy failed inside the optimizer step and was switched off", exc_info=error)
        self._faulty = True
        self._on_fault()
        self.guard.leave(step=True)
        self.undo()

    def undo(self) -> None:
        """Put back what a step that raised between the hooks left behind. Does nothing otherwise."""
        self.guard.release()
        numbers, self._numbers = self._numbers, []
        for group, name, original, used in numbers:
            if group[name] is used:  # else somebody has set another one since
                group[name] = original
        tensors, self._tensors = self._tensors, []
        for value, saved, version in tensors:
            if value._version == version:  # noqa: SLF001 - the only way to see that somebody wrote to it
                with torch.no_grad():
                    value.copy_(saved)

    def _multiply(self, name: str, factor: float) -> None:
        for group in self.optimizer.param_groups:
            value = group.get(name)
            if isinstance(value, Tensor):
                if any(value is done for done, _, _ in self._tensors):  # groups may share one tensor
                    continue
                saved = value.detach().clone()
                with torch.no_grad():
                    value.mul_(factor)
                self._tensors.append((value, saved, value._version))  # noqa: SLF001 - see undo
            elif value:  # 0 stays 0, whatever type it has
                used = float(value) * factor
                self._numbers.append((group, name, value, used))
                group[name] = used

    def _clip(self) -> None:
        if not self._clip_now or self.max_norm is None:
            return
        self._clip_now = False
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.guard.shared is not None:
            self._clip_shards(parameters, self.guard.shared.norm, self.max_norm)
            return
        gradients = floating(parameter.grad for parameter in parameters)
        if not gradients:
            return
        norm = get_total_norm(gradients)
        scale = getattr(self.optimizer, "grad_scale", None)
        if isinstance(scale, Tensor):  # a fused optimizer under a scaler sees scaled gradients
            norm = norm / scale.to(norm.device, non_blocking=True)
        # A norm that is not finite would write NaN into every gradient.
        norm = torch.where(norm.isfinite(), norm, torch.zeros_like(norm))
        clip_grads_with_norm_(parameters, self.max_norm, norm)

    @staticmethod
    def _clip_shards(parameters: Sequence[Tensor], norm: Tensor, max_norm: float) -> None:
        """As torch's clipping, by the norm that all ranks know."""
        factor = torch.where(norm.isfinite(), max_norm / (norm + 1e-6), torch.ones_like(norm)).clamp(max=1.0)
        for parameter in parameters:
            for gradient in floating([None if parameter.grad is None else local(parameter.grad)]):
                gradient.mul_(factor.to(gradient.device, gradient.dtype))

    def learning_rate(self) -> float | None:
        """The largest nominal learning rate over the groups; None where only the device knows it."""
        rates = [group["lr"] for group in self.optimizer.param_groups if "lr" in group]
        if not rates or any(isinstance(rate, Tensor) and rate.device.type != "cpu" for rate in rates):
            return None
        return max(float(rate) for rate in rates)

    def weight_decay(self) -> float:
        """The largest nominal weight decay over the groups; 0 where there is none."""
        return max((float(group.get("weight_decay") or 0.0) for group in self.optimizer.param_groups), default=0.0)

    def state_dict(self) -> dict[str, Any]:
        """What is in force, as plain numbers."""
        return {
            "multiplier": self.multiplier,
            "decay_multiplier": self.decay_multiplier,
            "max_norm": self.max_norm,
            "largest_norm": self.guard.largest,
            "warm_up": self._warm_up,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put in force what another process had."""
        self.multiplier, self.max_norm = float(state["multiplier"]), state["max_norm"]
        self.decay_multiplier = float(state["decay_multiplier"])
        self.guard.largest = state["largest_norm"]
        self._warm_up = None if state["warm_up"] is None else (int(state["warm_up"][0]), int(state["warm_up"][1]))

    def close(self) -> None:
        """Remove the hooks and leave nothing behind."""
        self.undo()
        self.multiplier, self.decay_multiplier, self.max_norm = 1.0, 1.0, None
        self._warm_up = None
        self._faulty = True
        self.guard.leave(step=False)
        for handle in self._handles[1:] if self.guard.is_awaited else self._handles:
            handle.remove()
