"""Rule files: whatever is wrong with one is said in one line that names file, place and remedy."""

import math
import time

import pytest

from lossdoctor.errors import ConfigurationError, RuleError
from lossdoctor.rulebook import ACTIONS, Rulebook, fill, load_rule, names_in, rules_directory

HEAD = """
id = "{id}"
title = "A test"
family = "stability"
category = "unstable"
severity = "warning"
kind = "state"
clock = "step"
explain = "..."
sources = []
when = "train_loss > high"
message = "The loss is {{loss:.3g}}, above {{high}}."
"""
TABLES = """
[thresholds]
high = 2

[measures]
loss = "train_loss"
"""


def written(directory, text, name="sample"):
    path = directory / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def sample(directory, *, more="", tables=TABLES, rest="", name="sample", **changes):
    """A sound rule with some lines replaced (None: left out), `more` keys and `rest` tables."""
    lines = HEAD.format(id=name).strip().splitlines()
    for key, line in changes.items():
        lines = [f"{key} = {line}" if one.startswith(f"{key} ") else one for one in lines]
        lines = [one for one in lines if one != f"{key} = None"]
    return written(directory, "\n".join([*lines, more, tables, rest]), name)


def refusal(path, **overrides):
    with pytest.raises(RuleError) as caught:
        load_rule(path, overrides)
    message = str(caught.value)
    assert message.startswith(f"{path.parent.name}/{path.name}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path.parent.name}/{path.name}: ")


def test_a_sound_rule_knows_what_it_needs(tmp_path):
    rule = load_rule(
        sample(
            tmp_path,
            when='"train_loss > high and otherwise(grad_norm, 0) < classes"',
            rest='[[fixes]]\nadvice = "Try {lr:.3g}."\narguments = { }\nwhen = "learning_rate > 0"\n',
            tables=TABLES + 'lr = "last(learning_rate)"\n',
        )
    )
    assert rule.signals == {"train_loss"}
    assert rule.optional == {"grad_norm", "learning_rate"}
    assert rule.facts == {"classes"}
    assert rule.thresholds == {"high": 2}
    assert rule.path == f"{tmp_path.name}/sample.toml"


