"""Following a run while it is written: nothing is missed, nothing comes twice, and what is void is taken back."""

import numpy as np
import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs import Block, RunWriter, read_run
from lossdoctor.runs.following import Follower
from lossdoctor.runs.segments import SEGMENT_ROWS
from tests.runs.recordings import info, record, rows, table

COLUMNS = {"train_loss", "val_loss", "time", "grad_norm"}


def _steps(news):
    return np.concatenate([one.block.steps.step for one in news])


def _write(writer, *blocks):
    for block in blocks:
        writer.write(block)
    writer.flush(wait=True)


def test_a_finished_run_comes_in_one_look(tmp_path):
    record(tmp_path / "run", rows(1, 30), Block(evaluations=table(step=[10.0, 30.0], val_loss=[1.0, 2.0])))
    news = Follower(tmp_path / "run", COLUMNS).look()
    assert (news.live, news.restarted) == (False, True)
    assert news.block.steps.step.tolist() == list(range(1, 31))
    assert news.block.evaluations.step.tolist() == [10, 30]


def test_rows_are_handed_out_at_the_look_after_the_one_that_found_them(tmp_path):
    writer = RunWriter(tmp_path / "run", info())
    follower = Follower(tmp_path / "run", COLUMNS)
    _write(writer, rows(1, 10))
    first, second = follower.look(), follower.look()
    assert len(first.recent.steps) == 10
    assert len(first.block.steps) == 0
    assert len(second.recent.steps) == 0
    assert second.block.steps.step.tolist() == list(range(1, 11))
    writer.close()
    assert len(follower.look().block.steps) == 0


@pytest.mark.parametrize("size", [1, 37, 700, SEGMENT_ROWS])
def test_growing_closing_and_rewriting_of_segments_repeat_and_lose_no_row(tmp_path, size):
    total = 3 * SEGMENT_ROWS if size > 100 else 600 * size
    writer = RunWriter(tmp_path / "run", info())
    follower = Follower(tmp_path / "run", COLUMNS)
    news = []
    for begin in range(1, total + 1, size):
        _write(writer, rows(begin, min(begin + size - 1, total)))
        if begin % 3:
            news.append(follower.look())
    writer.close()
    news.append(follower.look())
    assert _steps(news).tolist() == list(range(1, total + 1))
    losses = np.concatenate([one.block.steps.columns["train_loss"].values for one in news if len(one.block.steps)])
    assert np.array_equal(losses, read_run(tmp_path / "run").steps.columns["train_loss"].values)


def test_a_new_column_begins_a_new_segment_and_is_unobserved_before(tmp_path):
    writer = RunWriter(tmp_path / "run", info())
    follower = Follower(tmp_path / "run", COLUMNS)
    _write(writer, rows(1, 5))
    follower.look()
    _write(writer, rows(6, 9, grad_norm=2.0))
    follower.look()
    block = follower.look().block
    assert block.steps.step.tolist() == [6, 7, 8, 9]
    assert block.steps.columns["grad_norm"].values.tolist() == [2.0] * 4
    writer.close()


def test_an_evaluation_comes_with_its_steps_not_before(tmp_path):
    writer = RunWriter(tmp_path / "run", info())
    follower = Follower(tmp_path / "run", COLUMNS)
    _write(writer, rows(1, 10))
    follower.look()
    _write(writer, Block(evaluations=table(step=[10.0], val_loss=[1.0])))
    assert follower.look().block.evaluations.step.tolist() == [10]
    _write(writer, Block(rows(11, 20).steps, table(step=[20.0], val_loss=[0.5])))
    assert len(follower.look().block.evaluations) == 0
    assert follower.look().block.evaluations.step.tolist() == [20]
    writer.close()


def test_a_row_that_comes_too_late_makes_it_begin_again(tmp_path):
    writer = RunWriter(tmp_path / "run", info())
    follower = Follower(tmp_path / "run", COLUMNS)
    _write(writer, rows(1, 10))
    follower.look()
    assert len(follower.look().block.steps) == 10
    _write(writer, Block(evaluations=table(step=[5.0], val_loss=[1.0])))
    assert follower.look().restarted
    looks = [follower.look() for _ in range(3)]
    assert not any(look.restarted for look in looks)
    assert _steps(looks).tolist() == list(range(1, 11))
    assert sum(len(look.block.evaluations) for look in looks) == 1
    writer.close()


def test_a_resume_takes_back_the_rows_beyond_it(tmp_path):
    writer = RunWriter(tmp_path / "run", info())
    follower = Follower(tmp_path / "run", COLUMNS)
    _write(writer, rows(1, 30))
    follower.look()
    assert len(follower.look().block.steps) == 30
    writer.resume(20)
    _write(writer, rows(21, 25))
    again = follower.look()
    assert again.restarted
    writer.close()
    assert _steps([again, follower.look()]).tolist() == read_run(tmp_path / "run").steps.step.tolist()


def test_a_new_attempt_takes_the_place_of_the_old_one(tmp_path):
    record(tmp_path / "run", rows(1, 30))
    follower = Follower(tmp_path / "run", COLUMNS)
    follower.look()
    record(tmp_path / "run", rows(1, 7))
    news = follower.look()
    assert news.restarted
    assert len(news.block.steps) == 7


def test_a_torn_tail_is_read_once_it_is_whole(tmp_path):
    writer = RunWriter(tmp_path / "run", info())
    _write(writer, rows(1, 5))
    _write(writer, rows(6, 9))
    path = next((tmp_path / "run/steps").glob("*.open.arrow"))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    follower = Follower(tmp_path / "run", COLUMNS)
    assert len(follower.look().recent.steps) == 5
    path.write_bytes(content)
    assert follower.look().recent.steps.step.tolist() == [6, 7, 8, 9]
    writer.close()


def test_ranks_are_combined_as_in_a_run_read_at_once(tmp_path):
    writers = [RunWriter(tmp_path / "run", info(world_size=2), rank=rank) for rank in range(2)]
    follower = Follower(tmp_path / "run", COLUMNS)
    news = []
    for begin in range(1, 60, 10):
        for rank, writer in enumerate(writers):
            if rank == 0 or begin < 50:  # one rank is behind
                _write(writer, rows(begin, begin + 9, grad_norm=1.0 + rank))
        news.append(follower.look())
    _write(writers[1], rows(51, 60, grad_norm=2.0))
    for writer in reversed(writers):
        writer.close()
    news.append(follower.look())
    whole = read_run(tmp_path / "run")
    assert _steps(news).tolist() == whole.steps.step.tolist()
    spreads = [one.block.steps.columns["rank_grad_norm_spread"] for one in news if len(one.block.steps)]
    assert np.array_equal(
        np.concatenate([spread.values for spread in spreads]),
        whole.steps.columns["rank_grad_norm_spread"].values,
    )


def test_where_there_is_no_run_it_says_so(tmp_path):
    with pytest.raises(LogError, match="no such file"):
        Follower(tmp_path / "nowhere", COLUMNS).look()
