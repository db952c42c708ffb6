"""Settings: where they are found, and how a mistake in them is reported."""

import pytest

from lossdoctor.configuration import Configuration, find_configuration, parse_setting
from lossdoctor.errors import ConfigurationError


def _write(directory, text, name="lossdoctor.toml"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text, encoding="utf-8")


def _error(directory):
    with pytest.raises(ConfigurationError) as caught:
        find_configuration(directory)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{directory}/")


def test_without_a_file_the_defaults_hold(tmp_path):
    assert find_configuration(tmp_path) == Configuration()


def test_every_key_is_read(tmp_path):
    (tmp_path / "mine").mkdir()
    _write(
        tmp_path,
        """
        fail_on = "warning"
        format = "json"
        rules = ["mine"]
        ignore = ["plateau"]
        [thresholds]
        overfitting.max_lost = 0.2
        overfitting.window = 4
        "divergence.max_lost" = 1
        """,
    )
    assert find_configuration(tmp_path) == Configuration(
        fail_on="warning",
        format="json",
        rules=(tmp_path / "mine",),
        ignore=("plateau",),
        thresholds={"overfitting.max_lost": 0.2, "overfitting.window": 4.0, "divergence.max_lost": 1.0},
        path=tmp_path / "lossdoctor.toml",
    )


def test_the_nearest_file_above_holds(tmp_path):
    _write(tmp_path, 'fail_on = "info"')
    _write(tmp_path / "a", 'fail_on = "never"')
    (tmp_path / "a/b/c").mkdir(parents=True)
    assert find_configuration(tmp_path / "a/b/c").fail_on == "never"


def test_pyproject_is_read_and_without_our_table_passed_over(tmp_path):
    _write(tmp_path, '[tool.lossdoctor]\nfail_on = "info"', "pyproject.toml")
    _write(tmp_path / "inner", "[tool.other]\nx = 1", "pyproject.toml")
    assert find_configuration(tmp_path / "inner").fail_on == "info"


def test_the_table_of_remedies_holds_what_it_mentions_and_nothing_else(tmp_path):
    assert find_configuration(tmp_path).remedies == {}
    _write(tmp_path, '[remedies]\nactions = ["rewind"]\nbudget = 2\nsnapshots = "disk"\ndry_run = true')
    expected = {"actions": ["rewind"], "budget": 2, "snapshots": "disk", "dry_run": True}
    assert find_configuration(tmp_path).remedies == expected


def test_our_own_file_wins_over_pyproject_beside_it(tmp_path):
    _write(tmp_path, '[tool.lossdoctor]\nfail_on = "info"', "pyproject.toml")
    _write(tmp_path, 'fail_on = "never"')
    assert find_configuration(tmp_path).fail_on == "never"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('fial_on = "error"', "lossdoctor.toml: unknown key 'fial_on'; did you mean 'fail_on'?"),
        (
            "zzz = 1",
            (
                "lossdoctor.toml: unknown key 'zzz'; "
                "known keys: fail_on, format, rules, ignore, thresholds, remedies, notify"
            ),
        ),
        ("[remedies]\nbudgte = 3", "lossdoctor.toml: remedies: unknown key 'budgte'; did you mean 'budget'?"),
        (
            '[remedies]\nsnapshots = "disc"',
            (
                "lossdoctor.toml: remedies.snapshots: unknown value 'disc'; did you mean 'disk'?; "
                "one of auto, memory, disk"
            ),
        ),
        ("[remedies]\nbudget = -1", "lossdoctor.toml: remedies.budget: expected `int` >= 0"),
        (
            "[remedies]\nactions = ['rewnd']",
            "lossdoctor.toml: remedies.actions: there is no action 'rewnd'; did you mean 'rewind'?",
        ),
        (
            'fail_on = "fatal"',
            "lossdoctor.toml: fail_on: unknown value 'fatal'; one of never, info, warning, error",
        ),
        ("fail_on = 3", "lossdoctor.toml: fail_on: expected `str`, got `int`"),
        ('rules = "mine"', "lossdoctor.toml: rules: expected `array`, got `str`"),
        ("ignore = [1]", "lossdoctor.toml: ignore[0]: expected `str`, got `int`"),
        (
            "[thresholds]\noverfitting.max_lost = 'a'",
            "lossdoctor.toml: thresholds.overfitting.max_lost: expected a number, got 'a'",
        ),
        (
            "[thresholds]\noverfitting.max_lost = true",
            "lossdoctor.toml: thresholds.overfitting.max_lost: expected a number, got True",
        ),
        (
            "[thresholds]\noverfitting.max_lost = nan",
            "lossdoctor.toml: thresholds.overfitting.max_lost: expected a number, got nan",
        ),
        (
            "[thresholds]\nmax_lost = 1",
            "lossdoctor.toml: thresholds.max_lost: expected RULE.THRESHOLD = NUMBER, e.g. overfitting.max_lost = 0.2",
        ),
        ("a = ", "lossdoctor.toml: not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(tmp_path, text, message):
    _write(tmp_path, text)
    assert _error(tmp_path) == message


def test_a_mistake_in_pyproject_names_its_table(tmp_path):
    _write(tmp_path, "[tool.lossdoctor]\nformt = 1", "pyproject.toml")
    assert _error(tmp_path) == "pyproject.toml: tool.lossdoctor: unknown key 'formt'; did you mean 'format'?"


def test_a_rules_directory_that_is_not_there_is_named(tmp_path):
    _write(tmp_path, 'rules = ["gone"]')
    assert _error(tmp_path) == f"lossdoctor.toml: rules: no such directory: {tmp_path}/gone"


def test_a_file_that_is_no_text_is_an_error_of_one_line(tmp_path):
    (tmp_path / "lossdoctor.toml").write_bytes(b"\xff\xfe")
    assert _error(tmp_path).startswith("lossdoctor.toml: not TOML: ")


@pytest.mark.parametrize("text", ["", "x", "a=1", "a.=1", ".b=1", "a.b", "a.b=", "a.b=x", "a.b=nan"])
def test_a_malformed_setting_is_refused_with_its_own_text(text):
    with pytest.raises(ConfigurationError, match="--set"):
        parse_setting(text)


def test_a_setting_may_be_in_any_notation_of_numbers():
    assert parse_setting("a.b=1e-3") == ("a.b", 0.001)
    assert parse_setting("a.b=inf") == ("a.b", float("inf"))
