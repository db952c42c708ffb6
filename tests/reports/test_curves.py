"""Which recorded curve stands for a finding."""

import numpy as np
import pytest

from lossdoctor.findings import Finding
from lossdoctor.reports.curves import evidence_curve


def _curve(run, signal, *layers):
    finding = Finding(
        rule="x",
        title="",
        family="",
        category="unstable",
        severity="error",
        clock="step",
        since=1,
        detected=1,
        message="",
        evidence_signal=signal,
        layers=list(layers),
    )
    return evidence_curve(run, finding)


def test_a_companion_is_drawn_as_the_signal_it_is_made_of(examples):
    run = examples["divergence"][1]
    assert _curve(run, "mean_train_loss").label == "train_loss"
    assert _curve(run, "train_loss_non_finite").label == "train_loss"


def test_a_layer_signal_is_drawn_for_the_worst_layer(examples):
    run = examples["vanishing_gradient"][1]
    curve = _curve(run, "layer_grad_to_param", "blocks.3.linear", "blocks.0.linear")
    assert curve.label == "layer_grad_to_param of blocks.3.linear"
    np.testing.assert_array_equal(curve.values, run.layers.columns["layer_grad_to_param"].values[:, 3])


@pytest.mark.parametrize("signal", [None, "", "step", "no_such_signal", "val_loss"])
def test_what_was_not_recorded_is_not_drawn(examples, signal):
    assert _curve(examples["divergence"][1], signal) is None


def test_a_layer_nobody_knows_is_not_drawn(examples):
    assert _curve(examples["vanishing_gradient"][1], "layer_grad_to_param", "unknown") is None


def test_only_observed_values_are_drawn(examples, sparse_run):
    curve = _curve(sparse_run, "grad_norm")
    np.testing.assert_array_equal(curve.steps, [1, 3])
    np.testing.assert_array_equal(curve.values, [7, np.nan])
