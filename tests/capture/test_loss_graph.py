"""What the graph of a loss says of the loss, against losses made for the purpose."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lossdoctor.capture.loss_graph import is_broadcast, loss_measures, ran_eagerly

LABELS = torch.tensor([0, 2, 1, 1])
TARGETS = torch.tensor([0.0, 1.0, 1.0, 0.0])


def scores(*shape):
    return nn.Linear(3, shape[-1])(torch.randn(*shape[:-1], 3))


def measured(loss):
    """The same before and after backward, which frees what the graph saved."""
    before = loss_measures(loss)
    loss.backward()
    assert loss_measures(loss) == before
    return before


@pytest.mark.parametrize(
    "loss",
    [
        lambda: F.cross_entropy(scores(4, 3).softmax(-1), LABELS),
        lambda: F.cross_entropy(scores(4, 3).softmax(-1), LABELS, label_smoothing=0.1),
        lambda: F.cross_entropy(scores(4, 3).softmax(-1), F.one_hot(LABELS, 3).float()),
        lambda: F.cross_entropy(scores(4, 3).softmax(-1).double(), LABELS) / 4,
        lambda: F.cross_entropy(scores(2, 2, 3).softmax(-1).flatten(0, 1), LABELS),
        lambda: F.cross_entropy(scores(2, 2, 3).softmax(-1).transpose(1, 2), LABELS.view(2, 2)),
        lambda: F.binary_cross_entropy_with_logits(scores(4, 1).sigmoid()[:, 0], TARGETS),
        lambda: F.binary_cross_entropy_with_logits(scores(4, 1).sigmoid().squeeze(1), TARGETS),
        lambda: F.log_softmax(scores(4, 3).softmax(-1), -1)[:, 0].mean().neg(),
    ],
)
def test_a_softmax_of_probabilities_is_seen(loss):
    assert measured(loss())["softmax_twice"] == 1.0


@pytest.mark.parametrize(
    "loss",
    [
        lambda: F.cross_entropy(scores(4, 3), LABELS),
        lambda: F.nll_loss(scores(4, 3).softmax(-1).log(), LABELS),
        lambda: F.nll_loss((scores(4, 3).softmax(-1) + 1e-6).log(), LABELS),
        lambda: F.binary_cross_entropy(scores(4, 1).sigmoid()[:, 0], TARGETS),
        lambda: F.binary_cross_entropy_with_logits(scores(4, 1)[:, 0], TARGETS),
        lambda: F.kl_div(scores(4, 3).log_softmax(-1), scores(4, 3).softmax(-1), reduction="batchmean"),
        lambda: F.mse_loss(scores(4, 3).softmax(-1), F.one_hot(LABELS, 3).float()),
        # Attention: a softmax further down, behind a product.
        lambda: F.cross_entropy(scores(4, 4).softmax(-1) @ scores(4, 3), LABELS),
    ],
)
def test_probabilities_in_a_loss_that_is_made_for_them_are_none_of_its_business(loss):
    assert measured(loss())["softmax_twice"] == 0.0


def test_the_label_that_is_left_out_is_told_where_the_loss_is_over_class_ids():
    assert measured(F.cross_entropy(scores(4, 3), LABELS))["ignore_index"] == -100.0
    assert measured(F.cross_entropy(scores(4, 3), LABELS, ignore_index=0) * 3)["ignore_index"] == 0.0
    images = F.cross_entropy(nn.Conv2d(1, 3, 1)(torch.randn(2, 1, 4, 4)), torch.full((2, 4, 4), 255), ignore_index=255)
    assert measured(images)["ignore_index"] == 255.0
    # Losses that are weighed one by one may mask whatever they like.
    assert "ignore_index" not in measured(F.cross_entropy(scores(4, 3), LABELS, reduction="none").mean())
    assert "ignore_index" not in measured(F.mse_loss(scores(4, 1), torch.randn(4, 1)))


def test_a_binary_cross_entropy_is_known_for_one():
    assert measured(F.binary_cross_entropy_with_logits(scores(4, 1)[:, 0], TARGETS))["binary_targets"] == 1.0
    assert measured(F.binary_cross_entropy(scores(4, 1).sigmoid()[:, 0], TARGETS))["binary_targets"] == 1.0
    assert measured(F.soft_margin_loss(scores(4, 1)[:, 0], 2 * TARGETS - 1))["binary_targets"] == 0.0


@pytest.mark.parametrize(
    ("loss", "alone"),
    [
        (lambda: F.cross_entropy(scores(4, 3), LABELS), True),
        (lambda: F.cross_entropy(scores(4, 3), LABELS, label_smoothing=0.1) / 4, True),
        (lambda: F.cross_entropy(scores(4, 3), LABELS) + 0.5 * F.cross_entropy(scores(4, 3), LABELS), True),
        (lambda: torch.stack([F.cross_entropy(scores(4, 3), LABELS) for _ in range(2)]).mean(), True),
        (lambda: F.binary_cross_entropy_with_logits(scores(4, 1)[:, 0], TARGETS, reduction="none").mean(), True),
        (lambda: F.cross_entropy(scores(4, 3), LABELS) + F.mse_loss(scores(4, 1), torch.randn(4, 1)), False),
        (lambda: F.cross_entropy(scores(4, 3), LABELS) * scores(1, 1).exp().mean(), False),
        (lambda: F.cross_entropy(scores(4, 3), LABELS) + scores(1, 1).mean(), False),
    ],
)
def test_a_cross_entropy_that_other_terms_join_is_not_alone(loss, alone):
    assert measured(loss())["cross_entropy_alone"] == alone
    assert "cross_entropy_alone" not in measured(F.mse_loss(scores(4, 1), torch.randn(4, 1)))


def test_a_loss_without_a_graph_says_nothing():
    assert loss_measures(torch.tensor(1.0)) == {}


@pytest.mark.parametrize(
    "criterion", [F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, lambda a, b: ((a - b) ** 2).mean()]
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_the_graph_of_a_loss_tells_whether_it_was_broadcast(criterion):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))  # (5, 5) everywhere
    x, y, pairs = torch.randn(5, 3), torch.randn(5), torch.Size((5, 5))
    output, other = model(x), model(x)
    trapped = criterion(output * 2 + 1, y)
    penalty = sum(weight.square().sum() for weight in model.parameters())
    right = criterion(other.squeeze(1), y) + penalty
    for loss in (trapped, right):
        loss.backward(retain_graph=True)
    assert is_broadcast(trapped, output.grad_fn, pairs) is True
    assert is_broadcast(right, other.grad_fn, pairs) is False
    assert is_broadcast(right.detach(), other.grad_fn, pairs) is None
    assert ran_eagerly(right)
    assert not ran_eagerly(right.detach())


def test_outputs_that_are_set_off_against_each_other_are_not_broadcast():
    output = nn.Linear(3, 1)(torch.randn(5, 3))
    ranking = F.softplus(-(output - output.T)).mean()
    assert is_broadcast(ranking, output.grad_fn, torch.Size((5, 5))) is False