def test_on_the_run_clock_the_counts_of_ticks_are_facts(tmp_path):
    rule = load_rule(
        sample(
            tmp_path,
            clock='"run"',
            when='"steps > 100 and evaluations == 0"',
            tables='[thresholds]\nhigh = 1\n[measures]\nloss = "steps"\n',
        )
    )
    assert rule.facts == {"steps", "evaluations"}
    assert "unknown name 'steps'" in refusal(sample(tmp_path, when='"steps > 100"'))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"when": '"train_los > high"'}, "when: unknown name 'train_los'; did you mean 'train_loss'?"),
        ({"when": '"train_loss"'}, "when: is a number, not a condition"),
        ({"when": '"val_loss > high"'}, "when: unknown name 'val_loss'"),
        ({"when": '"import os"'}, "when: not an expression"),
        ({"when": "None"}, "missing required field `when`"),
        ({"when": "3"}, "when: Expected `str`, got `int`"),
        ({"severity": '"fatal"'}, "severity: Invalid enum value 'fatal'"),
        ({"clock": '"epoch"'}, "clock: Invalid enum value 'epoch'"),
        ({"family": '"weather"'}, "family: Invalid enum value"),
        ({"more": "patiance = 2"}, "unknown field `patiance`; did you mean 'patience'?"),
        ({"more": 'signals = ["x"]'}, "unknown field `signals`"),
        ({"more": 'path = "/etc"'}, "unknown field `path`"),
        ({"more": "patience = 0"}, "patience: must be 1 or more"),
        ({"more": "patience = 1.5"}, "patience: Expected `int`"),
        ({"more": 'peak = "los"'}, "peak: unknown measure 'los'; did you mean 'loss'?"),
        ({"more": 'error_when = "loss"'}, "error_when: is a number"),
        ({"more": 'error_when = "los > 1"'}, "error_when: unknown name 'los'"),
        ({"more": 'each = "layer"'}, 'when: has one answer for all layers; remove each = "layer"'),
        ({"more": 'each = "rank"'}, "each: Invalid enum value 'rank'"),
        ({"id": '"other"'}, "id: is 'other', but the file name makes it 'sample'"),
        ({"message": '"{los}"'}, "unknown name 'los' in '{los}'; did you mean 'loss'?"),
        ({"message": '"{loss!r}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss.real}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss[0]}"'}, "only {name} and {name:spec}"),
        ({"message": '"{}"'}, "only {name} and {name:spec}"),
        ({"message": '"{0}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss:>999999999}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss:.999f}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss:.2d}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss:.2f\\n}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss:{high}}"'}, "only {name} and {name:spec}"),
        ({"message": '"{loss"'}, "expected '}' before end of string"),
        ({"message": '"loss}"'}, "Single '}'"),
        ({"tables": '[thresholds]\nhigh = "2"'}, "thresholds[...]: Expected `float`, got `str`"),
        ({"tables": "[thresholds]\nhigh = nan"}, "thresholds.high: is not a number"),
        ({"tables": f"[thresholds]\nhigh = 1{'0' * 400}"}, "Number out of range"),
        ({"tables": f"[thresholds]\nhigh = 1{'0' * 5000}"}, "not TOML"),
        (
            {"tables": "[thresholds]\nloss = 1\nhigh = 1\n[measures]\nloss = '1'"},
            "'loss' is both a threshold and a measure",
        ),
        ({"tables": TABLES + 'grad_norm = "1"'}, "'grad_norm' is no usable name"),
        ({"tables": TABLES + 'classes = "1"'}, "'classes' is no usable name"),
        ({"tables": TABLES + '"a b" = "1"'}, "'a b' is no usable name"),
        ({"tables": TABLES + 'and = "1"'}, "measures.and: not an expression"),
        ({"tables": TABLES + 'a = "b"\nb = "a"'}, "(in measure 'b'): measure 'a' is defined by itself"),
        (
            {
                "tables": TABLES
                + 'slow = "mean(train_loss, 1000) + mean(grad_norm, 1000)"\n'
                + "\n".join(f'slow{n} = "mean(train_loss, {n}) + mean(grad_norm, {n})"' for n in range(980, 1000))
            },
            "use shorter windows",
        ),
        ({"rest": "[measures]\nx = 1"}, "not TOML: Cannot declare ('measures',) twice"),
        ({"rest": '[[variants]]\nmessage = "x"'}, "variants[0]: Object missing required field `when`"),
        ({"rest": '[[variants]]\nwhen = "los > 1"\nmessage = "x"'}, "variants[0].when: unknown name 'los'"),
        ({"rest": '[[variants]]\nwhen = "loss > 1"\nmessage = "{x}"'}, "unknown name 'x'"),
        (
            {"rest": '[[fixes]]\nadvise = "x"'},
            "fixes[0]: Object contains unknown field `advise`; did you mean 'advice'?",
        ),
        ({"rest": '[[fixes]]\nadvice = "{lr}"'}, "unknown name 'lr' in '{lr}'"),
        ({"rest": '[[fixes]]\nadvice = "x"\nwhen = "loss"'}, "fixes[0].when: is a number"),
        (
            {"rest": '[[fixes]]\nadvice = "x"\naction = "scale_lrs"'},
            "unknown action 'scale_lrs'; did you mean 'scale_lr'?",
        ),
        ({"rest": '[[fixes]]\nadvice = "x"\naction = "scale_lr"'}, "scale_lr takes factor"),
        (
            {"rest": '[[fixes]]\nadvice = "x"\naction = "skip_step"\narguments = { to = "1" }'},
            "skip_step takes no arguments",
        ),
        ({"more": 'applies_when = "train_loss > 1"'}, "applies_when: "),
        ({"more": 'applies_when = "classes"'}, "applies_when: is a number"),
        ({"rest": '[[fixes]]\nadvice = "x"\napplicability = "safe"'}, "a fix without an action cannot be safe"),
        ({"rest": '[[fixes]]\nadvice = "x"\napplicability = "sure"'}, "Invalid enum value 'sure'"),
        (
            {"rest": '[[fixes]]\nadvice = "x"\naction = "scale_lr"\narguments = { factor = "fact" }'},
            "fixes[0].arguments.factor: unknown name 'fact'",
        ),
        (
            {"rest": '[[fixes]]\nadvice = "x"\nverify = { when = "loss", within = 3 }'},
            "fixes[0].verify.when: is a number",
        ),
        (
            {"rest": '[[fixes]]\nadvice = "x"\nverify = { when = "loss < 1", within = 0 }'},
            "verify.within: must be 1 or more",
        ),
        ({"rest": '[[tests]]\nname = "x"\nexpect.silent = true'}, "tests[0]: Object missing required field `given`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path, changes, said):
    assert said in refusal(sample(tmp_path, **changes))


def test_a_condition_on_layers_must_say_so(tmp_path):
    path = sample(
        tmp_path,
        clock='"interval"',
        when='"layer_grad_norm > high"',
        tables='[thresholds]\nhigh = 1\n[measures]\nloss = "1"',
    )
    assert 'has an answer for each layer; write each = "layer"' in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id = ", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"", "missing required field `id`"),
        (b"x = " + b"[" * 2000 + b"]" * 2000, "not TOML"),
        (b"#" * 200_001, "larger than 200000 bytes"),
        (b"id = 1979-13-45", "not TOML"),
    ],
    ids=["unfinished", "not text", "empty", "deep", "large", "no date"],
)
def test_a_file_that_is_no_rule_is_refused(tmp_path, content, said):
    path = tmp_path / "sample.toml"
    path.write_bytes(content)
    assert said in refusal(path)


