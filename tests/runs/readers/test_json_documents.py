"""Documents of JSON: the Trainer's state, histories of Keras, lists of rows."""

import json
import math

import pytest
from hypothesis import given, settings

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import find_logs, is_log, logs_at, runs_of
from lossdoctor.runs.readers.registry import reader_of
from tests.runs.readers.fuzzing import damaged, read_or_refuse


@pytest.fixture
def runs(tmp_path):
    def read(document, name="trainer_state.json"):
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document, indent=2))
        assert reader_of(path) == "json_documents"
        return [run for log in logs_at(path) for run in runs_of(log)]

    return read


def column(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.columns[name].values[table.columns[name].mask()].tolist()


def trainer_state(**more):
    history = []
    for step in range(10, 110, 10):
        history.append(
            {"epoch": step / 100, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 3 - step / 100, "step": step}
        )
        if step % 50 == 0:
            history.append(
                {"epoch": step / 100, "eval_loss": 2.5, "eval_runtime": 7.0, "eval_accuracy": 0.5, "step": step}
            )
    history.append({"epoch": 1.0, "step": 100, "train_loss": 1.9, "train_runtime": 857.0, "total_flos": 6e20})
    return {
        "global_step": 100,
        "max_steps": 200,
        "num_train_epochs": 9223372036854775807,
        "log_history": history,
        **more,
    }


def test_a_trainers_rows_are_steps_and_evaluations_without_the_summary(runs):
    (run,) = runs(trainer_state())
    assert run.steps.step.tolist() == list(range(10, 110, 10))
    assert column(run, "train_loss")[-1] == 2
    assert run.evaluations.step.tolist() == [50, 100]
    assert column(run, "val_accuracy") == [0.5, 0.5]
    assert (run.info.total_steps, run.rows_are_means) == (200, True)


def test_a_loss_of_zero_beside_a_gradient_norm_that_is_nan_was_filtered(runs):
    state = trainer_state()
    for row in state["log_history"][6:]:
        if "loss" in row:
            row |= {"loss": 0.0, "grad_norm": math.nan}
    (run,) = runs(state)
    assert sum(map(math.isnan, column(run, "train_loss"))) == len(state["log_history"][6:]) - 2
    assert any(map(math.isnan, column(run, "grad_norm")))


def test_a_loss_that_really_is_zero_stays_zero(runs):
    state = trainer_state()
    for row in state["log_history"][8:]:
        if "loss" in row:
            row["loss"] = 0.0
    (run,) = runs(state)
    assert not any(map(math.isnan, column(run, "train_loss")))


def test_of_checkpoints_only_the_newest_counts_and_none_beside_the_trainers_own(tmp_path):
    for name in ("a/checkpoint-50", "a/checkpoint-100", "b/checkpoint-50", "b"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "trainer_state.json").write_text(json.dumps(trainer_state()))
    assert find_logs(tmp_path) == [tmp_path / "a/checkpoint-100/trainer_state.json", tmp_path / "b/trainer_state.json"]


@pytest.mark.parametrize(
    "document",
    [
        {"train_loss": [3, 2, 1], "val_loss": [4, 3, 2], "lr": [0.1, 0.1, 0.1]},
        {"loss": {"0": 3, "1": 2, "2": 1}, "val_loss": {"0": 4, "1": 3, "2": 2}},
        {"history": {"loss": [3, 2, 1], "val_loss": [4, 3, 2]}, "params": {"epochs": 3}},
        [
            {"epoch": 0, "loss": 3, "val_loss": 4},
            {"epoch": 1, "loss": 2, "val_loss": 3},
            {"epoch": 2, "loss": 1, "val_loss": 2},
        ],
    ],
    ids=["lists", "pandas", "wrapped", "rows"],
)
def test_histories_are_read_in_every_shape(runs, document):
    (run,) = runs(document, "history.json")
    assert column(run, "train_loss") == [3, 2, 1]
    assert column(run, "val_loss") == [4, 3, 2]


def test_a_validation_every_other_epoch_stands_at_its_epochs(runs):
    (run,) = runs({"loss": [6, 5, 4, 3, 2, 1], "val_loss": [3, 2, 1]}, "history.json")
    assert run.evaluations.step.tolist() == [2, 4, 6]


def test_bare_nan_is_read(runs):
    (run,) = runs('{"loss": [1.0, NaN, Infinity], "val_loss": [1, 2, null]}', "history.json")
    assert [math.isfinite(value) for value in column(run, "train_loss")] == [True, False, False]
    assert len(column(run, "val_loss")) == 2


@pytest.mark.parametrize(
    "content",
    ['{"log_history": []}', '{"log_history": 3}', '{"log_history": [', '{"a": "log_history"}', '{"loss": [1, "x"'],
)
def test_documents_without_rows_are_refused_in_one_line_with_their_path(tmp_path, content):
    path = tmp_path / "trainer_state.json"
    path.write_text(content)
    with pytest.raises(LogError, match=r"trainer_state\.json: ") as caught:
        logs_at(path)
    assert "\n" not in str(caught.value)


def test_configurations_are_no_logs(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"lr": 0.1, "layers": [1, 2], "loss": "mse", "epochs": 3}))
    assert not is_log(tmp_path / "config.json")


