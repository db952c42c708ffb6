"""Values of a graph over a block: computed when asked for, once, and only where that is needed."""

import numpy as np
import pytest

from lossdoctor.expressions import Graph
from lossdoctor.scope import Scope

NAN = float("nan")
SCOPE = Scope(
    where="rules/test.toml",
    signals=frozenset({"x", "y", "layer_a"}),
    facts=frozenset({"classes"}),
    constants={},
    measures={},
)


def evaluated(text, **signals):
    graph = Graph({"classes": 3.0})
    node = graph.add(text, SCOPE, "when")
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in signals.items()}
    return graph.evaluate(arrays, len(next(iter(arrays.values())))), node


class Untouchable(dict):
    """Signals of which one must not be looked at."""

    def __getitem__(self, name):
        assert name != "y", "y was asked for"
        return super().__getitem__(name)


@pytest.mark.parametrize("text", ["x > 9 and y > 0", "x > 9 and (y > 0 or not y < 3)", "(x > 9 and y > 0) and y < 7"])
def test_what_a_false_condition_is_joined_to_is_not_computed(text):
    graph = Graph()
    node = graph.add(text, SCOPE, "when")
    signals = Untouchable(x=np.arange(5.0), y=np.arange(5.0))
    values = graph.evaluate(signals, 5, wide=False)
    assert values[node].tolist() == [0, 0, 0, 0, 0]


def test_a_condition_that_is_undecided_somewhere_decides_nothing():
    values, node = evaluated("x > 9 and y > 0", x=[0, NAN, 0, NAN], y=[1, 1, 0, 0])
    np.testing.assert_array_equal(values[node], [0, NAN, 0, 0])


def test_what_remembers_sees_every_tick_behind_a_false_condition_too():
    graph = Graph()
    node = graph.add("x > 9 and streak(y > 0) > 3", SCOPE, "when")
    false, true = np.zeros(3), np.full(3, 10.0)
    assert graph.evaluate({"x": false, "y": true}, 3)[node].tolist() == [0, 0, 0]
    assert graph.evaluate({"x": true, "y": true}, 3)[node].tolist() == [1, 1, 1]


def test_what_is_the_same_at_all_ticks_is_computed_once():
    values, node = evaluated("x * classes + before(x)", x=[2.0] * 6)
    assert values.short(node).tolist() != values[node].tolist()  # before(x) is not yet known at the first tick
    values, node = evaluated("x * classes", x=[2.0] * 6)
    assert values.short(node).tolist() == [6]
    assert values[node].tolist() == [6] * 6


@pytest.mark.parametrize("tick", [0, 3, 4, -1])
@pytest.mark.parametrize("known", [False, True])
def test_a_value_at_one_tick_is_the_one_of_the_block(tick, known):
    x = [1.0, 4.0, NAN, 2.0, 8.0]
    values, node = evaluated("otherwise(x / before(x), y) + median(x, 3)", x=x, y=[7.0] * 5)
    expected = evaluated("otherwise(x / before(x), y) + median(x, 3)", x=x, y=[7.0] * 5)[0][node][tick]
    if known:
        assert len(values[node]) == 5
    np.testing.assert_array_equal(values.at(node, tick), [expected])


def test_a_condition_on_the_run_meets_layers():
    layered = np.array([[1.0, 2.0], [3.0, 4.0]])
    values, node = evaluated("x > 5 and layer_a > 1", x=[0.0, 0.0], layer_a=layered)
    assert values[node].tolist() == [[0, 0], [0, 0]]
    values, node = evaluated("otherwise(x, layer_a)", x=[7.0, NAN], layer_a=layered)
    assert values[node].tolist() == [[7, 7], [3, 4]]


def test_expressions_may_nest_more_deeply_than_python_recurses():
    graph = Graph()
    node = graph.name("x")
    for _ in range(5000):
        node = graph.intern(("+",), (node, graph.number(1.0)), lambda: np.add)
    assert graph.evaluate({"x": np.array([1.0, 2.0])}, 2)[node].tolist() == [5001, 5002]


def test_a_forked_graph_has_seen_the_same_and_goes_on_alone():
    graph = Graph()
    node = graph.add("count(x > 0) + spread(y, 2)", SCOPE, "when")
    first = {"x": np.array([1.0, 1.0]), "y": np.array([1.0, 5.0])}
    graph.evaluate(first, 2)
    other = graph.fork(graph.remembering(node))
    more = {"x": np.array([1.0]), "y": np.array([9.0])}
    expected = graph.evaluate(more, 1)[node].tolist()
    graph.evaluate(more, 1)
    assert other.evaluate(more, 1)[node].tolist() == expected
