"""Shares of norms are made whole while a run goes on, row by row, whoever is ahead."""

import numpy as np

from lossdoctor.capture.whole import WholeNorms
from lossdoctor.runs.ranks import without_shares
from lossdoctor.runs.tables import Block, Column, Table


def block(first, last, *, norm, loss=1.0):
    """Steps `first` to `last` of a rank whose share of every norm is `norm`; layers at even steps."""
    steps = np.arange(first, last + 1, dtype=np.float64)
    even = steps[steps % 2 == 0]
    rows = {"grad_norm": norm * steps, "param_norm": np.full(len(steps), 2 * norm), "train_loss": steps * 0 + loss}
    layer = np.stack([norm * even, 3 * norm * even], axis=1)
    return Block(
        Table({"step": Column(steps), **{name: Column(values.astype(np.float32)) for name, values in rows.items()}}),
        Table({"step": Column(steps[-1:]), "val_loss": Column(np.array([loss], dtype=np.float32))}),
        Table({"step": Column(even), "layer_grad_norm": Column(layer.astype(np.float32))}),
    )


class Pair:
    """Two ranks. `first` and `second` take in a block each."""

    def __init__(self):
        self.sent = b""
        self.second = WholeNorms(self._send)
        self.first = WholeNorms(lambda own: [own, self.sent])

    def _send(self, told):
        self.sent = told
        return []

    def take(self, first, second):
        assert self.second(second) is second
        return self.first(first)


def test_the_norms_of_both_ranks_are_added_up_and_all_else_is_the_first_ones():
    whole = Pair().take(block(1, 8, norm=3.0, loss=5.0), block(1, 8, norm=4.0, loss=6.0))
    np.testing.assert_allclose(whole.steps.columns["grad_norm"].values, 5 * np.arange(1, 9), rtol=1e-6)
    np.testing.assert_allclose(whole.steps.columns["param_norm"].values, 10, rtol=1e-6)
    np.testing.assert_allclose(whole.steps.columns["grad_to_param"].values, np.arange(1, 9) / 2, rtol=1e-6)
    assert set(whole.steps.columns["train_loss"].values) == {5.0}
    assert whole.evaluations.columns["val_loss"].values.tolist() == [5.0]
    assert whole.layers.columns["layer_grad_norm"].values[0].tolist() == [10.0, 30.0]


def test_rows_wait_until_every_rank_has_recorded_them():
    pair = Pair()
    now = pair.take(block(1, 8, norm=3.0), block(1, 6, norm=4.0))
    assert now.steps.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert now.layers.step.tolist() == [2, 4, 6]
    assert len(now.evaluations) == 0
    following = pair.take(block(9, 10, norm=3.0), block(7, 12, norm=4.0))
    assert following.steps.step.tolist() == [7, 8, 9, 10]
    assert following.evaluations.step.tolist() == [8, 10]
    np.testing.assert_allclose(following.steps.columns["grad_norm"].values, 5 * np.arange(7, 11), rtol=1e-6)


def test_nothing_is_said_where_a_rank_has_recorded_nothing_yet():
    pair = Pair()
    assert len(pair.take(block(1, 4, norm=3.0), Block()).steps) == 0
    assert pair.take(Block(), block(1, 4, norm=4.0)).steps.step.tolist() == [1, 2, 3, 4]


def test_what_is_not_finite_on_one_rank_is_not_finite_in_all():
    bad = block(1, 2, norm=float("nan"))
    whole = Pair().take(block(1, 2, norm=3.0), bad).steps.columns["grad_norm"]
    assert whole.mask().all()
    assert np.isnan(whole.values).all()


def test_what_was_held_back_is_given_without_the_shares():
    pair = Pair()
    pair.take(block(1, 8, norm=3.0), block(1, 6, norm=4.0))
    (rest,) = pair.first.rest()
    assert rest.steps.step.tolist() == [7, 8]
    stripped = without_shares(rest)
    assert set(stripped.steps.columns) == {"step", "train_loss"}
    assert set(stripped.layers.columns) == {"step"}
    assert pair.first.rest() == []