def test_deep_documents_are_refused(tmp_path):
    path = tmp_path / "trainer_state.json"
    path.write_text('{"log_history": ' + "[" * 100_000)
    with pytest.raises(LogError):
        logs_at(path)


@settings(max_examples=200, deadline=None)
@given(damaged(json.dumps(trainer_state()).encode()))
def test_no_file_can_break_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "trainer_state.json"
    path.write_bytes(content)
    read_or_refuse(path)


def test_two_models_side_by_side_are_two_trainings(tmp_path):
    columns = {
        "reg_loss": [3.0, 2.0, 1.0, 0.5],
        "reg_val_loss": [3.0, 2.5, 2.0, 1.5],
        "cls_accuracy": [0.5, 0.6],
        "cls_loss": [0.7, 0.6],
        "cls_val_loss": [0.7, 0.65],
    }
    path = tmp_path / "history.json"
    path.write_text(json.dumps(columns))
    regression, classifier = (run for log in logs_at(path) for run in runs_of(log))
    assert (regression.name, classifier.name) == ("reg", "cls")
    assert regression.steps.columns["train_loss"].values.tolist() == [3, 2, 1, 0.5]
    assert "train_accuracy" not in regression.steps.columns
    assert len(classifier.evaluations) == 2


def test_parts_of_one_loss_of_equal_length_are_one_training(tmp_path):
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"a_loss": [2, 1], "a_val_loss": [2, 1], "b_loss": [2, 1], "b_val_loss": [2, 1]}))
    (log,) = logs_at(path)
    assert set(log.series) == {"a_loss", "a_val_loss", "b_loss", "b_val_loss"}


def test_a_second_phase_is_not_joined_to_the_first(tmp_path):
    path = tmp_path / "history.json"
    columns = {"loss": [2, 1, 0.5], "val_loss": [2, 1, 0.6], "fine_tune_loss": [3, 2], "fine_tune_val_loss": [1, 0.9]}
    path.write_text(json.dumps(columns))
    assert [log.name for log in logs_at(path)] == ["main", "fine_tune"]


def test_every_fold_is_a_training(tmp_path):
    path = tmp_path / "history.json"
    fold = {"loss": [2, 1, 0.5], "val_loss": [2, 1, 0.6]}
    path.write_text(json.dumps({"fold_1": fold, "fold_2": fold, "settings": {"sizes": [1, 2]}}))
    assert [log.name for log in logs_at(path)] == ["fold_1", "fold_2"]


@pytest.mark.parametrize("inside_of_json", [True, False])
def test_a_dictionary_as_python_prints_it_is_a_history(tmp_path, inside_of_json):
    text = "{'loss': [1.5, np.float64(0.5), nan], 'val_loss': [2, None, 0.25], 'name': 'it is'}"
    path = tmp_path / "history.json"
    path.write_text(json.dumps(text) if inside_of_json else text)
    assert reader_of(path) == "json_documents"
    (log,) = logs_at(path)
    assert log.series["loss"].values.tolist()[:2] == [1.5, 0.5]
    assert math.isnan(log.series["loss"].values[2])


def test_python_that_is_no_dictionary_of_numbers_is_refused(tmp_path):
    path = tmp_path / "history.json"
    path.write_text("{'loss': [open('x')]}")
    with pytest.raises(LogError, match="not recognized"):
        logs_at(path)


def test_curves_by_names_that_say_nothing_are_read_when_somebody_says_which_is_the_loss(tmp_path):
    path = tmp_path / "history.json"
    path.write_text(json.dumps({"Model A": [3.0, 2.0, 1.0], "Model B": [3.0, 3.0, 3.0]}))
    with pytest.raises(LogError, match=r"Model A, Model B.*--map"):
        runs_of(logs_at(path)[0])
    (run,) = runs_of(logs_at(path)[0], {"train_loss": "Model A"})
    assert run.steps.columns["train_loss"].values.tolist() == [3, 2, 1]
