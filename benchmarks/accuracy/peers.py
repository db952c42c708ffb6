"""What others would say of the same recordings: published default rules, each a function of a run.

Formulas and defaults are the published ones; where a rule needs what is not recorded, the nearest recorded quantity
stands in, and the docstring says so. A rule that needs a signal the run does not have says nothing. A rule is asked at
every step or evaluation, and what it ever says counts. `causes` maps what a tool says to the ids it could mean, as
generously as its documentation allows.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from lossdoctor.runs import Run

__all__ = ["PEERS", "Peer"]

Floats = npt.NDArray[np.float64]

_NAN = "non_finite_loss non_finite_gradient amp_overflow invalid_labels masked_labels data_scale impossible_loss"
_RISES = (
    "divergence update_too_large missing_warmup lr_schedule_mismatch oscillation exploding_gradient missing_zero_grad "
    "accumulation_mismatch resume_mismatch"
)
_STANDS = (
    "not_learning slow_learning plateau underfitting frozen_parameters poor_initialization update_too_small "
    "excess_regularization majority_class_collapse collapsed_output low_precision_stall undertrained"
)
_SPIKE = "loss_spike exploding_gradient divergence"
_OVERFIT = "overfitting generalization_gap suspicious_validation train_eval_mismatch"


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool: what it says of a run, where its rules come from, and what its words mean in ours."""

    alarms: Callable[[Run], frozenset[str]]
    source: str
    causes: Mapping[str, str]

    def accepted(self, said: frozenset[str]) -> frozenset[str]:
        """Our ids for what was said."""
        return frozenset(cause for word in said for cause in self.causes[word].split())


def sagemaker(run: Run) -> frozenset[str]:
    """SageMaker Debugger's built-in rules at their defaults, on losses, gradients, weights and activations.

    The mean of |gradient| of a tensor is not recorded: its root mean square over a layer, which hides a bias whose
    gradient is all but 0, stands in.
    """
    loss, val = _step(run, "train_loss"), _evaluation(run, "val_loss")
    sizes = np.array([layer.parameters for layer in run.info.model.layers], dtype=np.float64)
    norms, ratios = _layer(run, "layer_grad_norm"), _layer(run, "layer_update_ratio")
    epochs, dead = _epochs(run, "train_loss"), _layer(run, "layer_dead_share")
    gap = (val - epochs) / epochs if len(val) == len(epochs) else np.empty(0)
    return _said(
        LossNotDecreasing=bool(np.any(loss[10:] >= loss[:-10])),
        ExplodingTensor=not np.isfinite(loss).all() or not np.isfinite(_step(run, "grad_norm")).all(),
        VanishingGradient=bool(norms.size and np.any(norms / np.sqrt(sizes) < 1e-7)),
        WeightUpdateRatio=bool(np.any(ratios > 10) or np.any(ratios < 1e-8)),
        Overfit=bool(np.any(gap > 0.1)),
        Overtraining=_no_better(epochs, 5) and _no_better(val, 10),
        DeadRelu=bool(np.any(dead > 0.5)),
    )


def sagemaker_without_loss_not_decreasing(run: Run) -> frozenset[str]:
    """The same without the rule that speaks up wherever a loss is noisy."""
    return sagemaker(run) - {"LossNotDecreasing"}


def autotrainer(run: Run) -> frozenset[str]:
    """AutoTrainer's five working rules, gated on an accuracy that stays bad, from 30 % of the epochs on.

    The share of gradient entries that are 0 is not recorded: the share of dead units stands in.
    """
    accuracy, loss, norms = _epochs(run, "train_accuracy"), _step(run, "train_loss"), _layer(run, "layer_grad_norm")
    broken = not np.isfinite(loss).all() or bool(np.any(loss >= 1e3)) or not np.isfinite(_step(run, "grad_norm")).all()
    if len(accuracy) < 2:
        return _said(exploding=broken)
    late = accuracy[int(0.3 * len(accuracy)) :]
    slow = bool(np.max(late) < 0.6 and np.max(np.diff(accuracy), initial=-np.inf) < 0.01)
    bad = bool(np.max(late) < 0.6)
    turns = [value for value, before, after in _neighbours(accuracy) if (value - before) * (value - after) > 0]
    swings = sum(abs(a - b) >= 0.03 for a, b in pairwise(turns))
    first, last = (norms[:, 0], norms[:, -1]) if norms.size else (np.empty(0), np.empty(0))
    with_layers = bool(len(first)) and bad
    return _said(
        exploding=broken or (with_layers and bool(np.any(first / last > 70))),
        vanishing=with_layers and bool(np.any((first / last < 1e-3) & (first < 1e-4))),
        dying_relu=bad and bool(np.any(_layer(run, "layer_dead_share") >= 0.7)),
        oscillating=swings >= 0.2 * len(accuracy) and swings > 0,
        slow_convergence=slow,
    )


