"""The rule language: what it says, what it refuses, and that a stranger's expression can neither run code nor hang."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.errors import RuleError
from lossdoctor.expressions import MAX_LENGTH, Graph, Scope, nearest
from lossdoctor.statistics import MAX_WINDOW, VOCABULARY

NAN = float("nan")
SIGNALS = frozenset({"step", "x", "y", "z", "layer_a", "val_loss"})


def scope(measures=None, constants=None):
    return Scope(
        where="rules/test.toml",
        signals=SIGNALS,
        facts=frozenset({"classes", "total_steps"}),
        constants=constants or {},
        measures=measures or {},
    )


def evaluated(text, ticks=1, facts=None, *, measures=None, constants=None, **signals):
    graph = Graph(facts)
    node = graph.add(text, scope(measures, constants), "when")
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in signals.items()}
    ticks = len(next(iter(arrays.values()))) if arrays else ticks
    result = graph.evaluate(arrays, ticks)[node]
    return result.tolist()


def refusal(text, **names):
    with pytest.raises(RuleError) as caught:
        Graph().add(text, scope(**names), "when")
    message = str(caught.value)
    assert message.startswith("rules/test.toml: when")
    assert "\n" not in message
    return message


def answer(text):
    """The refusal of an expression, empty where it is none."""
    try:
        Graph().add(text, scope(), "when")
    except RuleError as error:
        return str(error)
    return ""


# -- what it refuses --------------------------------------------------------------------------------------------------

ATTACKS = {
    "attribute": "x.__class__",
    "attribute of a number": "(1).__class__",
    "import": "__import__('os')",
    "builtin": "open(x)",
    "call of a call": "abs(x)(y)",
    "call of an attribute": "x.sum()",
    "subscript": "x[0]",
    "slice": "x[1:2]",
    "string": "'a'",
    "bytes": "b'a'",
    "f-string": "f'{x}'",
    "complex number": "1j",
    "ellipsis": "...",
    "none": "None",
    "truth": "True",
    "lambda": "lambda: 1",
    "list": "[x, y]",
    "tuple": "(x, y)",
    "set": "{x}",
    "dictionary": "{x: y}",
    "list comprehension": "[y for y in x]",
    "generator": "max(y for y in x)",
    "power": "9**9**9",
    "remainder": "x % 2",
    "whole division": "x // 2",
    "shift": "1 << 99",
    "bits": "x & y",
    "inversion": "~x",
    "matrix product": "x @ y",
    "walrus": "(a := x)",
    "conditional": "x if y else z",
    "starred argument": "max(*x)",
    "keyword": "median(x, window=3)",
    "dictionary argument": "median(**x)",
    "await": "await x",
    "yield": "(yield x)",
    "identity": "x is y",
    "membership": "x in y",
    "two statements": "x; y",
    "assignment": "x = y",
    "newline": "x\nimport os",
    "empty": "",
    "blank": "  ",
    "null byte": "x\0",
    "comment only": "# x",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_what_is_not_on_the_whitelist_is_refused(text):
    refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("val_los > 1", "unknown name 'val_los'; did you mean 'val_loss'?"),
        ("medain(x, 3) > 1", "unknown function 'medain'; did you mean 'median'?"),
        ("qqqqqq > 1", "unknown name 'qqqqqq'"),
        ("median > 1", "'median' is a function; write median(...)"),
        ("not x", "'x' is a number, not a condition"),
        ("x and y > 1", "'x' is a number, not a condition"),
        ("median(x)", "median() is used as median(x, w)"),
        ("median(x, 3, 4)", "median() is used as"),
        ("at_lowest(x)", "at_lowest() is used as at_lowest(y, x)"),
        ("lowest(x, 3)", "lowest() is used as"),
        ("lowest()", "lowest() is used as"),
        ("abs(x, y)", "abs() takes one number"),
        ("max(x)", "max() takes two numbers or more"),
        ("otherwise(x)", "otherwise(x, y)"),
        ("True", "write 1 or 0"),
        ("x <", "not an expression"),
        ("1e999", "not allowed in a rule"),
    ],
)
def test_an_error_says_what_and_the_likely_meaning(text, said):
    assert said in refusal(text)


@pytest.mark.parametrize(
    "window", ["0", "-1", "1.5", str(MAX_WINDOW + 1), "y", "1 / 0", "1e308 * 10", "classes", "n", "m"]
)
def test_a_window_is_a_known_whole_number_within_bounds(window):
    said = refusal(f"median(x, {window})", constants={"n": NAN, "m": math.inf})
    assert "whole number from 1 to" in said


def test_a_window_may_be_a_threshold_or_computed_from_one():
    assert evaluated("before(x, 2 * n)", constants={"n": 1.0}, x=[1, 2, 3])[-1] == 1


def test_five_hundred_characters_are_enough():
    assert MAX_LENGTH == 500
    Graph().add("x" + " " * 495 + ">1", scope(), "when")
    assert "501 characters" not in refusal("x" + " " * 499 + ">1")
    assert "at most 500" in refusal("x >" + " " * 500 + "1")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 240 + "x" + ")" * 240,
        "-" * 490 + "x",
        "abs(" * 99 + "x" + ")" * 99,
        "x" + "+x" * 249,
        "not " * 120 + "(x > 1)",
        "x > " + "9" * 490,
        "x > 0." + "9" * 490,
        "x > 1e" + "9" * 490,
        "x > 0x" + "f" * 490,
        "[" * 250 + "]" * 250,
    ],
)
def test_nested_or_huge_expressions_are_settled_at_once(text):
    begun = time.perf_counter()
    assert "\n" not in answer(text)
    assert time.perf_counter() - begun < 1


def test_a_long_chain_of_measures_is_refused_in_one_line():
    chain = {f"m{number}": f"m{number + 1}" for number in range(5000)} | {"m5000": "x"}
    assert "nested too deeply" in refusal("m0 > 1", measures=chain)


def test_doubling_measures_take_no_exponential_time():
    doubling = {"m0": "x"} | {f"m{number}": f"m{number - 1} + m{number - 1}" for number in range(1, 60)}
    begun = time.perf_counter()
    assert evaluated("m59", measures=doubling, x=[1.0]) == [2.0**59]
    assert time.perf_counter() - begun < 1


def test_a_scope_compiles_each_measure_once_however_many_expressions_use_it():
    wide = {f"leaf{number}": f"x + {number}" for number in range(400)}
    hubs = {f"hub{hub}": " + ".join(f"leaf{hub * 40 + leaf}" for leaf in range(40)) for hub in range(10)}
    names = scope(wide | hubs | {"all": " + ".join(hubs)})
    graph = Graph()
    begun = time.perf_counter()
    assert len({graph.add("all > 1", names, "when") for _ in range(2000)}) == 1
    assert time.perf_counter() - begun < 2


def test_a_measure_cannot_be_defined_by_itself():
    assert "measure 'a' is defined by itself" in refusal("a > 1", measures={"a": "b", "b": "a + 1"})


def test_an_error_inside_a_measure_names_it_and_the_next_one_does_not():
    graph, names = Graph(), scope({"a": "val_los"})
    with pytest.raises(RuleError, match=r"when \(in measure 'a'\): unknown name 'val_los'"):
        graph.add("a > 1", names, "when")
    with pytest.raises(RuleError, match="when: unknown name 'yy'"):
        graph.add("yy > 1", names, "when")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="xyz()+-*/<>=!. ,0123456789\"'[]{}:_abs\n", max_size=60) | st.text(max_size=40))
def test_any_text_is_an_expression_or_one_line_of_refusal(text):
    assert "\n" not in answer(text)


def test_nearest_says_nothing_where_nothing_is_near():
    assert nearest("val_los", ["val_loss", "x"]) == "; did you mean 'val_loss'?"
    assert nearest("qqq", ["val_loss", "x"]) == ""


# -- what it says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 - 3 - 4", -5),
        ("16 / 4 / 2", 2),
        ("-2 * 3 + 1", -5),
        ("- - 2", 2),
        ("+2 - -2", 4),
        ("1 - (2 - 3)", 2),
        ("min(3, 1, 2) + max(1, 5)", 6),
        ("abs(-2) * 3", 6),
        ("round(2.6)", 3),
        ("1e-3 * 1_000", 1),
    ],
)
def test_arithmetic_reads_as_in_python(text, value):
    assert evaluated(text) == [pytest.approx(value)]
    # The same of a signal, where nothing is folded when the rule is loaded.
    assert evaluated(f"({text}) * x", x=[1]) == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("1 < 2 < 3", 1),
        ("1 < 3 < 2", 0),
        ("not 1 > 2 and 2 > 1", 1),
        ("1 > 2 or 2 > 1 and 1 > 2", 0),
        ("(1 > 2 or 2 > 1) and 2 > 1", 1),
        ("not (1 > 2 or 2 > 1)", 0),
        ("1 + 1 >= 2", 1),
        ("1 <= 0", 0),
        ("2 == 2", 1),
        ("2 != 2", 0),
    ],
)
def test_conditions_bind_as_in_python(text, truth):
    assert evaluated(text) == [truth]


def kleene_and(one, other):
    return 0 if 0 in (one, other) else NAN if any(map(math.isnan, (one, other))) else 1


def kleene_or(one, other):
    return 1 if 1 in (one, other) else NAN if any(map(math.isnan, (one, other))) else 0


@pytest.mark.parametrize(("one", "other"), list(itertools.product([0, 1, NAN], repeat=2)))
def test_logic_is_three_valued(one, other):
    given_both = {"x": [one], "y": [other]}
    np.testing.assert_equal(evaluated("x == 1 and y == 1", **given_both), [kleene_and(one, other)])
    np.testing.assert_equal(evaluated("x == 1 or y == 1", **given_both), [kleene_or(one, other)])
    np.testing.assert_equal(evaluated("not x == 1", x=[one]), [1 - one])


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "==", "!="])
def test_a_comparison_with_something_unknown_is_undecided(comparison):
    np.testing.assert_equal(evaluated(f"x {comparison} y", x=[NAN, 1, NAN], y=[1, NAN, NAN]), [NAN] * 3)


def test_a_division_by_zero_is_undecided():
    np.testing.assert_equal(evaluated("x / y", x=[1, 0, 4], y=[0, 0, 2]), [NAN, NAN, 2])


def test_otherwise_stands_in_where_nothing_was_observed():
    assert evaluated("otherwise(x, 7)", x=[1, NAN]) == [1, 7]
    np.testing.assert_equal(evaluated("otherwise(x, y)", x=[NAN, NAN], y=[2, NAN]), [2, NAN])


def test_otherwise_takes_the_need_of_a_signal_away():
    graph = Graph()
    node = graph.add("otherwise(x, y) > z", scope(), "when")
    assert graph.signals(node) == {"y", "z"}
    assert graph.uses(node) == {"x", "y", "z"}


def test_otherwise_of_conditions_is_a_condition():
    graph = Graph()
    assert graph.is_condition(graph.add("otherwise(x > 1, y > 1)", scope(), "when"))
    assert not graph.is_condition(graph.add("otherwise(x > 1, 0)", scope(), "when"))


def test_facts_are_constants_and_unknown_ones_are_undecided():
    graph = Graph({"classes": 10.0})
    known, unknown = graph.add("x > classes", scope(), "when"), graph.add("x > total_steps", scope(), "when")
    found = graph.evaluate({"x": np.array([11.0, 9.0])}, 2)
    assert found[known].tolist() == [1, 0]
    assert np.isnan(found[unknown]).all()
    assert graph.facts(known) == {"classes"}


def test_a_fact_that_becomes_known_later_holds_from_the_next_block_on():
    facts = {}
    graph = Graph(facts)
    node = graph.add("x > classes", scope(), "when")
    assert np.isnan(graph.evaluate({"x": np.array([11.0])}, 1)[node]).all()
    facts["classes"] = 10.0
    assert graph.evaluate({"x": np.array([11.0])}, 1)[node].tolist() == [1]


def test_a_fact_behind_otherwise_is_not_needed():
    graph = Graph()
    assert graph.facts(graph.add("x > otherwise(total_steps, classes)", scope(), "when")) == {"classes"}


@pytest.mark.parametrize("word", VOCABULARY)
def test_every_word_can_be_said(word):
    entry = VOCABULARY[word]
    text = f"{word}({', '.join(['x', 'y'][: entry.series])}{', 3' if entry.window else ''})"
    assert len(evaluated(text, x=[1, 2, 3], y=[0, 1, 0])) == 3


# -- sharing and state ------------------------------------------------------------------------------------------------


def test_equal_sub_expressions_are_one_node():
    graph, names = Graph(), scope({"m": "median(x, 3)"})
    first = graph.add("median(x, 3) > 1", names, "when")
    assert graph.add("m > 1", names, "when") == first
    assert graph.add("median( x,3 )>1.0", scope(), "when") == first
    assert graph.add("median(x, 4) > 1", names, "when") != first


def test_numbers_are_folded_when_a_rule_is_loaded():
    graph = Graph()
    assert graph.add("2 * 3 - 1", scope(), "when") == graph.add("5", scope(), "when")
    assert graph.constant(graph.add("-(4 / 2)", scope(), "when")) == -2
    assert graph.constant(graph.add("x", scope(), "when")) is None


def test_a_fact_is_not_known_when_a_rule_is_loaded():
    graph = Graph({"classes": 3.0})
    assert graph.constant(graph.add("classes", scope(), "when")) is None


def test_a_graph_carries_its_state_from_block_to_block():
    graph = Graph()
    node = graph.add("streak(x > 1)", scope(), "when")
    found = [graph.evaluate({"x": np.array([value])}, 1)[node].item() for value in (2.0, 2.0, NAN, 2.0, 0.0)]
    assert found == [1, 2, 2, 3, 0]


def test_the_cost_of_a_graph_grows_with_its_windows():
    graph = Graph()
    graph.add("x > 1", scope(), "when")
    cheap = graph.cost
    graph.add("median(x, 500) > 1", scope(), "when")
    assert graph.cost >= cheap + 500


def test_layers_meet_values_for_all_layers():
    layered = np.array([[1.0, 2.0], [3.0, 4.0]])
    graph = Graph()
    ratio = graph.add("layer_a / across_max(layer_a) * x", scope(), "when")
    everywhere = graph.add("across_max(layer_a) > x", scope(), "when")
    found = graph.evaluate({"layer_a": layered, "x": np.array([2.0, 4.0])}, 2)
    assert found[ratio].tolist() == [[1, 2], [3, 4]]
    assert found[everywhere].tolist() == [[0], [0]]
    assert graph.is_layered(ratio)
    assert not graph.is_layered(everywhere)


EXPRESSIONS = [
    "median(x, 5) > typical(y, 4) and not x < y",
    "otherwise(setback(x), 0) > 0.1 or streak(y > 0) >= 3",
    "at_lowest(step, x) - before(step, 2)",
    "share(x > y, 4) * noise(x) + change(y, 3)",
    "max(lowest(x), highest(y), count(x > 0))",
    "log(abs(x)) + sqrt(abs(y)) + round(x)",
]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.lists(st.integers(1, 29), max_size=8))
def test_any_cut_gives_the_same_values(seed, ticks, cuts):
    rng = np.random.default_rng(seed)
    signals = {name: np.where(rng.random(ticks) < 0.2, NAN, rng.standard_normal(ticks)) for name in ("x", "y")}
    signals["step"] = np.arange(1.0, ticks + 1)
    whole, cut = Graph(), Graph()
    nodes = [whole.add(text, scope(), "when") for text in EXPRESSIONS]
    assert nodes == [cut.add(text, scope(), "when") for text in EXPRESSIONS]
    expected = whole.evaluate(signals, ticks)
    bounds = sorted({0, ticks, *(at for at in cuts if at < ticks)})
    pieces = [
        cut.evaluate({name: array[begin:end] for name, array in signals.items()}, end - begin)
        for begin, end in itertools.pairwise(bounds)
    ]
    for node in nodes:
        np.testing.assert_array_equal(np.concatenate([piece[node] for piece in pieces]), expected[node])
