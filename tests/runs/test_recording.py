"""lossdoctor.runs.recording: attempts, ranks and resumes."""

import os

import pytest

from lossdoctor.errors import LogError, RunDirectoryError
from lossdoctor.runs import Mark, RunWriter, read_run
from tests.runs.recordings import abandon, child, info, record, rows, table


def test_a_fresh_writer_on_a_directory_with_a_run_begins_the_next_attempt(tmp_path):
    assert record(tmp_path / "x", rows(1, 3)) == tmp_path / "x"
    assert record(tmp_path / "x", rows(1, 4)) == tmp_path / "x" / "attempt-2"
    assert record(tmp_path / "x", rows(1, 5)) == tmp_path / "x" / "attempt-3"
    assert read_run(tmp_path / "x" / "attempt-3").info.attempt == 3


def test_the_newest_attempt_is_judged_and_the_others_are_named(tmp_path):
    for last in (3, 4, 5):
        record(tmp_path / "x", rows(1, last))
    run = read_run(tmp_path / "x")
    assert (run.name, len(run.steps), run.path) == ("x/attempt-3", 5, tmp_path / "x" / "attempt-3")
    root = tmp_path / "x"
    assert run.warnings == (f"{root}: 2 earlier attempts are not judged: {root}/attempt-1, {root}/attempt-2.",)


def test_every_attempt_can_be_read_by_its_name(tmp_path):
    for last in (3, 4, 5):
        record(tmp_path / "x", rows(1, last))
    read = [read_run(tmp_path / "x" / f"attempt-{number}") for number in (2, 3)]
    assert [(run.name, len(run.steps), run.warnings) for run in read] == [
        ("x/attempt-2", 4, ()),
        ("x/attempt-3", 5, ()),
    ]
    assert len(read_run(tmp_path / "x" / "attempt-1").steps) == 3
    with pytest.raises(LogError, match="attempt-4: no such file"):
        read_run(tmp_path / "x" / "attempt-4")


def test_a_fresh_attempt_closes_the_segments_a_killed_one_left(tmp_path):
    abandon(tmp_path, rows(1, 5))
    record(tmp_path, rows(1, 2))
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["00000.arrow"]
    assert len(read_run(tmp_path / "attempt-1").steps) == 5


