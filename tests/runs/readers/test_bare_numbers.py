"""Files of nothing but numbers: what names them, which belong together, where another training begins."""

import math

import numpy as np
import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import find_logs, logs_at, runs_of
from lossdoctor.runs.readers.registry import reader_of

FALLING = [2.3 * math.exp(-row / 8) + 0.1 for row in range(40)]


def lines(values):
    return "".join(f"{value:.18e}\n" for value in values)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        lines(FALLING),
        str(FALLING),
        ", ".join(map(str, FALLING)),
        lines(FALLING).strip(),
        lines(FALLING[:-1]) + "nan\n",
    ],
)
@pytest.mark.parametrize("name", ["train_loss.txt", "losses.csv", "epoch_losses.json", "loss"])
def test_numbers_in_a_file_named_after_a_loss_are_that_loss(tmp_path, name, text):
    (log,) = logs_at(written(tmp_path / name, text))
    (series,) = log.series.values()
    assert series.values[:-1] == pytest.approx(FALLING[:-1])
    assert log.rows == 40


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("numbers.txt", lines(FALLING)),
        ("weights.csv", lines(FALLING)),
        ("loss.pt", lines(FALLING)),
        ("loss.txt", "0.31"),
        ("loss.txt", "2.1,2.2\n2.0,2.1\n"),
        ("loss.txt", "[[2.1, 2.0], [1.9, 1.8]]"),
        ("loss.txt", "2.1\nsee above\n"),
        ("train_loss.txt", "[tensor(2.1), tensor(2.0)]"),
        ("lr.txt", lines(FALLING)),
    ],
)
def test_other_numbers_and_other_names_are_not_taken(tmp_path, name, text):
    assert reader_of(written(tmp_path / name, text)) != "bare_numbers"


def test_files_as_long_as_each_other_are_one_training_whichever_is_named(tmp_path):
    train = written(tmp_path / "train_loss.txt", lines(FALLING))
    val = written(tmp_path / "val_loss.txt", lines(FALLING))
    written(tmp_path / "val_acc.txt", lines([0.5] * 40))
    written(tmp_path / "test_loss.txt", lines(FALLING[:5]))
    written(tmp_path / "other.txt", lines(FALLING))
    assert [path.name for path in find_logs(tmp_path)] == ["test_loss.txt", "train_loss.txt"]
    for path in (train, val):
        (log,) = logs_at(path)
        assert set(log.series) == {"train_loss", "val_loss", "val_acc"}


def test_a_loss_that_starts_over_is_of_another_training(tmp_path):
    twice = written(tmp_path / "train_loss.txt", lines([*FALLING[:20], *FALLING]))
    written(tmp_path / "train_acc.txt", lines([0.5] * 60))
    first, second = logs_at(twice)
    assert (first.rows, second.rows) == (20, 40)
    assert len(second.series["train_acc"].values) == 40
    assert "starts over at row 21" in second.warnings[0]


def test_trainings_that_learned_little_are_told_apart_by_how_much_the_loss_jumps(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.05, 150)
    values = [3.1 - 0.7 * (row % 50) / 50 + noise[row] for row in range(150)]
    assert [log.rows for log in logs_at(written(tmp_path / "loss.txt", lines(values)))] == [50, 50, 50]


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_is_as_large_as_what_was_learned_is_no_new_training(tmp_path, seed):
    values = 1.5 + 0.8 * np.random.default_rng(seed).standard_gamma(2, 400) / 2
    assert len(logs_at(written(tmp_path / "loss.txt", lines(values)))) == 1


@pytest.mark.parametrize(
    "values",
    [
        [*FALLING[:20], 2.4, *FALLING[20:]],
        [2.4 + (row % 3) for row in range(40)],
        [*FALLING, *(0.3 + row / 100 for row in range(40))],
        [-value for value in [*FALLING, *FALLING]],
    ],
)
def test_a_spike_noise_a_slow_rise_or_what_is_below_zero_is_no_new_training(tmp_path, values):
    assert len(logs_at(written(tmp_path / "loss.txt", lines(values)))) == 1


def test_two_numbers_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(LogError, match="log one for each step or epoch"):
        logs_at(written(tmp_path / "loss.txt", "2\n1\n"))


def test_any_length_of_what_is_not_bare_is_told_at_once(tmp_path):
    for text in ("1\n" + "\n" * 70_000 + "x", "1234567890123456 " * 4_000 + "x", "[" + "1, " * 30_000 + "x"):
        assert reader_of(written(tmp_path / "loss.txt", text)) != "bare_numbers" or len(text) > 65_536


def test_a_table_with_a_comment_for_its_header_is_read_by_it(tmp_path):
    rows = "".join(f"{row} {value:.6e} {value + 1:.6e}\n" for row, value in enumerate(FALLING))
    path = written(tmp_path / "curve.dat", f"# written by savetxt\n# epoch train_loss val_loss\n{rows}1 2\n")
    assert reader_of(path) is None  # a line that does not fit
    path = written(path, f"# written by savetxt\n# epoch train_loss val_loss\n{rows}")
    (log,) = logs_at(path)
    assert log.series["val_loss"].values == pytest.approx([value + 1 for value in FALLING], rel=1e-5)
    assert log.series["epoch"].values.tolist() == [*range(40)]


def test_a_table_without_names_can_be_read_by_who_says_what_its_columns_are(tmp_path):
    path = written(tmp_path / "log.txt", "".join(f"{row} {value} 0.5\n" for row, value in enumerate(FALLING)))
    assert find_logs(tmp_path) == []
    with pytest.raises(LogError, match=r"column 1, column 2, column 3\).*--map train_loss=COLUMN"):
        runs_of(logs_at(path)[0])
    (run,) = runs_of(logs_at(path)[0], {"train_loss": "column 2", "step": "column 1"})
    assert run.steps.columns["train_loss"].values == pytest.approx(FALLING)
    assert run.steps.step.tolist() == [*range(40)]


def test_what_of_a_table_is_no_row_is_left_out_with_a_warning(tmp_path):
    row = "0.125 0.25\n"
    path = written(tmp_path / "log.txt", "# step loss\n" + row * 7_000 + "0.125\n# a comment\n" + row)
    (log,) = logs_at(path)
    assert log.rows == 7_001
    assert "1 lines are not 2 numbers" in log.warnings[0]
