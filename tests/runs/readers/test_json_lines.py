"""Rows of JSON as their writers leave them."""

import json
import math
import time

import pytest
from hypothesis import given, settings

from lossdoctor.runs.readers import is_log, logs_at, runs_of
from lossdoctor.runs.readers.registry import reader_of
from tests.runs.readers.fuzzing import damaged, read_or_refuse


@pytest.fixture
def runs(tmp_path):
    def read(rows, name="log.txt"):
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        assert reader_of(path) == "json_lines"
        return [run for log in logs_at(path) for run in runs_of(log)]

    return read


def column(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.columns[name].values[table.columns[name].mask()].tolist()


def test_an_object_an_epoch_is_a_step_and_an_evaluation(runs):
    (run,) = runs(
        {
            "train_lr": 1e-3,
            "train_loss": 3 - e,
            "test_loss": 4 - e,
            "test_acc1": 50.0 + e,
            "epoch": e,
            "n_parameters": 9,
        }
        for e in range(3)
    )
    assert column(run, "train_loss") == [3, 2, 1]
    assert column(run, "val_loss") == [4, 3, 2]
    assert column(run, "val_accuracy") == [50, 51, 52]
    assert run.rows_are_means


def test_epochs_that_come_again_are_a_resume(runs):
    rows = [{"epoch": e, "train_loss": 9.0 - e} for e in (0, 1, 2, 3, 4, 3, 4, 5)]
    (run,) = runs(rows)
    assert run.steps.step.tolist() == [0, 1, 2, 3, 4, 5]
    assert [mark.step for mark in run.marks] == [3]


def test_detectron2_is_judged_by_its_total(runs):
    rows = [
        {
            "iteration": 19 + 20 * i,
            "total_loss": 3.0,
            "loss_cls": 1.0,
            "loss_box_reg": 2.0,
            "lr": 0.1,
            "time": 0.5,
            "data_time": 0.1,
        }
        for i in range(5)
    ]
    rows.append({"iteration": 99, "bbox/AP": 12.0})
    (run,) = runs(rows, "metrics.json")
    assert run.steps.step.tolist() == [19, 39, 59, 79, 99]
    assert column(run, "train_loss") == [3.0] * 5
    assert column(run, "train_loss_cls") == [1.0] * 5
    assert column(run, "step_time") == [0.5] * 5
    assert column(run, "data_wait") == pytest.approx([0.1] * 5)


def test_mmdetections_iterations_go_on_over_epochs_and_validation_stands_behind_them(runs):
    rows = [{"env_info": "sys.platform: linux", "config": "x = 1", "seed": 0}]
    for epoch in (1, 2, 3):
        rows += [
            {
                "mode": "train",
                "epoch": epoch,
                "iter": i,
                "lr": 0.1,
                "time": 0.3,
                "data_time": 0.1,
                "loss": 2.0 - epoch / 9,
            }
            for i in (50, 100, 150)
        ]
        rows.append({"mode": "val", "epoch": epoch, "iter": 625, "lr": 0.1, "loss": 3.0, "bbox_mAP": 0.1})
    (run,) = runs(rows, "20210812_190636.log.json")
    assert run.steps.step.tolist() == [50, 100, 150, 200, 250, 300, 350, 400, 450]
    assert run.evaluations.step.tolist() == [150, 300, 450]


def test_mmengines_validation_counts_epochs_and_is_laid_behind_their_iterations(runs):
    rows = []
    for epoch in (1, 2):
        rows += [
            {"lr": 0.1, "data_time": 0.1, "loss": 1.0, "time": 0.2, "epoch": epoch, "iter": 50 * i, "step": 50 * i}
            for i in range(2 * epoch - 1, 2 * epoch + 1)
        ]
        rows.append({"coco/bbox_mAP": 0.5, "val/loss": 2.0, "data_time": 0.1, "time": 0.2, "step": epoch})
    (run,) = runs(rows, "scalars.json")
    assert run.steps.step.tolist() == [50, 100, 150, 200]
    assert run.evaluations.step.tolist() == [100, 200]


def test_llama_factorys_zeros_after_losses_are_hidden_nans(runs):
    rows = [{"current_steps": 5 * i, "total_steps": 100, "loss": 2.0 if i < 10 else 0.0, "lr": 1e-5} for i in range(20)]
    (run,) = runs(rows, "trainer_log.jsonl")
    assert sum(map(math.isnan, column(run, "train_loss"))) == 10
    assert run.info.total_steps == 100


@pytest.mark.parametrize("spelling", ["NaN", '"NaN"', "Infinity", '"-inf"', "-Infinity"])
def test_non_finite_values_are_kept_however_they_are_spelled(runs, spelling):
    (run,) = runs(['{"step": 1, "loss": 2.0}', f'{{"step": 2, "loss": {spelling}}}'])
    assert not math.isfinite(column(run, "train_loss")[1])


def test_a_field_that_disappears_beside_its_companions_is_nan(runs):
    rows = [{"iteration": i, "lm loss": 2.0, "grad norm": 1.0} for i in range(10)]
    rows += [{"iteration": i, "grad norm": "nan"} for i in range(10, 15)]
    (run,) = runs(rows)
    assert sum(map(math.isnan, column(run, "train_loss"))) == 5
    assert sum(map(math.isnan, column(run, "grad_norm"))) == 5


def test_numbers_in_quotes_and_nested_objects_are_read(runs):
    (run,) = runs({"num_updates": str(i), "train": {"loss": str(3 - i)}, "valid": {"loss": 1.0}} for i in range(3))
    assert column(run, "train_loss") == [3, 2, 1]
    assert column(run, "val_loss") == [1, 1, 1]


def test_a_line_that_is_cut_off_costs_only_itself(runs):
    (run,) = runs([*({"step": i, "loss": 1.0} for i in range(5)), '{"step": 5, "lo'])
    assert len(run.steps) == 5
    assert run.warnings == ()


def test_losses_of_players_are_not_added(runs):
    (run,) = runs({"step": i, "loss_G": 1.0, "loss_D": 0.5} for i in range(5))
    assert "train_loss" not in run.steps.columns
    assert column(run, "train_loss_g") == [1.0] * 5


def test_deep_nesting_and_long_lines_cost_little(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2}\n' + b'{"a":' * 200_000 + b"\n" + b"{" + b"x" * 20_000_000 + b"\n")
    began = time.perf_counter()
    (log,) = logs_at(path)
    assert log.rows == 1
    assert time.perf_counter() - began < 5


def test_of_too_many_columns_the_first_are_read_and_that_is_said(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(json.dumps({"step": i, "loss": 1, **{f"c{i}_{j}": 1 for j in range(100)}}) + "\n" for i in range(200))
    )
    (log,) = logs_at(path)
    assert len(log.series) == 5_000
    assert log.series["loss"].values.tolist() == [1] * 200
    assert "only the first 5000 columns" in log.warnings[0]


@pytest.mark.parametrize(
    "content", ['{"a": 1}\n{"a": 2}\n', '{"name": "x", "version": "1"}', "{}\n{}\n", "{not json\n"]
)
def test_other_json_is_no_log(tmp_path, content):
    (tmp_path / "package.json").write_text(content)
    assert not is_log(tmp_path / "package.json")


@settings(max_examples=200, deadline=None)
@given(
    damaged(
        "".join(
            json.dumps({"mode": "train", "step": i, "loss": i / 7, "m": {"x": [1]}}) + "\n" for i in range(20)
        ).encode()
    )
)
def test_no_file_can_break_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "log.jsonl"
    path.write_bytes(content)
    read_or_refuse(path)


def test_what_mmengine_measures_in_a_validation_is_not_of_the_training(runs):
    rows = []
    for epoch in (1, 2, 3):
        rows.append({"lr": 0.1, "data_time": 0.01, "loss": 1.0, "time": 0.2, "epoch": epoch, "iter": 70 * epoch})
        rows[-1]["step"] = 70 * epoch
        rows.append({"accuracy/top1": 40.0 + epoch, "data_time": 0.15, "time": 0.2, "step": epoch})
    (run,) = runs(rows, "scalars.json")
    assert run.steps.step.tolist() == run.evaluations.step.tolist() == [70, 140, 210]
    assert column(run, "val_accuracy") == [41, 42, 43]
    assert column(run, "data_wait") == pytest.approx([0.01] * 3)
    assert "train_accuracy" not in run.steps.columns
