"""Forward hooks that are attached for a sample step and taken out right after it.

Where a forward is compiled they are not attached at all, and `ActivationSampler.unchecked` says why.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lossdoctor.capture.activations import Kind, activation_std, batch_norm_shift, dead_share, saturated_share
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.lent import LentHook
from lossdoctor.capture.measures import local

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["ActivationSampler", "Target"]

_RECOVERABLE = 0.01
"""With a smaller momentum the running statistics lose the batch's in rounding."""
_MOST_CALLS = 64
"""Calls of one activation module that are told apart."""
_MISSES = 2
"""Sample steps without a forward after which no hook is attached any more."""
_INSTRUMENT = "activation samples"


@dataclass(frozen=True, slots=True)
class Target:
    """A module to be sampled. `layer` is its own number if it is a layer, `before` that of the layer before it."""

    module: nn.Module
    kind: Kind | None
    layer: int | None
    before: int | None
    unit_dim: int


class ActivationSampler:
    """Attaches hooks for a sample step, and holds what they measured until it is taken.

    `found` has (signal, layer, number) for each measurement, numbers as scalars on their device.
    """

    def __init__(self, model: nn.Module, faults: Faults) -> None:
        self.targets: Sequence[Target] = ()
        self.unchecked = _why_compiled(model)
        """Why no hooks are attached; empty where they are."""
        self.autocast = ""
        """The dtype of the autocast region a layer ran in, once one did."""
        self._model = model
        self._faults = faults
        self._handles: list[RemovableHandle] = []
        self._compiled_in: list[RemovableHandle] = []
        self._found: list[tuple[str, int, Tensor]] = []
        self._calls: dict[int, list[tuple[int | None, str, Tensor]]] = {}
        self._taken: set[object] = set()
        self._statistics: dict[int, tuple[Tensor, Tensor]] = {}
        self._last: int | None = None
        self._trained = True
        self._misses = 0
        self._ever = False
        self._waits = False

    @property
    def is_attached(self) -> bool:
        """Whether hooks are in the model now."""
        return bool(self._handles)

    @property
    def has_found(self) -> bool:
        """Whether a forward was seen since the hooks were attached."""
        return bool(self._taken)

    def attach(self) -> None:
        """Be ready for the next forward."""
        self.detach()
        self._reset()
        if not self.unchecked:
            self.unchecked = _why_compiled(self._model)
        if self.unchecked or _INSTRUMENT in self._faults.off:
            return
        if not self._ever and not self._waits and _compiles_something():
            # Something is compiled, maybe this model. Hooks that are there when that happens would be compiled in.
            self._waits = True
            return
        protect = self._faults.protect
        self._handles.append(self._model.register_forward_pre_hook(LentHook(protect(_INSTRUMENT, self._begin))))
        for target in self.targets:
            if target.kind == "batch_norm":
                before = protect(_INSTRUMENT, self._before_batch_norm)
                self._handles.append(target.module.register_forward_pre_hook(LentHook(before)))
            hook = LentHook(protect(_INSTRUMENT, self._seeing(target)))
            self._handles.append(target.module.register_forward_hook(hook))

    def detach(self) -> None:
        """Take every hook out again.

        If the first forward was compiled while they were in, they stay, and do nothing: to take them out would have it
        compiled again. `close` takes them out.
        """
        if self._handles and not self._ever and not self._taken and not self._waits and _compiles_something():
            self.unchecked = "torch.compile"
            self._compiled_in, self._handles = self._handles, []
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def close(self) -> None:
        """Leave the model as it was found."""
        for handle in (*self._handles, *self._compiled_in):
            handle.remove()
        self._handles.clear()
        self._compiled_in.clear()

    def take(self) -> list[tuple[str, int, Tensor]]:
        """What was measured, and forget it. Takes the hooks out."""
        was_attached = self.is_attached
        self._ever = self._ever or bool(self._taken)
        self.detach()
        if was_attached and not self._ever and not self.unchecked:
            self._misses += 1
            if self._misses >= (1 if self._waits else _MISSES):
                self.unchecked = "torch.compile" if _compiles_something() else "no forward of its modules was seen"
        for target in self.targets:
            calls = self._calls.get(id(target.module), ())
            for layer, signal, value in calls:
                # A module that is called once belongs to the layer it is registered behind; one that is shared, to
                # whichever layer ran before it.
                at = target.before if len(calls) == 1 and target.before is not None else layer
                if at is not None:
                    self._found.append((signal, at, value))
        found = self._found
        self._reset()
        return found

    def _reset(self) -> None:
        self._found, self._last, self._trained = [], None, True
        self._calls.clear()
        self._taken.clear()
        self._statistics.clear()

    # -- the hooks

    def _begin(self, module: nn.Module, *_: Any) -> None:
        """The whole model is called: what was measured in an evaluation with gradients gives way to a training's."""
        if _is_wanted() and not _in_backward() and module.training and not self._trained:
            self._reset()
        self._trained = self._trained and module.training

    def _before_batch_norm(self, module: nn.Module, *_: Any) -> None:
        if module.training and id(module) not in self._statistics and _is_wanted():
            mean, variance = module.running_mean, module.running_var
            if isinstance(mean, Tensor) and isinstance(variance, Tensor):
                self._statistics[id(module)] = (mean.clone(), variance.clone())

    def _seeing(self, target: Target) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, given: Any, output: Any) -> None:
            if module is not target.module or self.unchecked or not _is_wanted():
                return
            tensor = _tensor(output)
            if tensor is None or (tensor.is_cuda and torch.cuda.is_current_stream_capturing()):
                return
            with torch.no_grad():
                self._see(target, given, tensor)

        return see

    def _see(self, target: Target, given: Any, output: Tensor) -> None:
        layer, kind = target.layer, target.kind
        if layer is not None:
            device = output.device.type
            if not self.autocast and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
                self.autocast = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
            if not _in_backward():
                self._last = layer
            if layer not in self._taken:
                self._taken.add(layer)
                self._found.append(("layer_activation_std", layer, activation_std(output)))
        if kind == "batch_norm":
            self._see_batch_norm(target, given)
        elif kind is not None:
            calls = self._calls.setdefault(id(target.module), [])
            call = (id(target.module), self._last)
            if call not in self._taken and len(calls) < _MOST_CALLS and not (calls and _in_backward()):
                self._taken.add(call)
                signal = "layer_dead_share" if kind == "dead" else "layer_saturated_share"
                unit_dim = min(target.unit_dim, output.dim() - 1)
                share = dead_share(output, unit_dim) if kind == "dead" else saturated_share(output, kind)
                if share is not None:
                    calls.append((self._last, signal, share))

    def _see_batch_norm(self, target: Target, given: Any) -> None:
        module: Any = target.module
        before = self._statistics.get(id(module))
        if before is None or ("batch", id(module)) in self._taken:
            return
        self._taken.add(("batch", id(module)))
        momentum, layer = module.momentum, target.layer if target.layer is not None else target.before
        if momentum is not None and momentum >= _RECOVERABLE and before[0].dtype in {torch.float32, torch.float64}:
            # The update itself tells the batch's statistics, without a look at the batch.
            after = (module.running_mean, module.running_var)
            mean, variance = (old + (new - old) / momentum for old, new in zip(before, after, strict=True))
        else:
            batch = _tensor(given)
            if batch is None:
                return
            others = [dim for dim in range(batch.dim()) if dim != 1]
            variance, mean = torch.var_mean(batch.float(), others)
        shift, ratio = batch_norm_shift((mean, variance), before, eps=module.eps)
        at = -1 if layer is None else layer
        self._found += (("batch_norm_shift", at, shift), ("batch_norm_variance_ratio", at, ratio))


