"""`lossdoctor compare`: two runs, many runs, formats, mistakes."""

import json

from tests.comparison.runs_on_disk import recorded


def test_two_runs_are_told_apart(call, runs):
    code, out, err = call("compare", "runs/sound", "runs/broken")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "2 runs, compared with A:"
    assert "B  exactly the same until step 700; apart from step 701 on" in " ".join(out.split("\n"))
    assert "gained non_finite_loss" in out


def test_groups_are_shown_in_a_table(call, workplace):
    for seed in range(2):
        recorded(workplace / f"runs/a{seed}", opt="a", seed=seed)
        recorded(workplace / f"runs/b{seed}", opt="b", seed=seed + 5, shift=0.3)
    code, out, _ = call("compare", "--by", "opt,seed", "runs")
    assert code == 0
    assert "groups by opt (val_loss, lower is better" in out
    assert "2 - 1: +0.3" in out


def test_json_is_a_document_and_goes_to_a_file(call, runs, workplace):
    code, out, _ = call("compare", "runs", "--format", "json", "--output", "comparison.json")
    assert (code, out) == (0, "")
    assert json.loads((workplace / "comparison.json").read_text())["schema"] == "lossdoctor.comparison/1"


def test_mistakes_cost_one_line(call, runs):
    assert call("compare", "runs/sound")[::2] == (
        2,
        "error: runs/sound: 1 run to compare; give two, or a directory of runs\n",
    )
    code, _, err = call("compare", "runs", "--by", "nothing")
    assert (code, err.count("\n")) == (2, 1)


def test_compare_loads_neither_torch_nor_matplotlib(process, runs):
    program = "import sys, lossdoctor.cli as c; c.main(['compare', 'runs'])\n"
    done = process("-c", program + "print(sorted({'torch', 'matplotlib'} & {*sys.modules}))")
    assert done.stdout.decode().splitlines()[-1] == "[]"