def test_a_missing_file_or_a_directory_is_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "absent.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder.toml")


@pytest.mark.parametrize("name", ["Sample", "1st", "a-b", "x" * 65])
def test_an_id_is_a_short_lower_case_name(tmp_path, name):
    assert "id: is" in refusal(sample(tmp_path, name=name))


def test_a_large_hostile_file_is_settled_quickly(tmp_path):
    leaves = [f'leaf{number} = "train_loss + {number}"' for number in range(2000)]
    hubs = [f'hub{hub} = "{" + ".join(f"leaf{hub * 40 + leaf}" for leaf in range(40))}"' for hub in range(50)]
    tops = [f'top{number} = "{" + ".join(f"hub{hub}" for hub in range(50))}"' for number in range(100)]
    path = sample(tmp_path, tables="\n".join([TABLES, *leaves, *hubs, *tops]))
    assert path.stat().st_size < 200_000
    begun = time.perf_counter()
    load_rule(path)
    assert time.perf_counter() - begun < 5


# -- the book ---------------------------------------------------------------------------------------------------------


def test_the_rules_that_come_along_are_found_and_sorted():
    book = Rulebook.load()
    assert [*book.rules] == sorted(path.stem for path in rules_directory().glob("*.toml"))
    assert {"overfitting", "divergence", "non_finite_loss"} <= {*book.rules}


def test_a_directory_adds_rules_and_replaces_those_of_the_same_id(tmp_path):
    sample(tmp_path)
    sample(tmp_path, name="overfitting")
    book = Rulebook.load([tmp_path])
    assert book.rules["sample"].title == "A test"
    assert book.rules["overfitting"].title == "A test"


def test_a_directory_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(RuleError, match="no such directory of rules"):
        Rulebook.load([tmp_path / "absent"])


