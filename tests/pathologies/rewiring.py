"""Tasks whose data, model or loss are put together in other ways: mistakes, and sound set-ups that look like them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.pathologies.data import Examples, Task

__all__ = ["rewired"]


class StuckInEval(nn.Module):
    """A model whose train() does nothing once it was in eval mode, as where a loop forgets to call it again."""

    def __init__(self, inner: nn.Module, *, from_the_start: bool) -> None:
        super().__init__()
        self.inner = inner
        self._stuck = from_the_start

    def train(self, mode: bool = True) -> "StuckInEval":
        """Training mode, unless evaluation mode came before."""
        self._stuck = self._stuck or not mode
        super().train(mode and not self._stuck)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """As the model within."""
        return self.inner(inputs)


def rewired(
    base: Callable[..., Task],
    *,
    head: Literal["", "softmax", "softmax and nll", "sigmoid"] = "",
    labels: Literal["", "signed", "from one", "constant"] = "",
    flat_targets: bool = False,
    stuck_in_eval: Literal["", "from the start", "after validation"] = "",
    minority: float = 1.0,
    leaked: float = 0.0,
    ordered: bool = False,
    input_offset: float = 0.0,
    feature_scale: float = 1.0,
    constant_inputs: bool = False,
    missing: float = 0.0,
    supervised: float = 1.0,
    few_values: bool = False,
    agreement: bool = False,
    **model: object,
) -> Task:
    """The task `base` with changes.

    Args:
        base: The factory of the task; takes `model`.
        head: What is put behind the model: a softmax or a sigmoid (before a loss for logits), or a softmax whose
            logarithm goes into the negative log likelihood, which is sound.
        labels: -1 and 1, or 1 and 2, in place of 0 and 1; or all of them 0.
        flat_targets: Regression targets of shape (rows,) against outputs of shape (rows, 1).
        stuck_in_eval: Since when train() does nothing.
        minority: The share kept of the training and validation rows of every class but the first.
        leaked: The share of the validation rows that are put into the training rows too.
        ordered: Sort the training rows by target.
        input_offset: What is added to the inputs.
        feature_scale: What the first feature is multiplied by.
        constant_inputs: All inputs are 0.
        missing: The share of the inputs that are NaN.
        supervised: The share of the labels of tokens that are kept; the others are -100.
        few_values: Round the inputs to -1, 0 and 1 in the first three features, 0 in the others.
        agreement: The loss is the distance between the outputs of the halves of a batch: a pull and no push.
        **model: What `base` takes.
    """
    task = base(**model)
    generator = torch.Generator().manual_seed(11)

    def changed(rows: Examples) -> Examples:
        inputs, targets = rows.inputs, rows.targets
        if minority < 1:
            flat = targets.flatten()
            kept = (flat == flat.min()) | (torch.rand(len(flat), generator=generator) < minority)
            inputs, targets = inputs[kept], targets[kept]
        if labels:
            targets = {"signed": 2 * targets - 1, "from one": targets + 1, "constant": targets * 0}[labels]
        if input_offset or feature_scale != 1:
            inputs = inputs + input_offset
            inputs[:, 0] *= feature_scale
        if few_values:
            inputs = inputs.clone().clamp(-1, 1).round()
            inputs[:, 3:] = 0
        if constant_inputs:
            inputs = torch.zeros_like(inputs)
        if missing:
            inputs = torch.where(torch.rand(inputs.shape, generator=generator) < missing, torch.nan, inputs)
        return Examples(inputs, targets.squeeze(-1) if flat_targets else targets)

    train, validation = changed(task.train), changed(task.validation)
    if supervised < 1:
        kept = torch.rand(train.targets.shape, generator=generator) < supervised
        train = Examples(train.inputs, torch.where(kept, train.targets, -100))
    if leaked:
        some = validation[: round(leaked * len(validation))]
        train = Examples(torch.cat((train.inputs, some.inputs)), torch.cat((train.targets, some.targets)))
    if ordered:
        train = train[torch.sort(train.targets.flatten(), stable=True).indices]
    loss, accuracy = task.loss, task.accuracy
    if head == "softmax and nll":
        loss, accuracy = _nll_of_probabilities, task.accuracy
    elif head == "sigmoid":
        accuracy = _fraction_right_sigmoid
    if flat_targets:
        loss = _squared_error
    elif agreement:
        loss = _distance_of_halves
    return replace(
        task,
        train=train,
        validation=validation,
        build=lambda: _built(task, head, stuck_in_eval),
        loss=loss,
        accuracy=None if labels or flat_targets or agreement else accuracy,
    )


def _built(task: Task, head: str, stuck_in_eval: str) -> nn.Module:
    model = task.build()
    if head:
        model = nn.Sequential(model, nn.Sigmoid() if head == "sigmoid" else nn.Softmax(-1))
    return StuckInEval(model, from_the_start=stuck_in_eval == "from the start") if stuck_in_eval else model


def _nll_of_probabilities(probabilities: Tensor, targets: Tensor) -> Tensor:
    return functional.nll_loss((probabilities + 1e-9).log(), targets)


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def _distance_of_halves(outputs: Tensor, _targets: Tensor) -> Tensor:
    half = len(outputs) // 2
    return (outputs[:half] - outputs[half : 2 * half]).square().mean()


def _fraction_right_sigmoid(shares: Tensor, targets: Tensor) -> Tensor:
    return ((shares > 0.5) == (targets > 0)).float().mean()
