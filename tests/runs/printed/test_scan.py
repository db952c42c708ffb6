"""The numbers of a line under the names they were printed with."""

import math

import pytest

from lossdoctor.runs.printed.scan import fields


def named(line):
    return {one.gap.name: one.value for one in fields(line) if one.gap.name}


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("loss=0.5 acc=0.9", {"loss": 0.5, "acc": 0.9}),
        ("loss: 0.5, lr: 1e-04", {"loss": 0.5, "lr": 1e-4}),
        ("Loss 6.9e+00 (7.0e+00)", {"loss": 6.9}),
        ("loss -0.5 | elbo -1.5e2", {"loss": -0.5, "elbo": -150}),
        ("tok/sec: 1,700,000 loss: 2", {"tok/sec": 1.7e6, "loss": 2}),
        ("Speed: 1899.5 samples/sec accuracy=0.88", {"speed": 1899.5, "accuracy": 0.88}),
        ("learning rate: 1e-3 | grad norm: 2.5", {"learning_rate": 1e-3, "grad_norm": 2.5}),
        ("loss: tensor(2.30, grad_fn=<X>)", {"loss": 2.3}),
        ("loss: [0.5]", {"loss": 0.5}),
        ("time: 3:03:21, loss: 0.5", {"loss": 0.5}),
        ("2021-08-12 19:07:24,634 - root - INFO - loss 0.5", {"loss": 0.5}),
        ("trainer.py:253 loss: 0.5", {"loss": 0.5}),
        ("10.0.0.1:29500 loss 0.5", {"loss": 0.5}),
        ("0x7ffe loss 0.5", {"loss": 0.5}),
        ("resnet50, v1.2.3, loss 0.5", {"loss": 0.5}),
        ("number of nan iterations: 0", {"number_nan_iterations": 0}),
        ("best loss 0.4, loss 0.5", {"loss": 0.5}),
        ("loss decreased (0.33 --> 0.31)", {}),
        ("Accuracy of the network on the 10000 test images", {}),
        ("Epoch 3, val loss is 0.25, val mse was 0.5.", {"epoch": 3, "loss": 0.25, "mse": 0.5}),
        ("avg loss so far is 0.5", {"avg_loss": 0.5}),
        ("the dataset is 100 MB, the weight is 7", {}),
    ],
)
def test_numbers_have_the_names_that_stand_before_them(line, values):
    assert named(line) == values


def test_a_fraction_and_a_mean_belong_to_the_number_before():
    (batch, loss) = fields("Batch [19/55] loss 6.9 (7.1)")
    assert (batch.value, batch.total) == (19, 55)
    assert (loss.value, loss.average) == (6.9, 7.1)


def test_a_number_that_is_nan_is_one():
    (loss,) = fields("loss: nan")
    assert math.isnan(loss.value)


@pytest.mark.parametrize(
    ("line", "splits"),
    [
        ("train loss 1 val loss 2", ["train", "val"]),
        ("[Epoch 3] validation: acc=1 loss=2", ["", "val", ""]),
        ("Test set: Average loss: 0.5", ["test"]),
        ("Val. Loss: 0.5", ["val"]),
        ("train.py loss: 0.5", [""]),
        ("/data/train/x loss: 0.5", [""]),
    ],
)
def test_a_split_is_known_by_a_word_of_its_own(line, splits):
    assert [one.gap.split for one in fields(line)] == splits
