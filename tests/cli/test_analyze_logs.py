"""`lossdoctor analyze` of logs that are not ours: one, many, damaged, and what the user says of their columns."""

import json

import pytest

ROWS = 60


def table(*, broken=False):
    rows = [f"{e},{3 / (e + 1) + 0.1},{3.1 / (e + 1) + 0.2}" for e in range(ROWS)]
    rows[30:] = [f"{e},nan,nan" for e in range(30, ROWS)] if broken else rows[30:]
    return "epoch,loss,val_loss\n" + "\n".join(rows) + "\n"


@pytest.fixture
def logs(workplace):
    for name, broken in (("good", False), ("bad", True)):
        (workplace / "logs" / name).mkdir(parents=True)
        (workplace / "logs" / name / "metrics.csv").write_text(table(broken=broken))
    return workplace / "logs"


def test_a_log_is_diagnosed_like_a_run(call, logs):
    code, out, err = call("analyze", "logs/bad/metrics.csv")
    assert (code, err) == (1, "")
    assert "error[non_finite_loss]" in out
    assert "since=30" in out.splitlines()[-1]


def test_logs_and_our_own_runs_are_reported_side_by_side(call, logs, runs):
    code, out, err = call("analyze", "logs", "runs")
    assert (code, err) == (1, "")
    assert [line.rpartition("run=")[2] for line in out.splitlines()[-4:]] == [
        "logs/bad/metrics.csv",
        "logs/good/metrics.csv",
        "runs/broken",
        "runs/sound",
    ]


def test_json_lists_every_run_of_a_log(call, workplace):
    (workplace / "two.csv").write_text(table() + table().partition("\n")[2])
    code, out, _ = call("analyze", "two.csv", "--format", "json", "--fail-on", "never")
    assert code == 0
    assert [run["run"] for run in json.loads(out)["runs"]] == ["two.csv#1", "two.csv#2"]


def test_many_logs_are_read_in_processes_with_the_same_result(call, logs):
    for number in range(10):
        (logs / f"log{number}.csv").write_text(table(broken=number % 2 == 1))
    code, out, err = call("analyze", "logs", "--format", "json")
    runs = json.loads(out)["runs"]
    assert (code, err, len(runs)) == (1, "", 12)
    assert [run["verdict"] == "non_finite_loss" for run in runs] == [True, False, *[False, True] * 5]


def test_a_log_without_a_loss_in_a_directory_is_a_warning_only(call, logs):
    (logs / "state.json").write_text('{"log_history": []}')
    code, _, err = call("analyze", "logs/", "--fail-on", "never")
    assert code == 0
    assert err.startswith("warning: logs/state.json: log_history is empty")
    assert call("analyze", "logs/state.json")[0] == 2


def test_what_was_taken_for_what_is_printed_when_asked_for(call, logs):
    assert "read as:" not in call("analyze", "logs/good/metrics.csv")[1]
    out = call("analyze", "logs/good/metrics.csv", "-v")[1]
    assert "read as:\n" in out
    assert f"  - val_loss: val_loss ({ROWS} values)" in out


def test_a_column_can_be_named(call, workplace):
    (workplace / "x.csv").write_text(table().replace("loss,val_loss", "foo,bar"))
    code, _, err = call("analyze", "x.csv")
    assert code == 2
    assert "columns: foo, bar" in err
    assert "--map train_loss=COLUMN" in err
    code, out, _ = call(
        "analyze", "x.csv", "--map", "train_loss=foo", "--map", "val_loss=bar", "-v", "--fail-on", "never"
    )
    assert code == 0
    assert f"  - train_loss: foo (--map) ({ROWS} values)" in out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("val_loss", "expected SIGNAL=COLUMN, e.g. val_loss=eval/nll"),
        ("vall_loss=x", "there is no signal 'vall_loss'; did you mean 'val_loss'?"),
        ("val_loss=val_los", "no column 'val_los'; did you mean 'val_loss'?"),
    ],
)
def test_a_wrong_map_is_one_line(call, logs, setting, message):
    code, _, err = call("analyze", "logs/good/metrics.csv", "--map", setting)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err


def test_no_format_is_a_line_that_says_what_can_be_read(call, workplace):
    (workplace / "notes").write_text("nothing here\n")
    code, _, err = call("analyze", "notes")
    assert code == 2
    assert "notes: the format is not recognized (tried: TensorBoard, " in err