def test_a_threshold_can_be_replaced(tmp_path):
    sample(tmp_path)
    assert Rulebook.load([tmp_path], {"sample.high": 9}).rules["sample"].thresholds == {"high": 9.0}


def test_a_threshold_that_makes_no_window_is_an_error(tmp_path):
    sample(tmp_path, when='"median(train_loss, high) > 1"')
    for value in (0.5, 0, math.inf):
        with pytest.raises(RuleError, match="must be a whole number"):
            Rulebook.load([tmp_path], {"sample.high": value})
    with pytest.raises(RuleError, match="is not a number"):
        Rulebook.load([tmp_path], {"sample.high": math.nan})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sample.hight", "rule 'sample' has no threshold 'hight'; did you mean 'high'?"),
        ("sample.qqqq", r"has no threshold 'qqqq' \(it has high\)"),
        ("sample.loss", "has no threshold 'loss'"),
        ("sample.grad_norm", "has no threshold 'grad_norm'"),
        ("sampel.high", "unknown rule 'sampel'; did you mean 'sample'?"),
        ("high", "'high' is not RULE.THRESHOLD"),
        ("sample.", "'sample.' is not RULE.THRESHOLD"),
    ],
)
def test_an_unknown_threshold_is_a_mistake_of_the_configuration(tmp_path, key, said):
    sample(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        Rulebook.load([tmp_path], {key: 1.0})


def test_rules_can_be_ignored(tmp_path):
    assert "overfitting" not in Rulebook.load(ignore=["overfitting", "overfitting"]).rules
    assert "overfitting" not in Rulebook.load((), {"overfitting.max_lost": 0.5}, ["overfitting"]).rules
    with pytest.raises(ConfigurationError, match="unknown rule 'overfiting'; did you mean 'overfitting'"):
        Rulebook.load(ignore=["overfiting"])


def test_what_a_rule_explains_includes_what_that_explains(tmp_path):
    sample(tmp_path, name="a", more='explains = ["b", "not_here"]')
    sample(tmp_path, name="b", more='explains = ["c"]')
    sample(tmp_path, name="c")
    explanations = Rulebook.load([tmp_path]).explanations
    assert explanations["a"] == {"b", "c"}
    assert explanations["c"] == frozenset()


def test_rules_that_explain_each_other_are_refused(tmp_path):
    sample(tmp_path, name="a", more='explains = ["b"]')
    sample(tmp_path, name="b", more='explains = ["a"]')
    with pytest.raises(RuleError, match="explains: a explains b explains a: a cycle"):
        Rulebook.load([tmp_path])
    (tmp_path / "b.toml").unlink()
    sample(tmp_path, name="a", more='explains = ["a"]')
    with pytest.raises(RuleError, match="a cycle"):
        Rulebook.load([tmp_path])


def test_an_action_is_listed_with_the_numbers_it_takes():
    assert all(name.isidentifier() for name in ACTIONS)
    assert ACTIONS["scale_lr"] == ("factor",)


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{x}", 3.0, "3"),
        ("{x}", 0.12345678, "0.1235"),
        ("{x}", 1e20, "1e+20"),
        ("{x:.0%}", 0.123, "12%"),
        ("{x:+.1f}", 2.0, "+2.0"),
        ("{x:.3g}", 0.00123456, "0.00123"),
        ("{x:d}", 41.0, "41"),
        ("{x:+d}", 41.0, "+41"),
        ("{x:d}", math.nan, "nan"),
        ("{x:d}", math.inf, "inf"),
        ("{x}", -math.inf, "-inf"),
        ("{x:.1e}", 12345.0, "1.2e+04"),
        ("{{{x}}}", 1.0, "{1}"),
    ],
)
def test_a_template_is_filled_with_numbers(template, value, text):
    assert fill(template, {"x": value}, "here") == text


def test_the_names_of_a_template_are_known():
    assert names_in("{a} and {b:.2f}, {{c}}") == {"a", "b"}
