"""What the doctor turns on one optimizer, in force from its step pre-hook to its post-hook and unseen outside.

Schedulers, the loop and checkpoints see the learning rate they set; only the update sees it multiplied. Nothing is
ever assigned to `optimizer.step`, and with a multiplier of 1 and no clipping nothing at all is touched.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lossdoctor.remedies.finite import floating
from lossdoctor.remedies.skipping import StepGuard

__all__ = ["OptimizerKnobs", "ignores_learning_rate"]

logger = logging.getLogger(__name__)


def ignores_learning_rate(optimizer: Optimizer) -> bool:
    """Whether a change of the learning rate has no effect after the first step: Rprop keeps a step size of its own."""
    return any(cls.__name__ == "Rprop" for cls in type(optimizer).__mro__)


class OptimizerKnobs:
    """The learning-rate multiplier, the clipping and the guard against non-finite gradients of one optimizer.

    `multiplier` (1.0: untouched) scales the learning rate of every group during the step. `max_norm` (None: no
    clipping) bounds the global norm of the unscaled gradients. `guard` skips steps whose gradients are not finite.
    `before_step` is called at the beginning of every step, before anything is changed.
    """

    def __init__(self, optimizer: Optimizer, guard: StepGuard, *, before_step: Callable[[], None]) -> None:
        self.optimizer = optimizer
        self.guard = guard
        self.multiplier = 1.0
        self.max_norm: float | None = None
        self._before_step = before_step
        self._numbers: list[tuple[dict[str, Any], Any, float]] = []
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

    def block_last(self) -> None:
        """Let the hook that takes gradients away run after all others, so that observers still see them."""
        self._move(self.optimizer._optimizer_step_pre_hooks, self._handles[1], last=True)  # noqa: SLF001 - no public order

    @staticmethod
    def _move(hooks: Any, handle: RemovableHandle, *, last: bool) -> None:
        if hasattr(hooks, "move_to_end") and handle.id in hooks:
            hooks.move_to_end(handle.id, last=last)

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """First of the pre-hooks: look at the gradients, clip them, multiply the learning rate."""
        if self._faulty:
            return
        try:
            self.undo()
            self._before_step()
            closure = (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None
            blocked = self.guard.inspect(closure=closure)
            # A fused optimizer under a scaler gets scaled gradients; who watches for changes of such gradients takes
            # them for a bug of the loop, so this one is left to the last hook.
            self._clip_late = isinstance(getattr(self.optimizer, "grad_scale", None), Tensor)
            self._clip_now = self.max_norm is not None and not blocked and not closure
            if not self._clip_late:
                self._clip()
            if self.multiplier != 1:
                self._multiply()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._retire(error)

    def _last_before(self, _: Optimizer, __: tuple[Any, ...], ___: dict[str, Any]) -> None:
        """Last of the pre-hooks: keep non-finite gradients from the update."""
        if self._faulty:
            return
        try:
            self._clip()
            self.guard.block()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._retire(error)

    def _after(self, _: Optimizer, __: tuple[Any, ...], ___: dict[str, Any]) -> None:
        try:
            self.guard.finished()
            self.undo()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._retire(error)

    def _retire(self, error: Exception) -> None:
        """A fault of ours must not break the training: say so once, put everything back and do nothing any more."""
        if not self._faulty:
            logger.warning("a remedy failed inside the optimizer step and was switched off", exc_info=error)
        self._faulty = True
        self.undo()

    def undo(self) -> None:
        """Put back what a step that raised between the hooks left behind. Does nothing otherwise."""
        self.guard.release()
        numbers, self._numbers = self._numbers, []
        for group, original, used in numbers:
            if group["lr"] is used:  # else somebody has set another one since
                group["lr"] = original
        tensors, self._tensors = self._tensors, []
        for rate, value, version in tensors:
            if rate._version == version:  # noqa: SLF001 - the only way to see that somebody wrote to it
                with torch.no_grad():
                    rate.copy_(value)

    def _multiply(self) -> None:
        for group in self.optimizer.param_groups:
            rate = group.get("lr")
            if isinstance(rate, Tensor):
                if any(rate is done for done, _, _ in self._tensors):  # groups may share one tensor
                    continue
                value = rate.detach().clone()
                with torch.no_grad():
                    rate.mul_(self.multiplier)
                self._tensors.append((rate, value, rate._version))  # noqa: SLF001 - see undo
            elif rate is not None:
                used = float(rate) * self.multiplier
                self._numbers.append((group, rate, used))
                group["lr"] = used

    def _clip(self) -> None:
        if not self._clip_now or self.max_norm is None:
            return
        self._clip_now = False
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
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

    def learning_rate(self) -> float | None:
        """The largest nominal learning rate over the groups; None where only the device knows it."""
        rates = [group["lr"] for group in self.optimizer.param_groups if "lr" in group]
        if not rates or any(isinstance(rate, Tensor) and rate.device.type != "cpu" for rate in rates):
            return None
        return max(float(rate) for rate in rates)

    def close(self) -> None:
        """Remove the hooks and leave nothing behind."""
        self.undo()
        self.multiplier, self.max_norm = 1.0, None
        for handle in self._handles:
            handle.remove()
