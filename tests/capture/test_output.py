"""The model's output: measures against slow references, the tap, the broadcast trap."""

import copy
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lossdoctor.capture import output as module
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.loss_graph import ran_eagerly
from lossdoctor.capture.output import (
    OutputTap,
    broadcast_trap,
    by_class,
    output_measures,
    output_of,
)


def reference(rows):
    """output_std, output_non_finite, top_prediction_share, rows_sum_to_one of lists of numbers."""
    spreads = []
    for column in zip(*rows, strict=True):
        mean = math.fsum(column) / len(column)
        spreads.append(math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column)))
    top = Counter(row.index(max(row)) for row in rows).most_common(1)[0][1]
    shares = [min(row) >= 0 and abs(math.fsum(row) - 1) <= 1e-3 for row in rows]
    return [math.fsum(spreads) / len(spreads), 0.0, top / len(rows), sum(shares) / len(rows)]


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    """Measures on a device take another way: it is gone with tensors that say they are not in host memory."""
    if request.param == "device":
        monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False), raising=False)
    return request.param


@pytest.mark.parametrize("classes", [2, 3, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_are_measured_as_a_slow_reference_does(classes, dtype, place):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(33, classes, generator=generator, dtype=dtype)
    logits[:9] = logits[:9].softmax(1)
    assert output_measures(logits).tolist() == pytest.approx(reference(logits.tolist()), rel=1e-5)


def test_one_output_predicts_by_its_threshold():
    assert output_measures(torch.tensor([[-1.0], [2.0], [0.3], [4.0]])).tolist()[2] == 0.75
    assert output_measures(torch.tensor([[0.1], [0.2], [0.3], [0.9]])).tolist()[2] == 0.75


def test_outputs_that_are_not_finite_are_counted(place):
    assert output_measures(torch.tensor([[math.nan, 1.0], [math.inf, 1.0]])).tolist()[1] == 0.5


def test_a_wide_output_is_read_in_part():
    found = output_measures(torch.eye(50_000)[:200].softmax(1))
    assert found[3] == 1.0


def test_predictions_are_found_in_what_models_return():
    logits = torch.randn(2, 3)
    for output in (
        logits,
        (logits, None),
        [torch.tensor(1.0), logits],
        {"loss": torch.tensor(1.0), "logits": logits},
        {"out": logits},
        SimpleNamespace(loss=torch.tensor(1.0), logits=logits),
    ):
        assert torch.equal(output_of(output), logits)
    for output in (None, "text", torch.tensor(1.0), torch.ones(3, dtype=torch.long), {}, torch.empty(0, 3)):
        assert output_of(output) is None


@pytest.mark.parametrize(
    ("shape", "labels", "rows", "is_classes"),
    [
        ((4, 3), ((4,), True), (4, 3), True),
        ((4, 7, 3), ((4, 7), True), (28, 3), True),
        ((4, 3, 5, 6), ((4, 5, 6), True), (120, 3), True),
        ((4, 3), ((4, 3), False), (4, 3), False),
        ((4, 3), None, (4, 3), None),
        ((4,), ((4,), False), (4, 1), None),
        ((4, 3, 5, 6), None, None, None),
    ],
)
def test_classes_are_found_by_the_shape_of_the_labels(shape, labels, rows, is_classes):
    target = None if labels is None else (torch.Size(labels[0]), labels[1])
    found, classes = by_class(torch.zeros(shape), target)
    assert (None if found is None else tuple(found.shape)) == rows
    assert classes is is_classes


def test_segmentation_logits_keep_their_classes_together():
    logits = torch.randn(2, 3, 4, 5)
    rows, _ = by_class(logits, (torch.Size((2, 4, 5)), True))
    assert torch.equal(rows[7], logits[0, :, 1, 2])


@pytest.mark.parametrize(
    ("output", "target", "trap"),
    [
        ((8, 1), (8,), (8, 8)),
        ((8,), (8, 1), (8, 8)),
        ((8, 1), (8, 1), None),
        ((8, 3), (8,), None),
        ((8, 8), (8,), None),
        ((1, 1), (1,), None),
    ],
)
def test_the_broadcast_trap_is_where_both_shapes_grow(output, target, trap):
    assert broadcast_trap(torch.Size(output), torch.Size(target)) == trap


class Calls:
    def __init__(self) -> None:
        self.outputs = []

    def __call__(self, output, is_training) -> None:
        self.outputs.append((output.detach().clone(), is_training))


@pytest.fixture
def never_compiled(monkeypatch):
    monkeypatch.setattr(module, "_compile_was_called", lambda: False)


def test_a_tap_sees_only_while_it_is_attached_and_with_a_graph(never_compiled):
    model, calls = nn.Linear(3, 2), Calls()
    tap = OutputTap(model, Faults(), calls)
    x = torch.randn(4, 3)
    model(x)
    tap.attach()
    tap.attach()
    output = model(x)
    with torch.no_grad():
        model(x)
    model.eval()(x)
    tap.detach()
    model(x)
    assert [is_training for _, is_training in calls.outputs] == [True, False]
    assert torch.equal(calls.outputs[0][0], output)
    assert not model._forward_hooks


def test_an_instrument_that_fails_leaves_the_forward_alone(never_compiled, caplog):
    model = nn.Linear(3, 2)

    def fail(output, is_training) -> None:
        raise RuntimeError("odd output")

    tap = OutputTap(model, Faults(), fail)
    tap.attach()
    assert model(torch.randn(4, 3)).shape == (4, 2)
    assert "model outputs failed" in caplog.text


def test_a_copied_or_saved_model_has_a_hook_that_does_nothing(never_compiled, tmp_path):
    model, calls = nn.Linear(3, 2), Calls()
    OutputTap(model, Faults(), calls).attach()
    x = torch.randn(4, 3)
    torch.save(model, tmp_path / "model.pt")
    for other in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        assert torch.equal(other(x), model(x))
    assert len(calls.outputs) == 2


def test_what_torch_compile_made_gets_no_hook():
    model = nn.Sequential(nn.Linear(3, 2))
    compiled = torch.compile(model, backend="eager")
    for watched in (compiled, model):  # the raw one may be called inside of the compiled one
        tap = OutputTap(watched, Faults(), Calls())
        tap.attach()
        assert not watched._forward_hooks
        assert not model._forward_hooks


def test_a_hook_inside_a_compiled_function_breaks_no_graph():
    model, graphs = nn.Linear(3, 2), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    calls = Calls()
    tap = OutputTap(model, Faults(), calls)
    tap.is_proven = True  # as if it had run eagerly before
    step = torch.compile(lambda x: model(x).sum(), backend=backend, fullgraph=True)
    tap.attach()
    step(torch.randn(4, 3))
    assert len(graphs) == 1
    assert calls.outputs == []
    torch._dynamo.reset()


def test_a_model_proven_to_run_eagerly_is_watched_though_something_was_compiled(monkeypatch):
    monkeypatch.setattr(module, "_compile_was_called", lambda: True)
    model, calls = nn.Linear(3, 2), Calls()
    tap = OutputTap(model, Faults(), calls)
    tap.attach()
    model(torch.randn(4, 3))
    assert not calls.outputs
    tap.is_proven = ran_eagerly(model(torch.randn(4, 3)).sum())
    tap.attach()
    model(torch.randn(4, 3))
    assert len(calls.outputs) == 1
