"""Benign patterns: named where they are, and nowhere else."""

import numpy as np
import pytest

from lossdoctor.benign import INTERVAL_NAMES, patterns


def said(facts=None, **columns):
    rows = max((len(values) for values in columns.values()), default=0)
    missing = np.full(rows, np.nan)
    given = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    intervals = {name: given.get(name, missing) for name in INTERVAL_NAMES} | {"step": np.arange(1.0, rows + 1)}
    evaluations = {name: given.get(name, missing) for name in ("val_loss", "mean_train_loss")}
    return patterns(intervals, evaluations, facts or {})


@pytest.mark.parametrize(
    ("columns", "facts", "words"),
    [
        ({"first_learning_rate": [0, 1, 2, 3]}, {}, "0 at the first update"),
        ({"max_skipped": [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]}, {}, "up to step 2"),
        (
            {
                "median_grad_norm": np.ones(20),
                "max_grad_norm": np.where(np.arange(20) == 9, 50.0, 1.5),
                "max_train_loss": 2 - np.arange(20) / 20,
            },
            {},
            "gradient norm of 50 by step 10, 50 x the usual",
        ),
        ({"val_loss": [1, 1, 1, 1], "mean_train_loss": [2, 2, 2, 2]}, {"dropout": 0.3}, "dropout (0.3)"),
        ({"val_loss": [1, 1, 1, 1], "mean_train_loss": [2, 2, 2, 2]}, {}, "augmentation"),
        ({"max_frozen_parameters": [4, 4, 4]}, {}, "4 parameter tensors are frozen"),
        ({"max_frozen_parameters": [8, 4, 0]}, {}, "8 parameter tensors were frozen at first and 0 at the end"),
        ({"first_train_loss": [0.5] * 4, "min_train_loss": [0.4] * 4}, {"classes": 10.0}, "trained before"),
    ],
)
def test_a_benign_pattern_is_named(columns, facts, words):
    (sentence,) = said(facts, **columns)
    assert words in sentence


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"first_learning_rate": [0.1, 1, 2, 3]},
        {"first_learning_rate": [0, 0, 0, 0]},
        {"max_skipped": [0] * 10},
        {"max_skipped": [1, 0, 0, 0, 0, 0, 1, 1, 1, 1]},
        {
            "median_grad_norm": np.ones(20),
            "max_grad_norm": np.where(np.arange(20) == 9, 50.0, 1.5),
            "max_train_loss": np.where(np.arange(20) == 9, 9.0, 1.0),
        },
        {"val_loss": [2, 2, 2, 2], "mean_train_loss": [1, 1, 1, 1]},
        {"max_frozen_parameters": [0, 0, 0]},
        {"first_train_loss": [2.3] * 4, "min_train_loss": [0.4] * 4},
    ],
)
def test_what_is_not_there_is_not_named(columns):
    assert said({"classes": 10.0}, **columns) == []