def _why_compiled(model: nn.Module) -> str:
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            return "torch.compile"
        if isinstance(module, torch.jit.ScriptModule):
            return "torch.jit"
    return ""


def _compiles_something() -> bool:
    """Whether torch.compile was called in this process, as far as torch tells."""
    frames: Any = sys.modules.get("torch._dynamo.eval_frame")
    return any(backend is not None for backend in getattr(frames, "cached_backends", {}).values())


def _is_wanted() -> bool:
    """Whether this is a forward of a training, and one that may be looked at."""
    if not torch.is_grad_enabled() or torch._C._get_tracing_state() is not None:  # noqa: SLF001 - torch.jit.trace
        return False
    # Selective checkpointing counts the operations of a forward to find them again: ours would be among them.
    return not torch._C._len_torch_dispatch_stack() or not any(map(_is_caching, _modes()))  # noqa: SLF001


def _is_caching(mode: object) -> bool:
    return type(mode).__name__ in {"_CachingTorchDispatchMode", "_CachedTorchDispatchMode"}


def _modes() -> Iterable[object]:
    modes: Sequence[object] = torch.utils._python_dispatch._get_current_dispatch_mode_stack()  # noqa: SLF001
    return modes


def _in_backward() -> bool:
    """Whether the engine runs: a forward there is a checkpoint's second."""
    return bool(torch._C._current_graph_task_id() != -1)  # noqa: SLF001


def _tensor(output: Any) -> Tensor | None:
    """The first tensor of real numbers in a module's input or output, without its graph."""
    if isinstance(output, list | tuple):
        output = next((one for one in output if isinstance(one, Tensor)), None)
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.layout != torch.strided:
        return None
    if output.is_nested or torch._C._functorch.is_functorch_wrapped_tensor(output):  # noqa: SLF001
        return None
    plain = local(output).detach()
    return plain if plain.numel() > 1 else None
