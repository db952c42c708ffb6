"""Steps that must not be taken: the guard against NaN and Inf."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lossdoctor.remedies.finite import CudaReadback, Readback, all_finite, floating, non_finite_flag, on_host
from lossdoctor.remedies.keeping.holding import local
from lossdoctor.remedies.together.exchange import SharedSight

__all__ = ["StepGuard", "Steps"]

LARGE_IN_A_ROW = 4
"""Steps in a row that are left out for their norm; a fifth one is taken, and no further step is left out."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What is known about an optimizer's steps since the last question.

    `skipped` steps were kept from the weights; `dirty` ones reached them before the gradients were known to be bad.
    `large` ones were kept from them because of a finite gradient norm far above the usual.
    """

    skipped: int = 0
    dirty: int = 0
    clean: int = 0
    large: int = 0

    def __add__(self, other: "Steps") -> "Steps":
        """The steps of both."""
        return Steps(
            self.skipped + other.skipped, self.dirty + other.dirty, self.clean + other.clean, self.large + other.large
        )


class StepGuard:
    """Keeps one optimizer's non-finite gradients from its weights and its state.

    * On the host the gradients are looked at before the step; bad ones are taken away for its duration and put back.
    * A fused optimizer on CUDA gets the answer as `found_inf`, which its kernel reads on the device: no sync.
    * Any other optimizer on CUDA takes the step; the flag arrives a little later, and those steps are `dirty`.

    Without `skips` non-finite steps are taken as they come. `largest`, where it is set, is the norm of the unscaled
    gradients above which a step is kept from the weights, too. After LARGE_IN_A_ROW such steps without another one it
    lets go: that is no bad batch, it is how gradients are now.

    Steps that a GradScaler skips by itself are its business and are not counted. Gradients that a closure computes
    (LBFGS) can only be looked at after the step. Where gradients are sharded, `shared` tells all ranks what one of them
    sees: at every step, and of closures nothing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        skips: bool = True,
        waits: bool = False,
        readback: Readback | None = None,
        on_device: bool | None = None,
        shared: SharedSight | None = None,
    ) -> None:
        self._optimizer, self._skips, self._waits = optimizer, skips, waits
        self.shared = shared
        """What all ranks see of the gradients, where each holds shards."""
        self._readback: Readback = CudaReadback() if readback is None else readback
        self._on_device = on_device
        self.largest: float | None = None
        self._large_in_a_row = 0
        self._large = False
        self._large_flag: Tensor | None = None
        self._large_readback: Readback = CudaReadback()
        self._taken: list[tuple[Tensor, Tensor]] = []
        self._bad = False
        self._closure = False
        self._flag: Tensor | None = None
        self._found_inf: tuple[Tensor | None] | None = None
        self._steps = Steps()
        self._fused = False
        self._first = True

    def _gradients(self) -> list[Tensor]:
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        if any(type(gradient) is not Tensor for gradient in gradients):
            return []  # subclasses that are not known to have a norm
        return floating(gradients)

    def begin(self) -> None:
        """A step begins: the ranks have told each other nothing about it yet."""
        if self.shared is not None:
            self.shared.is_told = False

    def inspect(self, *, closure: bool, clips: bool = False) -> bool:
        """Look at the gradients before a step; True if they are known to be bad and the step will be kept from them.

        With `clips` the norm of the gradients of all ranks is wanted, where there are several with shards.
        """
        self._bad, self._large, self._closure, self._flag, self._large_flag = False, False, closure, None, None
        bad: Tensor | bool
        norm: Tensor | None
        if self.shared is not None:
            self.shared.look(self._optimizer, nothing=closure, norm=clips or self.largest is not None)
            bad, norm = self.shared.bad, self.shared.norm
        else:
            gradients = [] if closure or not (self._skips or self.largest is not None) else self._gradients()
            if not gradients:
                return False
            bad = non_finite_flag(gradients) if self._is_on_device(gradients) else not all_finite(gradients)
            norm = None if self.largest is None else self._norm(gradients)
        if closure:
            return False
        large = None if self.largest is None or norm is None else norm > self.largest
        if isinstance(bad, Tensor):  # on a device it is decided there
            self._fused = self._is_fused
            self._flag = bad * float(self._skips)
            self._large_flag = large.to(torch.float32) if large is not None and self._fused else None
            return False
        theirs = getattr(self._optimizer, "found_inf", None)
        if isinstance(theirs, Tensor) and theirs.device.type == "cpu" and bool(theirs):
            return False  # the scaler skips this step
        self._bad = self._skips and bad
        self._large = not bad and large is not None and bool(large)
        return self._bad or self._large

    def leave(self, *, step: bool) -> None:
        """Tell the other ranks that this one takes part no more, at the `step` under way or the next one."""
        if self.shared is not None:
            self.shared.leave(self._optimizer, step=step)

    @property
    def is_awaited(self) -> bool:
        """Whether other ranks wait for this one at every step."""
        return self.shared is not None and not self.shared.is_over

    @property
    def can_skip_large(self) -> bool:
        """Whether a step can be left out for its norm: on the host always, on CUDA where the optimizer is fused."""
        return self._is_fused or not self._is_on_device(
            [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        )

    def _is_on_device(self, tensors: list[Tensor]) -> bool:
        return not on_host(tensors) if self._on_device is None else self._on_device

    @property
    def _is_fused(self) -> bool:
        return getattr(self._optimizer, "_step_supports_amp_scaling", False) and all(
            group.get("fused") for group in self._optimizer.param_groups
        )

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        norm = get_total_norm(gradients)
        scale = getattr(self._optimizer, "grad_scale", None)
        return norm / scale.to(norm.device, non_blocking=True) if isinstance(scale, Tensor) else norm

    def block(self) -> None:
        """Keep bad gradients from the update that follows."""
        if self._flag is not None and self._fused:
            theirs = getattr(self._optimizer, "found_inf", None)
            self._found_inf = (theirs,)
            found = self._flag
            if self._large_flag is not None:
                self._large_flag = self._large_flag * (self._flag == 0)  # what is not finite counts once
                found = torch.maximum(found, self._large_flag)
            if isinstance(theirs, Tensor):
                found = torch.maximum(theirs.to(found.device, non_blocking=True).to(found.dtype), found)
                # What the scaler found is the scaler's: only the rest is ours to report.
                self._flag = self._flag * (theirs.to(found.device, non_blocking=True) == 0)
            self._optimizer.found_inf = found  # type: ignore[attr-defined]
        elif self._bad or self._large:
            for group in self._optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._taken.append((parameter, parameter.grad))
                        parameter.grad = None

    def finished(self) -> None:
        """The step is over: count it."""
        if self._closure:
            gradients = [] if self.shared is not None else self._gradients()
            bad = bool(gradients) and on_host(gradients) and not all_finite(gradients)
            self._steps += Steps(dirty=int(bad), clean=int(not bad))
        elif self._flag is not None:
            if self._fused:
                self._clean_first_momentum(self._flag)
            self._readback.send(self._flag)
            if self._large_flag is not None:
                self._large_readback.send(self._large_flag)
        else:
            self._steps += Steps(
                skipped=int(self._bad), large=int(self._large), clean=int(not self._bad and not self._large)
            )
            self._count_large([self._large])
        self._bad, self._large, self._closure, self._flag, self._large_flag = False, False, False, None, None

    def _count_large(self, steps: list[bool]) -> None:
        for is_large in steps:
            self._large_in_a_row = self._large_in_a_row + 1 if is_large else 0
            if self._large_in_a_row >= LARGE_IN_A_ROW:
                self.largest, self._large_in_a_row = None, 0

    def _clean_first_momentum(self, flag: Tensor) -> None:
        """Make zero what fused SGD leaves uninitialized when its very first step is skipped: the momentum."""
        if self._first and type(self._optimizer).__name__ == "SGD":
            for state in self._optimizer.state.values():
                if isinstance(buffer := state.get("momentum_buffer"), Tensor):
                    local(buffer).masked_fill_(flag.to(buffer.device, torch.bool), 0)
        self._first = False

    def release(self) -> None:
        """Put gradients and `found_inf` back. Does nothing if nothing was changed."""
        taken, self._taken = self._taken, []
        for parameter, gradient in taken:
            if parameter.grad is None:
                parameter.grad = gradient
        if self._found_inf is not None:
            (theirs,), self._found_inf = self._found_inf, None
            if theirs is not None:
                self._optimizer.found_inf = theirs  # type: ignore[attr-defined]
            elif hasattr(self._optimizer, "found_inf"):
                del self._optimizer.found_inf

    def collect(self, *, wait: bool = False) -> Steps:
        """What has become known since the last call.

        A guard that `waits` reads what is on a device only when it is told to `wait`, and then all of it: several
        processes see the same flags at the same step.
        """
        if self._waits and not wait:
            steps, self._steps = self._steps, Steps()
            return steps
        arrived, large = self._readback.arrived(wait=self._waits), self._large_readback.arrived(wait=self._waits)
        self._count_large(large)
        bad = sum(arrived)
        steps, self._steps = self._steps, Steps()
        clean = len(arrived) - bad - sum(large)
        return steps + Steps(skipped=bad * self._fused, dirty=bad * (not self._fused), clean=clean, large=sum(large))

    def forget(self) -> None:
        """Forget steps whose effect was undone by a rewind."""
        self._readback.forget()
        self._large_readback.forget()
        self._steps = Steps()
