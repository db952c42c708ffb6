"""The tap on a model's output: a hook that is there at sample steps only, and what is measured of what it sees."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lossdoctor.capture.batch import thinned
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.lent import LentHook
from lossdoctor.capture.measures import local

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = [
    "OUTPUT_MEASURES",
    "OutputTap",
    "broadcast_trap",
    "output_measures",
    "output_of",
    "output_signals",
]

OUTPUT_MEASURES = ("output_std", "output_non_finite", "top_prediction_share", "rows_sum_to_one")
"""What `output_measures` returns, in order."""

_NUMBERS = 1 << 18
_ROWS = 64
"""Rows that are read of an output however wide it is."""
_TOLERANCE = 1e-3


class OutputTap:
    """Lends a model a forward hook while it is attached; `on_output` gets the first output with a graph.

    It is not attached to what torch.compile made, nor, once torch.compile was called in this process, before
    `ran_eagerly` was true of a loss: a hook inside a compiled region would have it compiled again.
    """

    def __init__(self, model: nn.Module, faults: Faults, on_output: Callable[[Any, bool], None]) -> None:
        self.is_proven = False
        """Whether the model was seen to run outside of compiled code."""
        self._model = model
        self._on_output = faults.guard("model outputs", on_output)
        self._handle: RemovableHandle | None = None

    def attach(self) -> None:
        """Put the hook in place, if it may be."""
        if self._handle is None and (self.is_proven or not _compile_was_called()) and not _is_compiled(self._model):
            self._handle = self._model.register_forward_hook(LentHook(self._saw))

    def detach(self) -> None:
        """Take it out again."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _saw(self, module: nn.Module, _: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not _is_tracing():
            self._on_output(output, module.training)


def output_of(output: Any) -> Tensor | None:
    """The predictions in what a model returned: `logits` where something is called so, else the first float tensor.

    >>> output_of({"loss": torch.tensor(1.0), "logits": torch.zeros(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        is_read = output.is_floating_point() and output.ndim and output.numel() and output.layout == torch.strided
        return local(output) if is_read and not output.is_nested and not _is_wrapped(output) else None
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if logits is not None:
        return output_of(logits)
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return next((found for found in map(output_of, parts) if found is not None), None)


def by_class(output: Tensor, labels: tuple[torch.Size, bool] | None) -> tuple[Tensor | None, bool | None]:
    """The output as (rows, classes), and whether these are classes; None where that is not known."""
    shape = output.shape
    if output.ndim == 1:
        return output.unsqueeze(1), None
    if labels is None:
        return (output.reshape(-1, shape[-1]), None) if output.ndim < 4 else (None, None)  # noqa: PLR2004 - images
    target, is_integer = labels
    if is_integer and target == shape[:-1]:
        return output.reshape(-1, shape[-1]), True
    if is_integer and output.ndim > 2 and target == shape[:1] + shape[2:]:  # noqa: PLR2004 - as torch's cross entropy has it
        return output.movedim(1, -1).reshape(-1, shape[1]), True
    if not is_integer and target == shape and shape[-1] > 1:
        return output.reshape(-1, shape[-1]), False
    return (output.reshape(-1, shape[-1]), None) if output.ndim < 4 else (None, None)  # noqa: PLR2004


def output_measures(output: Tensor) -> Tensor:
    """What `OUTPUT_MEASURES` names of predictions of shape (rows, classes). Shape (4,).

    The standard deviation is over the rows, averaged over the classes; the share of the top prediction is that of the
    most frequent argmax. With one class a row predicts it where it is above 0, or above 0.5 if all are within [0, 1].
    Of large outputs evenly spaced rows are read.

    >>> output_measures(torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])).tolist()
    [0.16..., 0.0, 0.66..., 1.0]
    """
    with torch.no_grad():
        values = thinned(output.detach(), _NUMBERS, rows=_ROWS)
        values = values if values.dtype == torch.float64 else values.float()
        if values.is_cpu and values.shape[1] > 1:
            return _measure_on_host(values.numpy())
        spread = values.std(0, correction=0).mean()
        broken = 1.0 - torch.isfinite(values).to(values.dtype).mean()
        if values.shape[1] == 1:
            share = ((values >= 0) & (values <= 1)).all()
            positive = (values > torch.where(share, 0.5, 0.0)).to(values.dtype).mean()
            return torch.stack([spread, broken, torch.maximum(positive, 1 - positive), torch.zeros_like(spread)])
        predicted = values.argmax(1)
        ascending = predicted.sort().values
        equal = torch.searchsorted(ascending, predicted, right=True) - torch.searchsorted(ascending, predicted)
        sums = values.sum(1)
        is_share = (values.amin(1) >= 0) & ((sums - 1).abs() <= _TOLERANCE)
        return torch.stack([spread, broken, equal.amax() / len(values), is_share.to(values.dtype).mean()])


def _measure_on_host(values: npt.NDArray[Any]) -> Tensor:
    """The same as on a device, and quicker."""
    rows, classes = values.shape
    with np.errstate(all="ignore"):
        spread = values.std(0).mean()
        broken = 1.0 - np.count_nonzero(np.isfinite(values)) / values.size
        top = np.bincount(values.argmax(1), minlength=classes).max() / rows
        is_share = (values.min(1) >= 0) & (np.abs(values.sum(1) - 1) <= _TOLERANCE)
    return torch.tensor([spread, broken, top, np.count_nonzero(is_share) / rows], dtype=torch.float64)


def output_signals(
    found: Sequence[float], shape: Sequence[int], *, is_classes: bool | None, is_binary: bool
) -> dict[str, float]:
    """The signals that follow from what was measured of predictions of shape (rows, classes).

    One row has no spread and its own prediction is always the most frequent. Outputs that are not classes predict none.

    >>> sorted(output_signals([0.5, 0.0, 0.75, 0.0], (8, 1), is_classes=None, is_binary=False))
    ['output_classes', 'output_non_finite', 'output_std']
    """
    rows, classes = shape
    signals = dict(zip(OUTPUT_MEASURES, found, strict=True))
    if rows == 1:
        del signals["output_std"]
    if rows == 1 or is_classes is False or (classes == 1 and not is_binary):
        del signals["top_prediction_share"]
    if classes == 1:
        del signals["rows_sum_to_one"]
    return {**signals, "output_classes": float(classes)}


def broadcast_trap(output: torch.Size, target: torch.Size) -> torch.Size | None:
    """The shape that an elementwise loss would silently take between an output and a target; None if it would not.

    >>> broadcast_trap(torch.Size([8, 1]), torch.Size([8]))
    torch.Size([8, 8])
    >>> broadcast_trap(torch.Size([8, 1]), torch.Size([8, 1]))
    """
    try:
        together = torch.broadcast_shapes(output, target)
    except RuntimeError:
        return None
    return together if together not in {output, target} else None


def _is_wrapped(output: Tensor) -> bool:
    """Whether it belongs to a transform of torch.func, out of which no number may be taken."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(output))  # noqa: SLF001 - there is no public word for it


def _is_tracing() -> bool:
    return torch._C._get_tracing_state() is not None  # noqa: SLF001 - torch.jit.is_tracing, but typed


def _is_compiled(model: nn.Module) -> bool:
    return hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None


def _compile_was_called() -> bool:
    """Whether anything in this process was given to torch.compile; True where that cannot be told."""
    frames = sys.modules.get("torch._dynamo.eval_frame")
    backends = getattr(frames, "cached_backends", None)
    if frames is None:
        return False
    return not isinstance(backends, dict) or any(map(callable, backends.values()))
