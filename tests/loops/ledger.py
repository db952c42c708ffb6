"""A slow reference: what happened at every step of a loop, computed beside it in double precision."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossdoctor.diagnosis import diagnose
from lossdoctor.findings import Diagnosis
from lossdoctor.runs.reader import read_run
from lossdoctor.runs.tables import Column, Run

__all__ = ["Ledger", "assert_healthy", "assert_recorded", "diagnosis_at"]


def _norm(tensors: Iterable[Tensor]) -> float:
    dense = (tensor.to_dense() if tensor.is_sparse else tensor for tensor in tensors)
    return math.sqrt(sum(tensor.double().square().sum().item() for tensor in dense))


@dataclass
class Ledger:
    """Notes of a loop, in its order: backward (maybe repeatedly), before_step, after_step, now and then evaluated.

    The parameters it looks at are those the optimizer has and may change.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Any = None
    rows: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    _micro: list[tuple[float, int]] = field(default_factory=list)
    _before: dict[str, float] = field(default_factory=dict)
    _weights: dict[Tensor, Tensor] = field(default_factory=dict)
    layer_rows: list[dict[str, dict[str, float]]] = field(default_factory=list)
    """For each step, what each layer's row has to hold; what cannot be told is left out."""

    def backward(self, loss: Tensor, samples: int) -> None:
        """Note the loss as it is to be reported, and the gradient as it is now: unclipped, but maybe scaled."""
        scale = self._scale()
        self._micro.append((loss.item(), samples))
        self._before = {"grad_norm": _norm(self._gradients()) / scale, "loss_scale": scale}
        self._layer_gradients = {}
        for name, parameters in self._layers().items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                self._layer_gradients[name] = _norm(gradients) / scale

    def dropped(self) -> None:
        """Note that the gradients of the micro-batches so far were thrown away."""
        self._micro = []

    def before_step(self, *, scaled: bool = False) -> None:
        """Note what the optimizer is about to use; `scaled` says that nobody unscaled the gradients yet."""
        self._before["grad_norm_clipped"] = _norm(self._gradients()) / (self._scale() if scaled else 1.0)
        self._before["learning_rate"] = max(float(group["lr"]) for group in self.optimizer.param_groups)
        self._weights = {parameter: parameter.detach().clone() for parameter in self._parameters()}

    def after_step(self) -> None:
        """Note what the step did. Call it after scaler.update(): a scale that fell means that the step was skipped."""
        weights = _norm(self._weights.values())
        changes = {new: new.detach().double() - old.double() for new, old in self._weights.items()}
        moved = _norm(changes.values())
        losses = [loss for loss, _ in self._micro]
        self.rows.append(
            self._before
            | {
                "step": len(self.rows) + 1,
                "train_loss": sum(losses) / len(losses),
                "samples": sum(samples for _, samples in self._micro),
                "micro_batches": len(self._micro),
                "param_norm": weights,
                "update_ratio": moved / weights,
                "skipped": float(self._scale() < self._before["loss_scale"]),
            }
        )
        self._micro = []
        row: dict[str, dict[str, float]] = {"layer_grad_norm": self._layer_gradients}
        layers = self._layers()
        row["layer_param_norm"] = norms = {
            name: _norm(self._weights[parameter] for parameter in layer) for name, layer in layers.items()
        }
        row["layer_grad_to_param"] = {
            name: norm / norms[name] for name, norm in self._layer_gradients.items() if norms[name]
        }
        row["layer_update_ratio"] = {
            name: _norm(changes[parameter] for parameter in layer) / norms[name]
            for name, layer in layers.items()
            if norms[name]
        }
        self.layer_rows.append(row)

    def evaluated(self, **values: float) -> None:
        """Note a validation after the last step."""
        self.evaluations.append({"step": len(self.rows)} | {f"val_{name}": value for name, value in values.items()})

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _parameters(self) -> list[nn.Parameter]:
        return [one for group in self.optimizer.param_groups for one in group["params"] if one.requires_grad]

    def _layers(self) -> dict[str, list[nn.Parameter]]:
        """The modules that own parameters the optimizer changes; a tied one belongs to the first that has it."""
        left = dict.fromkeys(self._parameters())
        layers: dict[str, list[nn.Parameter]] = {}
        for name, module in self.model.named_modules():
            own = [one for one in dict.fromkeys(module._parameters.values()) if one in left]
            if own:
                layers[name or type(module).__name__] = own
            for one in own:
                del left[one]
        return layers

    def _scale(self) -> float:
        return 1.0 if self.scaler is None else self.scaler.get_scale()


def assert_recorded(directory: Path, ledger: Ledger) -> Run:
    """Every number of the run at `directory` is the ledger's, to the precision it is stored in."""
    run = read_run(directory)
    assert not run.warnings
    steps = run.steps.columns
    assert steps["step"].values.tolist() == [row["step"] for row in ledger.rows]
    _compare(steps, ledger.rows, ["train_loss", "samples", "micro_batches"], always=True)
    took_place = np.array([not row["skipped"] for row in ledger.rows])
    for name in ("grad_norm", "grad_norm_clipped", "learning_rate"):
        assert steps[name].mask()[took_place].all(), f"{name} is missing at some step"
    _compare(steps, ledger.rows, ["grad_norm", "grad_norm_clipped", "learning_rate", "param_norm", "update_ratio"])
    if ledger.scaler is not None:
        _compare(steps, ledger.rows, ["loss_scale", "skipped"], always=True)
    if not any(row["skipped"] for row in ledger.rows):
        _compare_layers(run, ledger)
    evaluations = run.evaluations.columns
    if ledger.evaluations:
        _compare(evaluations, ledger.evaluations, sorted(ledger.evaluations[0]), always=True)
    return run


def _compare_layers(run: Run, ledger: Ledger) -> None:
    names = [layer.name for layer in run.info.model.layers]
    steps = run.layers.step.astype(int).tolist()
    assert len(steps) >= min(5, len(ledger.rows) // 2), "too few samples of the layers"
    for signal in ("layer_grad_norm", "layer_param_norm", "layer_grad_to_param", "layer_update_ratio"):
        column = run.layers.columns[signal]
        for row, step in enumerate(steps):
            wanted = ledger.layer_rows[step - 1][signal]
            mask = column.mask()[row]
            assert {name for name, seen in zip(names, mask, strict=True) if seen} == set(wanted), (signal, step)
            found = {name: value for name, value, seen in zip(names, column.values[row], mask, strict=True) if seen}
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=5e-5, atol=1e-9, err_msg=f"{signal} {name} {step}")


def _compare(columns: Any, rows: list[dict[str, float]], names: list[str], *, always: bool = False) -> None:
    for name in names:
        column: Column = columns[name]
        seen = column.mask()
        if always:
            assert seen.all(), f"{name} is missing at some row"
        assert seen.any(), f"{name} was never recorded"
        wanted = np.array([row[name] for row in rows], dtype=np.float64)[seen]
        np.testing.assert_allclose(column.values[seen], wanted, rtol=2e-5, atol=1e-9, err_msg=name)


def diagnosis_at(directory: Path) -> Diagnosis:
    """The diagnosis of a recorded run."""
    return diagnose(read_run(directory))


def assert_healthy(directory: Path) -> None:
    """The run has no finding worth more than a note."""
    found = diagnosis_at(directory)
    graver = [finding for finding in found.findings if finding.severity in {"warning", "error"}]
    assert not graver, [(finding.rule, finding.since, finding.message) for finding in graver]
    assert found.verdict == "healthy"
