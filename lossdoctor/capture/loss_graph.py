"""What the graph of a loss says of the loss: which criterion it is, and what it was given. No tensor is read for it.

The graph keeps its nodes and their settings when backward has freed its values.
"""

from collections import deque
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_broadcast", "loss_measures", "ran_eagerly"]

_NODES = 64
"""Nodes of the graph that are looked at, from the loss backwards."""
_SAME_VALUES = (
    *("View", "UnsafeView", "Reshape", "ReshapeAlias", "Flatten", "Unflatten", "Transpose", "Permute", "T", "Squeeze"),
    *("Unsqueeze", "Clone", "ToCopy", "Alias", "Select", "Slice", "Index", "IndexSelect", "Movedim", "Expand"),
)
"""Operations after which probabilities are probabilities still."""
_ONE_PART = {*_SAME_VALUES, "Mul", "Div", "Mean", "Sum", "Neg", "MaskedFill"}
"""Operations that make no other loss of a loss, as long as nothing else that is learned joins in."""
_SUMS = ("Add", "Stack", "Cat")
_CRITERIA = ("NllLoss", "BinaryCrossEntropy", "LogSoftmax")
_ON_SCORES = {"LogSoftmax": {"Softmax"}, "BinaryCrossEntropyWithLogits": {"Sigmoid", "Softmax"}}
"""Operations that are there for scores, and what would make probabilities of them before."""


def loss_measures(loss: Tensor) -> dict[str, float]:
    """The signals that follow from a loss's graph, none where it has none.

    `softmax_twice`: 1 where the criterion takes the softmax (or the sigmoid) of what is one already. `ignore_index`:
    the label that torch's cross entropy leaves out, where it averages or adds up class ids. `binary_targets`: 1 where
    the criterion is torch's binary cross entropy. `cross_entropy_alone`: of either, 1 where nothing else is in the sum.

    >>> rows = torch.zeros(2, 3, requires_grad=True)
    >>> loss_measures(torch.nn.functional.cross_entropy(rows.softmax(-1), torch.tensor([0, 2])))
    {'softmax_twice': 1.0, 'binary_targets': 0.0, 'ignore_index': -100.0, 'cross_entropy_alone': 1.0}
    """
    nodes = _nodes(loss)
    if not nodes or any("Compiled" in node.name() for node in nodes):
        return {}
    kinds = [_kind(node) for node in nodes]
    found = {
        "softmax_twice": float(any(_takes_probabilities(node) for node in nodes)),
        "binary_targets": float(any(kind.startswith("BinaryCrossEntropy") for kind in kinds)),
    }
    for node, kind in zip(nodes, kinds, strict=True):
        if kind in {"NllLoss", "NllLoss2D"} and node._saved_reduction:  # noqa: SLF001
            label: int = node._saved_ignore_index  # noqa: SLF001 - the node's only word for it
            found["ignore_index"] = float(label if label < 1 << 63 else label - (1 << 64))  # it comes unsigned
            break
    if found["binary_targets"] or "ignore_index" in found:
        found["cross_entropy_alone"] = float(_is_cross_entropy(loss.grad_fn))
    return found


def is_broadcast(loss: Tensor, output: Any, shape: torch.Size) -> bool | None:
    """Whether a loss made a value of `shape` out of an output, given by its node, and of nothing else that is learned.

    Only what lies between the two counts: weights and activations may have any shape. A loss that sets the outputs off
    against each other, as for a ranking, has them on both sides. None without a graph.
    """
    if loss.grad_fn is None:
        return None
    nodes = _nodes(loss, until=output)
    into: dict[int, list[Any]] = {}
    for node in nodes:
        for parent in _parents(node):
            into.setdefault(id(parent), []).append(node)
    ahead, between = [output], dict[int, Any]()
    while ahead:
        for node in into.get(id(ahead.pop()), ()):
            if id(node) not in between:
                between[id(node)] = node
                ahead.append(node)
    made = [_parents(node) for node in between.values() if _has_shape(node, shape)]
    return any(len(parents) == 1 and not _has_shape(parents[0], shape) for parents in made)


def ran_eagerly(loss: Tensor) -> bool:
    """Whether the graph of a loss leads to a parameter without passing compiled code."""
    names = [node.name() for node in _nodes(loss)]
    return any("AccumulateGrad" in name for name in names) and not any("Compiled" in name for name in names)


def _is_cross_entropy(node: Any) -> bool:
    """Whether all that is added up is cross entropy, scaled by numbers that are not learned."""
    ahead, looked_at = [node], 0
    while ahead and looked_at < _NODES:
        node, looked_at = ahead.pop(), looked_at + 1
        if _kind(node).startswith(_CRITERIA):
            continue
        parents = _parents(node)
        if not (_kind(node) in _SUMS or (_kind(node) in _ONE_PART and len(parents) == 1)):
            return False
        ahead.extend(parents)
    return not ahead


def _takes_probabilities(node: Any) -> bool:
    before = _ON_SCORES.get(_kind(node), set())
    at = _first_parent(node) if before else None
    while at is not None and _kind(at) in _SAME_VALUES:
        at = _first_parent(at)
    return at is not None and _kind(at) in before


def _has_shape(node: Any, shape: torch.Size) -> bool:
    return any(tuple(shape) == tuple(found.shape) for found in getattr(node, "_input_metadata", ()))


def _parents(node: Any) -> list[Any]:
    return [parent for parent, _ in node.next_functions if parent is not None]


def _first_parent(node: Any) -> Any:
    return next((parent for parent, _ in node.next_functions), None)


def _kind(node: Any) -> str:
    """A node's operation: "NllLossBackward0" -> "NllLoss"."""
    return str(node.name()).rpartition("Backward")[0]


def _nodes(loss: Tensor, *, until: Any = None) -> list[Any]:
    """Nodes from the loss backwards, without what lies behind `until`."""
    seen: dict[int, Any] = {}
    ahead = deque([loss.grad_fn])
    while ahead and len(seen) < _NODES:
        node = ahead.popleft()
        if node is not None and id(node) not in seen:
            seen[id(node)] = node
            if node is not until:
                ahead.extend(following for following, _ in node.next_functions)
    return list(seen.values())
