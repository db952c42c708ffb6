"""What analyze says of the sample runs is what their expected.toml says, and they can be made again."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from lossdoctor.analysis import analyze
from lossdoctor.runs.reader import find_runs, read_run
from sample_runs.make import LARGEST, SAMPLES, expectation
from tests.pathologies.recipes import RECIPES
from tests.pathologies.record import record

SAMPLE_RUNS = Path(__file__).parent.parent / "sample_runs"
RECIPE = {recipe.name: recipe for recipe in RECIPES}


def expected(name):
    return tomllib.loads((SAMPLE_RUNS / name / "expected.toml").read_text(encoding="utf-8"))


def test_the_samples_are_those_that_make_regenerates():
    assert sorted(path.parent.name for path in SAMPLE_RUNS.glob("*/expected.toml")) == sorted(SAMPLES)
    assert sorted(path.name for path in find_runs(SAMPLE_RUNS)) == sorted(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_small_and_labelled_as_its_recipe(name):
    directory = SAMPLE_RUNS / name
    assert sum(file.stat().st_size for file in directory.rglob("*")) <= LARGEST
    assert (directory / "expected.toml").read_text(encoding="utf-8") == expectation(RECIPE[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_analyze_says_what_is_expected(name):
    label = expected(name)
    [found] = analyze(SAMPLE_RUNS / name)
    assert not found.warnings
    assert found.verdict == label["verdict"]
    grave = [finding for finding in found.findings if finding.severity in {"warning", "error"}]
    if label["healthy"]:
        assert not grave
        return
    leading = found.findings[0]
    assert leading.rule in label["findings"]
    assert leading.explained_by is None
    first, last = label["since_between"]
    assert first <= leading.since <= last
    assert {finding.rule for finding in grave} <= {*label["findings"], *label["also"]}


@pytest.mark.parametrize("name", ["healthy_mlp", "divergence_lr_jump", "healthy_accumulation"])
def test_a_sample_is_made_again_from_its_seed(name, tmp_path):
    torch.set_num_threads(1)
    record(RECIPE[name], tmp_path / name)
    kept, again = read_run(SAMPLE_RUNS / name), read_run(tmp_path / name)
    assert len(again.steps) == len(kept.steps)
    begin = slice(0, 100)  # the same to rounding; on another processor a training drifts away later
    for signal in ("train_loss", "learning_rate", "grad_norm"):
        np.testing.assert_allclose(
            again.steps.columns[signal].values[begin], kept.steps.columns[signal].values[begin], rtol=1e-2, atol=1e-4
        )
