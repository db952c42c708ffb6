"""Known findings: listed once, accepted from then on, and new ones still fail."""

import json
from pathlib import Path


def test_what_a_baseline_lists_does_not_fail_any_more(call, runs):
    assert call("analyze", "runs", "--write-baseline", "known.json")[0] == 1
    accepted = json.loads(Path("known.json").read_text())["accepted"]
    assert "non_finite_loss" in accepted["runs/broken"]
    assert "runs/sound" not in accepted
    code, out, _ = call("analyze", "runs", "--baseline", "known.json", "--fail-on", "info")
    assert code == 0
    assert "accepted (" in out
    assert "not counted by --fail-on" in " ".join(out.split())


def test_a_new_finding_fails_beside_accepted_ones(call, runs, workplace):
    (workplace / "known.json").write_text(
        '{"schema": "lossdoctor.baseline/1", "accepted": {"runs/broken": ["plateau"]}}'
    )
    assert call("analyze", "runs/broken", "--baseline", "known.json")[0] == 1


def test_runs_are_named_as_seen_from_the_file(call, runs, workplace, monkeypatch):
    (workplace / "ci").mkdir()
    call("analyze", "runs/broken", "--write-baseline", "ci/known.json")
    monkeypatch.chdir(workplace / "ci")
    assert call("analyze", "../runs/broken", "--baseline", "known.json")[0] == 0


def test_json_and_junit_tell_what_is_accepted(call, runs):
    call("analyze", "runs/broken", "--write-baseline", "known.json")
    document = json.loads(call("analyze", "runs/broken", "--baseline", "known.json", "--format", "json")[1])
    assert "non_finite_loss" in document["runs"][0]["accepted"]
    code, out, _ = call("analyze", "runs/broken", "--baseline", "known.json", "--format", "junit")
    assert code == 0
    assert 'failures="0"' in out.splitlines()[1]
    assert "accepted: " in out


def test_junit_fails_the_rules_that_fail(call, runs):
    code, out, _ = call("analyze", "runs", "--format", "junit")
    assert code == 1
    assert '<failure message="' in out


def test_a_baseline_that_is_none_costs_one_line(call, runs, workplace):
    (workplace / "bad.json").write_text("[]")
    for name in ("bad.json", "nowhere.json"):
        code, _, err = call("analyze", "runs/sound", "--baseline", name)
        assert code == 2
        assert err.startswith(f"error: --baseline {name}: ")
        assert err.count("\n") == 1
