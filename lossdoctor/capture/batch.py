"""What a batch is made of, and what is measured of it: inputs, labels, padding. Nothing here waits for a device."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lossdoctor.capture.measures import local

__all__ = [
    "IGNORED",
    "INPUT_MEASURES",
    "LABEL_MEASURES",
    "Layout",
    "input_measures",
    "label_measures",
    "label_signals",
    "layout_of",
    "padding_measures",
    "padding_share",
    "padding_supervised_share",
    "thinned",
]

IGNORED = -100
"""The label that torch's cross entropy leaves out."""
INPUT_MEASURES = ("input_mean", "input_std", "input_min", "input_max", "input_non_finite")
"""What `input_measures` returns, in order."""
LABEL_MEASURES = ("minimum", "maximum", "entropy", "distinct", "supervised", "is_binary", "used")
"""What `label_measures` returns, in order."""

_INPUTS = ("input", "inputs", "x", "pixel_values", "input_ids", "images", "image", "features", "data")
_LABELS = ("label", "labels", "y", "target", "targets")
_MASKS = ("attention_mask",)
_DEPTH = 3
_NUMBERS = 1 << 17
"""Input numbers that are measured: more add cost and no knowledge."""
_LABELS_READ = 8192
_ROWS_COMPARED = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a batch by their role; None for what it does not have or what could not be told."""

    inputs: Tensor | None = None
    """The first floating-point tensor of the input."""
    ids: Tensor | None = None
    """Token ids: the first integer tensor of the input of shape (rows, tokens)."""
    labels: Tensor | None = None
    mask: Tensor | None = None
    """The attention mask, shape (rows, tokens)."""


def layout_of(batch: Any) -> Layout:
    """Tell the parts of a batch apart: a tensor, (x, y, ...), a mapping, or an object with such attributes.

    >>> layout_of((torch.zeros(4, 3), torch.ones(4))).labels
    tensor([1., 1., 1., 1.])
    >>> layout_of({"input_ids": torch.ones(2, 5, dtype=torch.long), "labels": torch.zeros(2)}).ids.shape
    torch.Size([2, 5])
    """
    if isinstance(batch, Tensor):
        return _layout(batch, None, None)
    named = _named(batch)
    if named is not None:
        labels, mask = _first(named, _LABELS), _first(named, _MASKS)
        known = next((named[name] for name in _INPUTS if name in named), None)
        if known is None or not any(map(_is_input, _tensors(known))):
            known = [value for name, value in named.items() if name not in {*_LABELS, *_MASKS}]
        return _layout(known, labels, mask)
    if not isinstance(batch, Sequence) or isinstance(batch, str | bytes) or not len(batch):
        return Layout()
    rest = batch[1:]
    if len(rest) == 1:
        labels = rest[0] if isinstance(rest[0], Tensor) else None
    else:
        # (x, y, weights) and (ids, mask, labels) are both common: only class ids are recognized for sure.
        labels = next(
            (part for part in rest if isinstance(part, Tensor) and part.ndim == 1 and _is_integer(part)), None
        )
    first = batch[0]
    inside = _named(first)
    return _layout(first, labels, None if inside is None else _first(inside, _MASKS))


def input_measures(inputs: Tensor) -> Tensor:
    """Mean, standard deviation, minimum and maximum of the finite inputs, and the share of others. Shape (5,).

    Of large batches evenly spaced rows are read. All NaN but the share where no input is finite.

    >>> input_measures(torch.tensor([[1.0, 3.0], [2.0, float("inf")]])).tolist()
    [2.0, 0.81..., 1.0, 3.0, 0.25]
    """
    with torch.no_grad():
        values = thinned(local(inputs).detach(), _NUMBERS)
        values = values if values.dtype == torch.float64 else values.float()
        if values.is_cpu:  # a fifth of the cost, where all is finite, as it nearly always is
            spread, mean = torch.std_mean(values, correction=0)
            found = torch.stack([mean, spread, *torch.aminmax(values), torch.zeros_like(mean)])
            if np.isfinite(found.numpy()).all():
                return found
        finite = torch.isfinite(values)
        count = finite.sum()
        mean = torch.where(finite, values, 0.0).sum() / count
        spread = torch.where(finite, values - mean, 0.0).square().sum() / count
        least = torch.where(finite, values, math.inf).amin()
        most = torch.where(finite, values, -math.inf).amax()
        return torch.stack([mean, spread.sqrt(), least, most, 1.0 - count / values.numel()])


def label_measures(labels: Tensor) -> Tensor:
    """What `LABEL_MEASURES` names of the labels that are not ignored. Shape (7,).

    The entropy of their histogram is in nats: -mean(ln(n(y) / n)) over the labels y, where n(y) is how often y occurs.
    Counting by sorting has no result whose size depends on the data, so a device need not be waited for.

    >>> found = dict(zip(LABEL_MEASURES, label_measures(torch.tensor([0, 0, 1, 1, -100])).tolist()))
    >>> round(found["entropy"], 4), found["distinct"], round(found["supervised"], 4)
    (0.6931, 2.0, 0.8)
    """
    with torch.no_grad():
        values = thinned(local(labels).detach(), _LABELS_READ).flatten()
        values = values.long() if _is_integer(values) or values.dtype == torch.bool else values.float()
        used = torch.isfinite(values) if values.is_floating_point() else values != IGNORED
        if values.is_cpu:
            return _count_on_host(values.numpy(), used.numpy())
        ascending = values.sort().values
        equal = torch.searchsorted(ascending, values, right=True) - torch.searchsorted(ascending, values)
        count = used.sum()
        entropy = torch.where(used, (count / equal).log(), 0.0).sum() / count
        distinct = torch.where(used, 1.0 / equal, 0.0).sum().round()
        numbers = values.float()
        is_binary = (((values == 0) | (values == 1)) | ~used).all()
        return torch.stack(
            [
                torch.where(used, numbers, math.inf).amin(),
                torch.where(used, numbers, -math.inf).amax(),
                entropy,
                distinct,
                used.float().mean(),
                is_binary.float(),
                count.float(),
            ]
        )


def label_signals(found: Sequence[float], *, is_integer: bool, classes: int) -> dict[str, float]:
    """The signals that follow from what was measured of the labels.

    The entropy is divided by its largest possible value, ln(min(classes, labels)). Float labels count as classes where
    all are 0 or 1.

    >>> label_signals([0.0, 1.0, math.log(2), 2.0, 1.0, 1.0, 8.0], is_integer=True, classes=4)["label_entropy"]
    0.5
    """
    minimum, maximum, entropy, distinct, supervised, is_binary, used = found
    signals = {"supervised_share": supervised} if is_integer else {}
    if not used:
        return signals
    signals |= {"label_min": minimum, "label_max": maximum}
    if is_integer or is_binary:
        signals["labels_distinct"] = distinct
        possible = min(max(classes, 2), used)
        if possible > 1:
            signals["label_entropy"] = min(max(entropy / math.log(possible), 0.0), 1.0)
    return signals


def padding_share(layout: Layout) -> Tensor | None:
    """The share of tokens that are padding, shape (1,); None where there are no tokens.

    With an attention mask: its zeros. Else the runs, at the ends of rows, of the id that makes up most of them, if it
    seldom occurs elsewhere.

    >>> padding_share(Layout(ids=torch.tensor([[5, 3, 0, 0], [7, 2, 9, 4]]))).tolist()
    [0.25]
    """
    with torch.no_grad():
        if layout.mask is not None:
            mask = layout.mask.detach()
            return (mask == 0).float().mean().reshape(1) if mask.ndim == 2 and mask.numel() else None  # noqa: PLR2004
        if layout.ids is None:
            return None
        ids = thinned(local(layout.ids).detach(), _NUMBERS)
        ids = ids[:: math.ceil(len(ids) / _ROWS_COMPARED)]
        last = ids[:, -1:]
        run = (ids == last).flip(1).cumprod(1).sum(1)
        run = torch.where(run > 1, run, 0)
        votes = ((last == last.T) * run).sum(1)
        pad = last[:, 0].gather(0, votes.argmax().reshape(1))  # to index by a tensor would wait for the device
        inside = torch.where(last[:, 0] == pad, run, 0).sum()
        seldom_elsewhere = 2 * inside >= (ids == pad).sum()
        return (inside * seldom_elsewhere / ids.numel()).reshape(1)


def padding_supervised_share(layout: Layout) -> Tensor | None:
    """The share of padding among the labels of tokens that are not ignored, shape (1,); None without such labels.

    Labels of tokens have the shape of the attention mask; without a mask nothing is said.

    >>> mask = torch.tensor([[1, 1, 1, 0]])
    >>> padding_supervised_share(Layout(labels=torch.tensor([[5, 3, 9, 0]]), mask=mask)).tolist()
    [0.25]
    >>> padding_supervised_share(Layout(labels=torch.tensor([[5, 3, 9, -100]]), mask=mask)).tolist()
    [0.0]
    """
    labels, mask = layout.labels, layout.mask
    if labels is None or mask is None or labels.shape != mask.shape or mask.ndim != 2 or not _is_integer(labels):  # noqa: PLR2004
        return None
    with torch.no_grad():
        used = labels.detach() != IGNORED
        return ((used & (mask.detach() == 0)).sum() / used.sum()).reshape(1)


def padding_measures(layout: Layout) -> dict[str, Tensor]:
    """What can be measured of the padding of a batch, by signal, each of shape (1,)."""
    found = {"padding_share": padding_share(layout), "padding_supervised_share": padding_supervised_share(layout)}
    return {name: share for name, share in found.items() if share is not None}


def thinned(values: Tensor, limit: int, *, rows: int = 1) -> Tensor:
    """At most about `limit` numbers of a tensor, whole rows (but at least `rows` of them) as far as possible."""
    if values.numel() <= limit or not values.ndim:
        return values
    kept = max(rows, limit * len(values) // values.numel())
    if kept < len(values):
        values = values[:: math.ceil(len(values) / kept)]
    if rows == 1 and values.ndim > 1 and values.numel() > limit:
        values = values.flatten(1)
        values = values[:, :: math.ceil(values.numel() / limit)]
    return values


def _count_on_host(values: npt.NDArray[Any], used: npt.NDArray[np.bool_]) -> Tensor:
    """The same as by sorting on a device, and quicker."""
    kept = values[used]
    if not kept.size:
        return torch.tensor([math.inf, -math.inf, math.nan, 0.0, 0.0, 1.0, 0.0])
    labels, counts = np.unique(kept, return_counts=True)
    shares = counts / kept.size
    entropy = -float(np.dot(shares, np.log(shares)))
    is_binary = set(labels[:3].tolist()) <= {0, 1}
    return torch.tensor(
        [labels[0], labels[-1], entropy, len(labels), kept.size / values.size, is_binary, kept.size],
        dtype=torch.float64,
    )


def _layout(part: Any, labels: Tensor | None, mask: Tensor | None) -> Layout:
    found = list(_tensors(part))
    return Layout(
        inputs=next((one for one in found if _is_read(one) and one.is_floating_point()), None),
        ids=next((one for one in found if _is_read(one) and _is_integer(one) and _has_tokens(one)), None),
        labels=labels if labels is not None and _is_read(labels) and not labels.is_complex() else None,
        mask=mask,
    )


def _named(batch: Any) -> Mapping[str, Any] | None:
    """The parts of a batch by name, where it has names."""
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, list | Tensor | str | bytes):
        return None
    if isinstance(batch, tuple):
        names = getattr(batch, "_fields", ())
        return dict(zip(names, batch, strict=False)) if set(names) & {*_LABELS, *_INPUTS} else None
    if dataclasses.is_dataclass(batch):
        return {field.name: getattr(batch, field.name, None) for field in dataclasses.fields(batch)}
    found = getattr(batch, "__dict__", None)
    return found if isinstance(found, Mapping) else None


def _first(named: Mapping[str, Any], names: Sequence[str]) -> Tensor | None:
    return next((named[name] for name in names if isinstance(named.get(name), Tensor)), None)


def _tensors(part: Any, depth: int = _DEPTH) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif depth:
        parts = part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ()
        for one in parts:
            yield from _tensors(one, depth - 1)


def _is_input(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or _is_integer(tensor)


def _is_read(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.numel() > 0 and tensor.ndim > 0 and not tensor.is_nested


def _has_tokens(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.shape[1] > 1  # noqa: PLR2004


def _is_integer(tensor: Tensor) -> bool:
    return tensor.dtype in {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
