"""Tables as their writers leave them: padded, sparse, repeated, localized, broken."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import is_log, logs_at, runs_of
from lossdoctor.runs.readers.registry import reader_of
from tests.runs.readers.fuzzing import damaged, read_or_refuse


@pytest.fixture
def runs(tmp_path):
    def read(content, name="log.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        assert reader_of(path) == "tabular"
        return [run for log in logs_at(path) for run in runs_of(log)]

    return read


def column(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.columns[name].values[table.columns[name].mask()].tolist()


def test_keras_rows_are_steps_and_evaluations(runs):
    rows = "".join(f"{e},{0.5 + e / 10},0.001,{2 - e / 10},{0.4 + e / 10},{2.1 - e / 10}\n" for e in range(5))
    (run,) = runs("epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\n" + rows)
    assert run.steps.step.tolist() == run.evaluations.step.tolist() == [0, 1, 2, 3, 4]
    assert column(run, "train_loss") == pytest.approx([2, 1.9, 1.8, 1.7, 1.6])
    assert column(run, "val_accuracy") == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])
    assert column(run, "learning_rate") == pytest.approx([0.001] * 5)
    assert run.rows_are_means


def test_lightnings_sparse_rows_become_steps_and_evaluations(runs):
    content = "acc,epoch,step,val_loss,train_loss,lr-AdamW\n"
    for epoch in range(3):
        for step in (49, 99):
            content += f"0.8,{epoch},{epoch * 100 + step},,{3 - epoch},\n"
            content += f",,{epoch * 100 + step},,,0.0002\n"
        content += f",{epoch},{epoch * 100 + 99},{3.5 - epoch},,\n"
    (run,) = runs(content, "metrics.csv")
    assert run.steps.step.tolist() == [49, 99, 149, 199, 249, 299]
    assert column(run, "train_loss") == [3, 3, 2, 2, 1, 1]
    assert column(run, "learning_rate") == pytest.approx([0.0002] * 6)
    assert run.evaluations.step.tolist() == [99, 199, 299]


def test_padded_tables_of_yolov5_are_summed_over_their_losses(runs):
    names = ["epoch", "train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/mAP_0.5"]
    names += ["val/box_loss", "val/obj_loss", "val/cls_loss", "x/lr0", "x/lr1", "x/lr2"]
    content = ",".join(f"{name:>20}" for name in names) + "\n"
    for epoch in range(4):
        values = [epoch, 0.1, 0.2, 0.3, 0.5, 0.2, 0.3, 0.4, 0.001, 0.001, 0.09]
        content += ",".join(f"{value:>20.5g}" for value in values) + "\n"
    (run,) = runs(content, "results.csv")
    assert column(run, "train_loss") == pytest.approx([0.6] * 4)
    assert column(run, "val_loss") == pytest.approx([0.9] * 4)
    assert column(run, "train_loss_box") == pytest.approx([0.1] * 4)
    assert column(run, "learning_rate") == pytest.approx([0.001] * 4)  # the warm-up of the biases is not the rate


def test_the_settings_beside_a_table_are_its_config(runs, tmp_path):
    (tmp_path / "args.yaml").write_text("epochs: 300\nlr: 0.1\nmodel:\n  depth: 3\n")
    (run,) = runs("epoch,train_loss,eval_loss,eval_top1\n" + "".join(f"{e},1,1,50\n" for e in range(5)))
    assert run.info.config["lr"] == 0.1
    assert run.info.total_steps == 300


def test_a_header_in_the_middle_is_no_row_and_epochs_that_come_again_are_a_resume(runs):
    header = "epoch,train_loss,eval_loss\n"
    first = "".join(f"{e},{9 - e},1\n" for e in range(6))
    second = "".join(f"{e},{19 - e},1\n" for e in range(4, 8))
    (run,) = runs(header + first + header + second)
    assert run.steps.step.tolist() == list(range(8))
    assert column(run, "train_loss") == [9, 8, 7, 6, 15, 14, 13, 12]
    assert [mark.step for mark in run.marks] == [4]


def test_runs_stacked_by_append_are_runs(runs):
    lengths = (5, 4, 10, 5)
    rows = "".join(f"{e},{e},{1.0}\n" for length in lengths for e in range(length))
    found = runs("epoch,loss,val_loss\n" + rows)
    assert [len(run.steps) for run in found] == list(lengths)
    assert [run.name for run in found] == ["1", "2", "3", "4"]


def test_blank_cells_beside_filled_ones_are_nan(runs):
    rows = [f"{s},{1.5},{0.1}" for s in range(10)] + [f"{s},,{0.1}" for s in range(10, 20)]
    (run,) = runs("step,loss,lr\n" + "\n".join(rows) + "\n")
    losses = column(run, "train_loss")
    assert len(losses) == 20
    assert all(math.isnan(value) for value in losses[10:])


def test_rows_with_nothing_but_a_step_are_nan_where_a_loss_was_always(runs):
    rows = [f"{s},{1.5},{2.0}" for s in range(10)] + [f"{s},," for s in range(10, 20)]
    (run,) = runs("global_step,loss,grad_norm\n" + "\n".join(rows) + "\n")
    assert len(column(run, "train_loss")) == len(column(run, "grad_norm")) == 20


def test_cells_that_are_blank_in_a_rhythm_are_not_nan(runs):
    rows = "".join(f"{s},{1.0 if s % 5 == 0 else ''},0.1\n" for s in range(50))
    (run,) = runs("step,loss,lr\n" + rows)
    assert column(run, "train_loss") == [1.0] * 10


@pytest.mark.parametrize("spelling", ["nan", "NaN", "NAN", "inf", "-inf", "Infinity", " nan"])
def test_non_finite_values_are_kept_however_they_are_spelled(runs, spelling):
    (run,) = runs(f"step,loss\n1,2.0\n2,{spelling}\n3,1.0\n")
    losses = column(run, "train_loss")
    assert len(losses) == 3
    assert not math.isfinite(losses[1])


def test_not_available_is_not_nan(runs):
    (run,) = runs("epoch,loss,val_loss\n0,2.0,1.0\n1,nan,NA\n")
    assert len(column(run, "val_loss")) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings_do_not_matter(runs, encoding):
    (run,) = runs("step,loss,größe\n" + "".join(f"{s},{s},1\n" for s in range(5)), encoding=encoding)
    assert column(run, "train_loss") == [0, 1, 2, 3, 4]


def test_windows_lines_that_double_are_no_rows(runs):
    (run,) = runs(b"epoch,loss\r\r\n0,3.0\r\r\n1,2.0\r\r\n2,1.0\r\r\n")
    assert column(run, "train_loss") == [3, 2, 1]


def test_semicolons_and_decimal_commas_are_read(runs):
    (run,) = runs("epoch;loss;val_loss\n1;0,5;0,6\n2;0,4;0,5\n")
    assert column(run, "train_loss") == pytest.approx([0.5, 0.4])


def test_tabs_are_read(runs):
    (run,) = runs("step\tloss\n1\t0.5\n2\t0.25\n", "log.tsv")
    assert column(run, "train_loss") == [0.5, 0.25]


def test_a_table_without_an_axis_counts_its_rows(runs):
    (run,) = runs("training_loss, training_acc, val_loss\n0.5, 0.1, 0.6\n0.4, 0.2, 0.5\n0.3, 0.3, 0.4\n")
    assert run.steps.step.tolist() == [1, 2, 3]
    assert not run.rows_are_means


def test_a_table_by_pandas_with_its_index_is_read(runs, tmp_path):
    frame = pd.DataFrame({"epoch": range(6), "train_loss": np.linspace(2, 1, 6), "note": ["a b"] * 6})
    frame.to_csv(tmp_path / "x.csv")
    (run,) = runs((tmp_path / "x.csv").read_bytes())
    assert column(run, "train_loss") == pytest.approx(np.linspace(2, 1, 6))


def test_a_table_of_many_runs_has_one_run_for_each(runs):
    rows = "".join(f"{m},{seed},{e},{e + seed}\n" for m in ("small", "large") for seed in (1, 2) for e in range(4))
    found = runs("model,seed,epoch,loss\n" + rows)
    assert [run.name for run in found] == ["small, seed 1", "small, seed 2", "large, seed 1", "large, seed 2"]
    assert [column(run, "train_loss")[0] for run in found] == [1, 2, 1, 2]


def test_words_in_a_table_of_one_run_do_not_cut_it(runs):
    rows = "".join(f"{e},{e},{'yes' if e % 3 else 'no'}\n" for e in range(12))
    (run,) = runs("epoch,loss,best\n" + rows)
    assert len(run.steps) == 12


def test_a_column_of_splits_becomes_train_and_validation(runs):
    rows = "".join(f"{e},{split},{1 + (split == 'val')}\n" for e in range(4) for split in ("train", "val"))
    (run,) = runs("epoch,phase,loss\n" + rows)
    assert column(run, "train_loss") == [1] * 4
    assert column(run, "val_loss") == [2] * 4


def test_a_column_of_metrics_names_is_spread(runs):
    rows = "".join(f"{s},{name},{value}\n" for s in range(4) for name, value in (("loss", 1.5), ("val_loss", 2.5)))
    (run,) = runs("step,metric,value\n" + rows)
    assert column(run, "train_loss") == [1.5] * 4
    assert column(run, "val_loss") == [2.5] * 4


def test_exports_of_weights_and_biases_have_a_run_for_each_prefix(runs):
    header = '"Step","fast-1 - train/loss","fast-1 - train/loss__MIN","fast-1 - train/loss__MAX","calm-2 - train/loss"'
    rows = "".join(f'"{s}","{s}","0","9","{s + 5}"\n' for s in range(5))
    found = runs(f"{header}\n{rows}")
    assert [run.name for run in found] == ["fast-1", "calm-2"]
    assert [column(run, "train_loss") for run in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_rows_of_another_width_are_left_out_and_counted(runs):
    (run,) = runs("step,loss\n1,2.0\n2,1.0,7,7\n3,0.5\n4,0.2\n")
    assert column(run, "train_loss") == pytest.approx([2.0, 0.5, 0.2])
    assert "1 rows have another number of cells" in run.warnings[0]


@pytest.mark.parametrize(
    "content",
    [
        "name,price\napple,1\npear,2\nplum,3\n",
        "model,accuracy,params\nresnet,0.9,25\nvit,0.91,80\nmlp,0.7,5\n",
        "1,2,3\n4,5,6\n7,8,9\n",
        "step,loss\n",
        "date,steps,calories\n2024-01-01,10000,300\n2024-01-02,12000,350\n",
        "x = 1, loss = 2\nwhile true:\n  pass\n",
        "",
        "\0\0\0,\0loss",
    ],
)
def test_other_tables_are_no_logs(tmp_path, content):
    (tmp_path / "results.csv").write_text(content)
    assert not is_log(tmp_path / "results.csv")


def test_what_a_test_leaves_behind_is_no_curve(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,test_acc,test_loss\n10,1000,0.9,0.3\n")
    assert not is_log(tmp_path / "metrics.csv")


def test_a_hundred_thousand_columns_are_refused_at_once(tmp_path):
    path = tmp_path / "wide.csv"
    names = ["step", "loss", *(f"c{i}" for i in range(100_000))]
    path.write_text(",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n")
    assert not is_log(path)
    with pytest.raises(LogError, match="not recognized"):
        logs_at(path)


def test_the_only_row_may_have_an_infinite_step(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,run\nINF,,\n")
    read_or_refuse(tmp_path / "log.csv")


@settings(max_examples=200, deadline=None)
@given(damaged(b"epoch,loss,val_loss,phase\n" + b"".join(b"%d,%f,1e-3,train\n" % (e, e / 7) for e in range(20))))
def test_no_file_can_break_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "log.csv"
    path.write_bytes(content)
    read_or_refuse(path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=8) | st.floats().map(str), min_size=3, max_size=3), max_size=12))
def test_any_cells_are_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "log.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["step", "loss", "run"], *rows])
    read_or_refuse(path)


def test_a_column_of_nothing_but_losses_is_a_log(runs):
    (run,) = runs("train_loss\n3.0\n2.0\n1.0\n0.5\n", "loss.csv")
    assert run.steps.step.tolist() == [1, 2, 3, 4]
    assert column(run, "train_loss") == [3, 2, 1, 0.5]


@pytest.mark.parametrize("content", ["loss\nnone\nto speak of\n1.0\n", "weight\n3.0\n2.0\n1.0\n", "loss\n3.0\n2.0\n"])
def test_a_column_of_anything_else_is_none(tmp_path, content):
    path = tmp_path / "loss.csv"
    path.write_text(content)
    assert not is_log(path)


def test_columns_of_letters_are_read_when_somebody_says_which_is_the_loss(tmp_path):
    path = tmp_path / "loss.csv"
    path.write_text(",G,D\n0,0.5,3.0\n1,0.6,2.0\n2,0.7,1.0\n")
    with pytest.raises(LogError, match=r"G, D.*--map train_loss=COLUMN"):
        runs_of(logs_at(path)[0])
    (run,) = runs_of(logs_at(path)[0], {"train_loss": "D"})
    assert column(run, "train_loss") == [3, 2, 1]


@pytest.mark.parametrize(
    "content",
    [
        "Stock,Loss,RMSE\n" + "".join(f"{name},0.{place},1.{place}\n" for place, name in enumerate("ABCDEFG")),
        "id,age,bmi,children,loss\n" + "".join(f"{i},3{i},2{i}.5,1,{1000 * i}\n" for i in range(9)),
        "lr,dropout,val_loss,val_accuracy\n" + "".join(f"0.{i},0.5,1.{9 - i},0.{i}\n" for i in range(9)),
    ],
)
def test_tables_of_results_and_of_data_are_no_logs(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_text(content)
    assert not is_log(path)


def test_times_in_words_do_not_make_a_log_a_table_of_things(runs):
    (run,) = runs("when,loss\n" + "".join(f"2024-01-0{i} 10:00:00,{9 - i}\n" for i in range(1, 9)))
    assert column(run, "train_loss") == [9 - i for i in range(1, 9)]


def test_columns_in_another_language_are_understood(runs):
    (run,) = runs("轮次,训练损失,验证损失\n" + "".join(f"{i},{9 - i},{10 - i}\n" for i in range(1, 6)))
    assert run.steps.step.tolist() == [1, 2, 3, 4, 5]
    assert column(run, "val_loss") == [9, 8, 7, 6, 5]