def umlaut(run: Run) -> frozenset[str]:
    """UMLAUT's heuristics that look at epochs and settings; NaN is reported only where the input has it."""
    train, val = _epochs(run, "train_loss"), _evaluation(run, "val_loss")
    train_accuracy, val_accuracy = _epochs(run, "train_accuracy"), _evaluation(run, "val_accuracy")
    rate = _step(run, "learning_rate")
    rate = rate[rate > 0]
    same = min(len(train), len(val))
    overfit = (np.diff(val[:same]) > 0) & (np.diff(train[:same]) <= 0)
    known = min(len(train_accuracy), len(val_accuracy))
    late, gap = val_accuracy[3:], (val_accuracy[:known] - train_accuracy[:known])[3:]
    return _said(
        overfitting=bool(np.any(overfit)),
        high_validation_accuracy=bool(np.any(late > 0.95) or np.any(gap > 0.05)),
        learning_rate_high=bool(np.any(rate > 0.01)),
        learning_rate_low=bool(len(rate) and np.all(rate < 1e-7)),
        nan_in_input=bool(np.nansum(_step(run, "input_non_finite")) > 0),
    )


def lightning(run: Run) -> frozenset[str]:
    """Lightning's SpikeDetection: above the last loss, and 200 % away from the mean of the last ten."""
    recent: deque[float] = deque(maxlen=10)
    spiked, last = False, np.nan
    for number, loss in enumerate(_step(run, "train_loss")):
        if not np.isfinite(loss):
            spiked = True
        elif number > 1 and recent:
            mean = sum(recent) / len(recent)
            spiked |= loss > last and abs(loss - mean) >= 2 * abs(mean)
        if np.isfinite(loss):
            recent.append(loss)
            last = loss
    return _said(spike=spiked)


def kill_loss_spike(run: Run) -> frozenset[str]:
    """llm-foundry's KillLossSpike: five in a row at twice the mean of 100, or half of them above 10 after 200 steps."""
    window: deque[float] = deque(maxlen=100)
    outliers, said = 0, set()
    for number, loss in enumerate(_step(run, "train_loss")):
        if len(window) == window.maxlen:
            outliers = outliers + 1 if loss >= 2 * (sum(window) / len(window)) else 0
            if outliers > 4:
                said.add("spike")
            if number >= 200 and sum(value > 10 for value in window) >= 50:
                said.add("high_loss")
        window.append(loss)
    return frozenset(said)


def olmo(run: Run) -> frozenset[str]:
    """OLMo-core's StabilityMonitor: loss or gradient norm six standard deviations above the mean of the last 128."""
    return _said(
        loss_spike=_beyond(_step(run, "train_loss"), 128, 6), norm_spike=_beyond(_step(run, "grad_norm"), 128, 6)
    )


def megatron(run: Run) -> frozenset[str]:
    """Megatron-LM's result validation: NaN, infinity, or ten times the largest of the first 100."""
    series = [_step(run, "train_loss"), _step(run, "grad_norm")]
    return _said(
        not_finite=any(not np.isfinite(values).all() for values in series),
        spiky=any(len(v) > 100 and bool(np.any(np.abs(v[100:]) >= 10 * np.abs(v[:100]).max())) for v in series),
    )


def wandb(run: Run) -> frozenset[str]:
    """W&B's MCP tool diagnose_run on at most 500 rows: means of both halves, and the gap between the losses."""
    loss, val = _step(run, "train_loss"), _evaluation(run, "val_loss")
    bad = int((~np.isfinite(loss)).sum() + (~np.isfinite(val)).sum())
    sampled = loss[np.unique(np.linspace(0, len(loss) - 1, 500).astype(int))] if len(loss) else loss
    sampled, held_out = sampled[np.isfinite(sampled)], val[np.isfinite(val)]
    at = np.searchsorted(run.steps.step, run.evaluations.step, "right") - 1 if len(val) else np.empty(0, dtype=int)
    both = np.isfinite(loss[at]) & np.isfinite(val) if len(val) else np.empty(0, dtype=bool)
    gap = np.abs(val[both] - loss[at][both]) if len(val) else np.empty(0)
    half = len(gap) // 2
    growing = len(gap) >= 10 and gap[half:].mean() > 1.3 * gap[:half].mean()
    trends = len(sampled) >= 10 and len(held_out) >= 10
    overfit = trends and _trend(sampled) == "decreasing" and _trend(held_out) in {"increasing", "plateaued"}
    return _said(
        diverging=_trend(sampled) == "increasing",
        overfitting=trends and bool(overfit or growing),
        nan_values=bad > 0,
    )


# -------------------------------------------------------------------------------------------------- what they share


def _said(**rules: bool) -> frozenset[str]:
    return frozenset(name for name, fires in rules.items() if fires)


def _values(columns: Mapping[str, object], name: str) -> Floats:
    column = columns.get(name)
    if column is None:
        return np.empty(0)
    return np.asarray(column.values, dtype=np.float64)[column.mask()]  # type: ignore[attr-defined]


def _step(run: Run, name: str) -> Floats:
    return _values(run.steps.columns, name)


def _evaluation(run: Run, name: str) -> Floats:
    return _values(run.evaluations.columns, name)


