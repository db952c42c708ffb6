"""A slow reference: what happened at every step of a loop, computed beside it in double precision."""

import math
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


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(tensor.double().square().sum().item() for tensor in tensors))


@dataclass
class Ledger:
    """Notes of a loop, in its order: backward (maybe repeatedly), before_step, after_step, now and then evaluated."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Any = None
    rows: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    _micro: list[tuple[float, int]] = field(default_factory=list)
    _before: dict[str, float] = field(default_factory=dict)
    _weights: list[Tensor] = field(default_factory=list)

    def backward(self, loss: Tensor, samples: int) -> None:
        """Note the loss as it is to be reported, and the gradient as it is now: unclipped, but maybe scaled."""
        scale = self._scale()
        self._micro.append((loss.item(), samples))
        self._before = {"grad_norm": _norm(self._gradients()) / scale, "loss_scale": scale}

    def before_step(self, *, scaled: bool = False) -> None:
        """Note what the optimizer is about to use; `scaled` says that nobody unscaled the gradients yet."""
        self._before["grad_norm_clipped"] = _norm(self._gradients()) / (self._scale() if scaled else 1.0)
        self._before["learning_rate"] = max(float(group["lr"]) for group in self.optimizer.param_groups)
        self._weights = [parameter.detach().clone() for parameter in self.model.parameters()]

    def after_step(self) -> None:
        """Note what the step did. Call it after scaler.update(): a scale that fell means that the step was skipped."""
        now = list(self.model.parameters())
        weights = _norm(self._weights)
        moved = _norm([new.detach().double() - old.double() for new, old in zip(now, self._weights, strict=True)])
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

    def evaluated(self, **values: float) -> None:
        """Note a validation after the last step."""
        self.evaluations.append({"step": len(self.rows)} | {f"val_{name}": value for name, value in values.items()})

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]

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
    evaluations = run.evaluations.columns
    if ledger.evaluations:
        _compare(evaluations, ledger.evaluations, sorted(ledger.evaluations[0]), always=True)
    return run


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
