"""Directories of event files: splits, restarts, tags that count differently."""

import numpy as np
import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import find_logs, logs_at, runs_of
from tests.runs.readers.eventfile_writer import event, event_file, framed, header


def runs(path):
    return [run for log in logs_at(path) for run in runs_of(log)]


def losses(run):
    return run.steps.columns["train_loss"].values.tolist()


def test_a_directory_and_its_only_file_are_the_same_run(tmp_path):
    path = event_file(tmp_path / "run", *(event(s, loss=1 / (s + 1)) for s in range(10)))
    assert find_logs(tmp_path) == [tmp_path / "run"]
    (by_directory,), (by_file,) = logs_at(tmp_path / "run"), logs_at(path)
    assert by_directory.series["loss"].values.tolist() == by_file.series["loss"].values.tolist()


def test_keras_directories_of_splits_are_one_run_with_evaluations(tmp_path):
    event_file(tmp_path / "train", *(event(s, 1e9 + s, epoch_loss=2.0 - s / 10) for s in range(10)))
    event_file(tmp_path / "validation", *(event(s, 1e9 + s + 0.5, epoch_loss=2.1 - s / 10) for s in range(10)))
    assert find_logs(tmp_path) == [tmp_path]
    (run,) = runs(tmp_path)
    assert (len(run.steps), len(run.evaluations)) == (10, 10)
    assert run.evaluations.columns["val_loss"].values[0] == np.float32(2.1)


def test_scalars_added_together_are_one_run(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(10):
            writer.add_scalar("lr", 0.1, step)
            writer.add_scalars("loss", {"train": 1.0, "val": 2.0}, step)
    assert find_logs(tmp_path) == [tmp_path]
    (run,) = runs(tmp_path)
    assert losses(run) == [1.0] * 10
    assert run.evaluations.columns["val_loss"].values.tolist() == [2.0] * 10


def test_a_second_file_that_begins_again_is_another_attempt(tmp_path):
    event_file(tmp_path, *(event(s, 1e9 + s, lr=0.1, loss=5.0) for s in range(30)), stamp=1_700_000_000)
    event_file(tmp_path, *(event(s, 2e9 + s, lr=0.2, loss=4.0) for s in range(20)), stamp=1_700_000_500)
    first, second = logs_at(tmp_path)
    assert (first.name, second.name) == ("attempt 1", "attempt 2")
    assert (losses(*runs_of(first)), losses(*runs_of(second))) == ([5.0] * 30, [4.0] * 20)
    assert second.series["lr"].values.tolist() == pytest.approx([0.2] * 20)


def test_a_second_file_that_goes_on_resumes_the_first(tmp_path):
    event_file(tmp_path, *(event(s, 1e9 + s, loss=5.0) for s in range(30)), stamp=1_700_000_000)
    event_file(tmp_path, *(event(s, 2e9 + s, loss=4.0) for s in range(30, 50)), stamp=1_700_000_500)
    (run,) = runs(tmp_path)
    assert run.steps.step.tolist() == list(range(50))


def test_a_second_file_that_goes_back_to_a_checkpoint_supersedes_what_was_beyond(tmp_path):
    event_file(tmp_path, *(event(s, 1e9 + s, loss=5.0) for s in range(30)), stamp=1_700_000_000)
    event_file(tmp_path, *(event(s, 2e9 + s, loss=4.0) for s in range(25, 50)), stamp=1_700_000_500)
    (run,) = runs(tmp_path)
    assert losses(run) == [5.0] * 25 + [4.0] * 25
    assert [mark.name for mark in run.marks] == ["resume"]


def test_validation_that_counts_epochs_is_laid_beside_steps_by_wall_time(tmp_path):
    events = []
    for step in range(1000):
        events.append(event(step, 1e9 + step, loss__train=1.0))
        if step % 100 == 99:
            events.append(event(step // 100, 1e9 + step + 0.1, loss__val=2.0))
    event_file(tmp_path, *events)
    (run,) = runs(tmp_path)
    assert run.steps.step.tolist() == list(range(1000))
    assert run.evaluations.step.tolist() == list(range(99, 1000, 100))


def test_steps_counted_anew_in_every_epoch_go_on(tmp_path):
    values = np.linspace(3, 1, 200)
    events = [event(i % 50, 1e9 + i, loss=float(value)) for i, value in enumerate(values)]
    event_file(tmp_path, *events)
    (run,) = runs(tmp_path)
    assert losses(run) == pytest.approx(values, rel=1e-6)
    assert run.steps.step.tolist() == list(range(200))


def test_several_values_of_a_step_are_their_mean(tmp_path):
    event_file(tmp_path, *(event(s // 4, 1e9 + s, val__accuracy=s % 4 / 4) for s in range(40)))
    (log,) = logs_at(tmp_path)
    assert log.series["val/accuracy"].values.tolist() == [0.375] * 10


def test_a_file_without_scalars_says_so(tmp_path):
    path = event_file(tmp_path, framed(b""))
    with pytest.raises(LogError, match="no scalar among them"):
        logs_at(path)


def test_a_pointer_of_git_lfs_is_called_by_its_name(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    with pytest.raises(LogError, match="Git LFS pointer"):
        logs_at(path)


def test_damage_is_a_warning_and_the_rest_is_read(tmp_path):
    path = event_file(tmp_path, *(event(s, loss=1.0) for s in range(10)))
    path.write_bytes(path.read_bytes() + b"\x01" * 100)
    (log,) = logs_at(path)
    assert log.rows == 10
    assert "no records any more; the rest was read" in log.warnings[0]


def test_profiles_are_no_logs(tmp_path):
    (tmp_path / "events.out.tfevents.1.host.profile-empty").write_bytes(header())
    assert find_logs(tmp_path) == []
