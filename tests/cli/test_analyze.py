"""`lossdoctor analyze`: reports, exit codes, and mistakes that cost one line each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_sound_run_is_reported_healthy_and_exits_with_0(call, runs):
    code, out, err = call("analyze", "runs/sound")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "runs/sound: healthy"
    assert "healthy, because:" in out
    verdict = "lossdoctor: verdict=healthy category=healthy severity=benign since=- findings=0 status=finished"
    assert out.splitlines()[-1] == verdict


def test_a_broken_run_is_an_error_with_its_step_and_exits_with_1(call, runs):
    code, out, err = call("analyze", "runs/broken")
    assert (code, err) == (1, "")
    assert "error[non_finite_loss]: " in out
    assert " --> runs/broken, steps 701 to 1000" in out
    assert "steps 701 to 1000 ^^^" in out
    assert "  = help: " in out
    assert "verdict=non_finite_loss category=unstable severity=error since=701 findings=" in out.splitlines()[-1]


def test_several_runs_have_a_line_each_and_details_only_where_there_are_findings(call, runs):
    code, out, _ = call("analyze", "runs")
    assert code == 1
    assert out.splitlines()[:2] == [
        "error      runs/broken  non_finite_loss since step 701 (unstable)",
        "ok         runs/sound   healthy",
    ]
    assert "error[non_finite_loss]" in out
    assert "healthy, because" not in out
    assert [line.rpartition("run=")[2] for line in out.splitlines()[-2:]] == ["runs/broken", "runs/sound"]


def test_a_run_named_twice_is_reported_once(call, runs):
    _, out, _ = call("analyze", "runs/sound", "runs/sound/", "runs/../runs/sound")
    assert out.count("verdict=") == 1


def test_an_unreadable_path_among_several_hides_nothing_and_exits_with_2(call, runs):
    code, out, err = call("analyze", "nowhere", "runs/sound")
    assert code == 2
    assert err == "error: nowhere: no such file or directory\n"
    assert "runs/sound: healthy" in out


@pytest.mark.parametrize(("fail_on", "expected"), [("never", 0), ("info", 1), ("warning", 1), ("error", 1)], ids=str)
def test_fail_on_decides_the_exit_code(call, runs, fail_on, expected):
    assert call("analyze", "runs/broken", "--fail-on", fail_on)[0] == expected
    assert call("analyze", "runs/sound", "--fail-on", fail_on)[0] == 0


def test_json_is_one_document_for_all_runs_and_nothing_else(call, runs):
    code, out, _ = call("analyze", "runs", "--format", "json")
    document = json.loads(out)
    assert code == 1
    assert document["schema"] == "lossdoctor.diagnosis/1"
    assert [run["run"] for run in document["runs"]] == ["runs/broken", "runs/sound"]
    assert document["runs"][0]["findings"][0]["since"] == 701


def test_json_of_nothing_readable_is_still_a_document(call):
    code, out, err = call("analyze", "nowhere", "--format", "json")
    assert code == 2
    assert json.loads(out)["runs"] == []
    assert err.startswith("error: ")


def test_markdown_has_a_heading_for_the_run(call, runs):
    assert call("analyze", "runs/sound", "--format", "markdown")[1].startswith("## runs/sound: healthy\n")


def test_output_goes_to_the_file_and_only_the_verdict_to_stdout(call, runs, workplace):
    code, out, _ = call("analyze", "runs/broken", "--output", "report.txt")
    assert code == 1
    assert out.startswith("lossdoctor: verdict=non_finite_loss")
    assert out.count("\n") == 1
    assert "error[non_finite_loss]" in (workplace / "report.txt").read_text(encoding="utf-8")


def test_the_configuration_holds_and_the_command_line_wins_over_it(call, runs, workplace):
    (workplace / "lossdoctor.toml").write_text('fail_on = "never"\nformat = "json"\nignore = ["plateau"]\n')
    code, out, _ = call("analyze", "runs/broken")
    assert code == 0
    assert "plateau" not in json.loads(out)["runs"][0]["passed"]
    code, out, _ = call("analyze", "runs/broken", "--fail-on", "error", "--format", "text")
    assert code == 1
    assert out.startswith("runs/broken: non_finite_loss")


def test_a_threshold_set_on_the_command_line_changes_the_judgement(call, runs):
    message = call("analyze", "runs/broken")[1]
    assert call("analyze", "runs/broken", "--set", "non_finite_loss.growth=0.5")[1] != message


def test_verbose_explains_the_finding(call, runs):
    brief, full = call("analyze", "runs/broken")[1], call("analyze", "runs/broken", "-v")[1]
    assert "= note: " not in brief
    assert "= note: " in full


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ["Missing argument 'PATH'", "lossdoctor analyze --help"]),
        (("nowhere",), ["nowhere: no such file or directory"]),
        (("empty",), ["empty: no run in this directory"]),
        (("file",), ["file"]),
        (("runs/sound", "--format", "yaml"), ["'yaml'", "'text', 'json', 'markdown'"]),
        (("runs/sound", "--fail-on", "panic"), ["'panic'", "'never', 'info', 'warning', 'error'"]),
        (("runs/sound", "--fial-on", "error"), ["--fial-on", "--fail-on"]),
        (("runs/sound", "--set", "overfitting"), ["--set overfitting", "RULE.THRESHOLD=NUMBER"]),
        (("runs/sound", "--set", "overfitting.max_lost=x"), ["'x' is not a number"]),
        (("runs/sound", "--set", "overfiting.max_lost=1"), ["--set", "did you mean 'overfitting'?"]),
        (("runs/sound", "--set", "overfitting.max_lots=1"), ["--set", "max_lots"]),
        (("runs/sound", "--rules", "nowhere"), ["nowhere", "no such directory"]),
        (("runs/sound", "--rules", "bad_rules"), ["mine.toml", "sverity", "did you mean 'severity'?"]),
        (("runs/sound", "--output", "empty"), ["--output empty: cannot be written"]),
        (("runs/sound", "--output", "nowhere/x"), ["--output nowhere/x: cannot be written"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_a_mistake_is_one_line_on_stderr_and_exits_with_2(call, runs, workplace, arguments, parts):
    (workplace / "empty").mkdir()
    (workplace / "file").write_text("no log")
    (workplace / "bad_rules").mkdir()
    (workplace / "bad_rules/mine.toml").write_text('id = "mine"\nsverity = "error"\n')
    code, out, err = call("analyze", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_a_mistake_in_the_configuration_names_the_file(call, runs, workplace):
    (workplace / "lossdoctor.toml").write_text("[thresholds]\noverfiting.max_lost = 1\n")
    code, _, err = call("analyze", "runs/sound")
    assert code == 2
    assert err == f"error: {workplace}/lossdoctor.toml: unknown rule 'overfiting'; did you mean 'overfitting'?\n"


def test_a_run_name_cannot_steer_the_terminal(call, recorded, workplace):
    name = "x\x1b[31m[bold]\u202e"
    (workplace / name).symlink_to(recorded / "runs/sound", target_is_directory=True)
    _, out, _ = call("analyze", name)
    assert out.startswith(r"x\x1b[31m[bold]\u202e: healthy")
    assert "\x1b" not in out


def test_colour_is_for_terminals_or_on_request_and_never_against_no_color(process, runs):
    command = ("-m", "lossdoctor", "analyze", "runs/broken")
    assert b"\x1b[" not in process(*command).stdout
    assert b"\x1b[1;31m" in process(*command, FORCE_COLOR="1").stdout
    assert b"\x1b[1;31m" not in process(*command, FORCE_COLOR="1", NO_COLOR="1").stdout


def test_a_terminal_without_unicode_gets_ascii(process, runs):
    result = process("-m", "lossdoctor", "analyze", "runs/broken", PYTHONIOENCODING="ascii")
    assert result.returncode == 1
    assert result.stdout.isascii()
    assert b"not finite (x)" in result.stdout


def test_a_diagnosis_imports_no_torch_scipy_or_matplotlib(process, runs):
    program = (
        "import sys, lossdoctor\n"
        "assert 'numpy' not in sys.modules\n"
        "import lossdoctor.cli\n"
        "code = lossdoctor.cli.main(['analyze', 'runs/broken'])\n"
        "print(code, {'torch', 'scipy', 'matplotlib', 'pandas', 'tensorboard'} & {*sys.modules}, file=sys.stderr)"
    )
    assert process("-c", program).stderr.split() == [b"1", b"set()"]


def test_a_closed_pipe_is_no_error(workplace, runs):
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "lossdoctor", "analyze", "runs/broken"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")


def test_an_interrupt_ends_quietly(call, runs, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lossdoctor.cli.many.judge_all", interrupt)
    assert call("analyze", "runs/sound") == (130, "", "")