def _layer(run: Run, name: str) -> Floats:
    """(ticks, layers); what was not observed is NaN."""
    column = run.layers.columns.get(name)
    return np.empty((0, 0)) if column is None else np.asarray(column.values, dtype=np.float64)


def _epochs(run: Run, name: str) -> Floats:
    """Means over the steps between evaluations; of an accuracy too."""
    column = run.steps.columns.get(name)
    if column is None or not len(run.evaluations):
        return np.empty(0)
    ends = np.searchsorted(run.steps.step, run.evaluations.step, "right")
    begins = np.concatenate(([0], ends[:-1]))
    return np.array([np.mean(column.values[b:e], dtype=np.float64) for b, e in zip(begins, ends, strict=True) if e > b])


def _neighbours(values: Floats) -> list[tuple[float, float, float]]:
    return [(float(values[i]), float(values[i - 1]), float(values[i + 1])) for i in range(1, len(values) - 1)]


def _no_better(values: Floats, patience: int) -> bool:
    """Whether the best of the last `patience` values is not better by 0.1 than the best before."""
    return len(values) > patience and bool(np.min(values[:-patience]) - np.min(values[-patience:]) < 0.1)


def _beyond(values: Floats, window: int, deviations: float) -> bool:
    if len(values) <= window:
        return False
    past = np.lib.stride_tricks.sliding_window_view(values[:-1], window)
    mean, spread = past.mean(-1), past.std(-1, ddof=1)
    return bool(np.any((values[window:] > mean + deviations * spread) & (spread > 1e-10)))


def _trend(values: Floats) -> str:
    """How the mean of the second half compares with that of the first, within 5 %."""
    if len(values) < 10:
        return "insufficient_data"
    half = len(values) // 2
    first, second, tail = values[:half].mean(), values[half:].mean(), values[-max(1, len(values) // 10) :].mean()
    if second < 0.95 * first:
        return "plateaued" if abs(tail - second) / max(abs(second), 1e-8) < 0.05 else "decreasing"
    return "increasing" if second > 1.05 * first else "plateaued"


_SAGEMAKER = MappingProxyType(
    {
        "LossNotDecreasing": f"{_STANDS} {_RISES}",
        "ExplodingTensor": f"{_NAN} exploding_gradient",
        "VanishingGradient": "vanishing_gradient dead_units saturated_units frozen_parameters",
        "WeightUpdateRatio": f"{_STANDS} update_too_large divergence low_precision_stall",
        "Overfit": _OVERFIT,
        "Overtraining": f"{_OVERFIT} plateau",
        "DeadRelu": "dead_units",
    }
)
_SAGEMAKER_SOURCE = "awsdocs/amazon-sagemaker-developer-guide, debugger-built-in-rules"

PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "SageMaker Debugger": Peer(sagemaker, _SAGEMAKER_SOURCE, _SAGEMAKER),
        "SageMaker Debugger, without LossNotDecreasing": Peer(
            sagemaker_without_loss_not_decreasing, _SAGEMAKER_SOURCE, _SAGEMAKER
        ),
        "AutoTrainer": Peer(
            autotrainer,
            "shiningrain/AUTOTRAINER, utils/monitor.py and reproduce.py (ICSE 2021)",
            {
                "exploding": f"{_NAN} exploding_gradient divergence",
                "vanishing": "vanishing_gradient saturated_units",
                "dying_relu": "dead_units vanishing_gradient",
                "oscillating": "oscillation divergence update_too_large",
                "slow_convergence": f"{_STANDS} {_RISES}",
            },
        ),
        "UMLAUT": Peer(
            umlaut,
            "BerkeleyHCI/umlaut, umlaut/heuristics.py (CHI 2021)",
            {
                "overfitting": _OVERFIT,
                "high_validation_accuracy": "suspicious_validation train_eval_mismatch",
                "learning_rate_high": _RISES,
                "learning_rate_low": "slow_learning not_learning update_too_small",
                "nan_in_input": "non_finite_loss non_finite_gradient",
            },
        ),
        "Lightning SpikeDetection": Peer(
            lightning, "Lightning-AI/pytorch-lightning, fabric/utilities/spike.py", {"spike": f"{_SPIKE} {_NAN}"}
        ),
        "KillLossSpike": Peer(
            kill_loss_spike,
            "mosaicml/llm-foundry, callbacks/kill_loss_spike_callback.py",
            {"spike": _SPIKE, "high_loss": f"{_RISES} {_STANDS}"},
        ),
        "OLMo-core StabilityMonitor": Peer(
            olmo,
            "allenai/OLMo-core, train/callbacks/stability_monitor.py",
            {"loss_spike": _SPIKE, "norm_spike": _SPIKE},
        ),
        "Megatron-LM rerun state machine": Peer(
            megatron, "NVIDIA/Megatron-LM, core/rerun_state_machine.py", {"not_finite": _NAN, "spiky": _SPIKE}
        ),
        "W&B MCP diagnose_run": Peer(
            wandb,
            "wandb/wandb-mcp-server, mcp_tools/diagnose_run.py",
            {"diverging": _RISES, "overfitting": _OVERFIT, "nan_values": _NAN},
        ),
    }
)