def test_a_directory_with_somebody_elses_run_json_keeps_it(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert record(tmp_path, rows(1, 3)) == tmp_path / "attempt-2"
    assert (tmp_path / "run.json").read_text() == "{}"
    assert len(read_run(tmp_path).steps) == 3


def test_two_writers_on_one_directory_are_an_error_until_the_first_ends(tmp_path):
    first = RunWriter(tmp_path, info())
    with pytest.raises(RunDirectoryError, match=rf"{tmp_path} is being written by process {os.getpid()} on .*; wait"):
        RunWriter(tmp_path, info())
    with pytest.raises(RunDirectoryError, match="is being written"):
        RunWriter(tmp_path, info(), resume_step=1)
    first.close()
    record(tmp_path)
    assert len(list(tmp_path.glob("attempt-*"))) == 1


def test_two_processes_on_one_directory_are_an_error(tmp_path):
    program = "w = RunWriter(Path(sys.argv[1]), info())\nprint('up', flush=True)\ntime.sleep(60)"
    with child(program, tmp_path) as process:
        assert process.stdout.readline() == "up\n"
        with pytest.raises(RunDirectoryError, match=f"is being written by process {process.pid} on "):
            RunWriter(tmp_path, info())
        process.kill()
    assert record(tmp_path, rows(1, 2)) == tmp_path / "attempt-2"


def test_each_rank_writes_beside_the_others(tmp_path):
    writers = [RunWriter(tmp_path, info(), rank=rank) for rank in (2, 0, 1)]
    for writer in writers:
        writer.write(rows(1, 3 + writer.info.rank))
        writer.close()
    assert [writer.directory for writer in writers] == [tmp_path / "rank-2", tmp_path, tmp_path / "rank-1"]
    assert len(read_run(tmp_path).steps) == 3
    assert read_run(tmp_path).warnings == ()
    assert (read_run(tmp_path / "rank-2").name, len(read_run(tmp_path / "rank-2").steps)) == (
        f"{tmp_path.name}/rank-2",
        5,
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ranks_meet_in_the_same_attempt_whoever_comes_first(tmp_path, order):
    record(tmp_path, rows(1, 3))  # an earlier training on one device
    writers = [RunWriter(tmp_path, info(), rank=rank) for rank in order]
    for writer in writers:
        writer.close()
    assert {writer.info.attempt for writer in writers} == {2}
    again = [RunWriter(tmp_path, info(), rank=rank) for rank in order]
    for writer in again:
        writer.close()
    assert {writer.info.attempt for writer in again} == {3}


def test_a_resume_supersedes_rows_beyond_its_step(tmp_path):
    writer = RunWriter(tmp_path, info(2))
    first = rows(1, 100)
    writer.write(
        type(first)(first.steps, table(step=[50, 100], val_loss=[1, 2]), table(step=[50, 100], g=[[1, 1], [2, 2]]))
    )
    writer.event(Mark(name="epoch", step=100, time=1.0))
    writer.close()
    started = read_run(tmp_path).info.started

    writer = RunWriter(tmp_path, info(2), resume_step=60)
    writer.write(rows(61, 80))
    writer.close()
    run = read_run(tmp_path)
    assert writer.directory == tmp_path
    assert run.steps.step.tolist() == list(range(1, 81))
    assert run.evaluations.step.tolist() == [50]
    assert run.layers.step.tolist() == [50]
    assert [(mark.name, mark.step, mark.segment) for mark in run.marks] == [("epoch", 100, None), ("resume", 60, 1)]
    assert run.warnings == ()
    assert run.info.started == started


def test_a_second_resume_may_go_back_further_than_the_first(tmp_path):
    record(tmp_path, rows(1, 100))
    record(tmp_path, rows(91, 120, marker=1), resume_step=90)
    record(tmp_path, rows(51, 60, marker=2), resume_step=50)
    run = read_run(tmp_path)
    assert run.steps.step.tolist() == list(range(1, 61))
    assert run.steps.columns["marker"].mask().tolist() == [False] * 50 + [True] * 10
    record(tmp_path, rows(58, 59, marker=3), resume_step=57)
    assert read_run(tmp_path).steps.step.tolist() == list(range(1, 60))


def test_a_resume_continues_a_killed_run_with_all_it_had(tmp_path):
    abandon(tmp_path, rows(1, 5), rows(6, 9))
    record(tmp_path, rows(10, 12), resume_step=9)
    run = read_run(tmp_path)
    assert run.steps.step.tolist() == list(range(1, 13))
    assert run.warnings == ()


def test_a_resume_continues_the_newest_attempt(tmp_path):
    record(tmp_path, rows(1, 3))
    record(tmp_path, rows(1, 10))
    assert record(tmp_path, rows(6, 7), resume_step=5) == tmp_path / "attempt-2"
    assert len(read_run(tmp_path).steps) == 7


def test_a_resume_on_an_empty_directory_just_says_where_it_began(tmp_path):
    record(tmp_path, rows(51, 60), resume_step=50)
    run = read_run(tmp_path)
    assert run.steps.step.tolist() == list(range(51, 61))
    assert [(mark.step, mark.segment) for mark in run.marks] == [(50, 0)]


def test_a_checkpoint_loaded_before_any_step_continues_the_earlier_attempt(tmp_path):
    record(tmp_path, rows(1, 100))
    writer = RunWriter(tmp_path, info())
    assert writer.directory == tmp_path / "attempt-2"
    writer.event(Mark(name="epoch", step=0, time=1.0))
    writer.resume(60)
    assert (writer.directory, writer.info.attempt) == (tmp_path, 1)
    writer.write(rows(61, 70))
    writer.close()
    run = read_run(tmp_path)
    assert not (tmp_path / "attempt-2").exists()
    assert run.steps.step.tolist() == list(range(1, 71))
    assert [mark.name for mark in run.marks] == ["epoch", "resume"]
    assert run.warnings == ()


def test_a_checkpoint_loaded_in_the_middle_supersedes_this_attempts_own_rows(tmp_path):
    record(tmp_path, rows(1, 100))
    writer = RunWriter(tmp_path, info())
    writer.write(rows(1, 20))
    writer.resume(10)
    writer.write(rows(11, 12))
    writer.close()
    assert writer.directory == tmp_path / "attempt-2"
    assert read_run(tmp_path).steps.step.tolist() == list(range(1, 13))
    assert len(read_run(tmp_path / "attempt-1").steps) == 100


@pytest.mark.parametrize(
    "name", ["ein Lauf", "lr=1e-3,#%&'\"", "モデル", "new\nline", "attempt-2", "rank-1", "..x", "-f"]
)
def test_directories_may_have_any_name(tmp_path, name):
    record(tmp_path / name, rows(1, 3))
    run = read_run(tmp_path / name)
    assert (run.name, len(run.steps), run.warnings) == (name, 3, ())
    record(tmp_path / name, rows(1, 4))
    assert len(read_run(tmp_path / name).steps) == 4


def test_a_directory_name_may_be_undecodable(tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff")
    record(path, rows(1, 3))
    assert len(read_run(path).steps) == 3


def test_a_directory_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*file/x \(not a directory\); choose a run_dir"):
        RunWriter(tmp_path / "file" / "x", info())
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*file \(file exists\); choose a run_dir"):
        RunWriter(tmp_path / "file", info())
