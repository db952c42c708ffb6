"""What ranks agree upon: they come together or say who is missing, and nobody waits for one that has left."""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.distributed import PrefixStore, TCPStore

from lossdoctor.remedies import Policy
from lossdoctor.remedies.together import agreement
from lossdoctor.remedies.together.agreement import Agreement
from lossdoctor.remedies.together.exchange import LeftError
from lossdoctor.remedies.together.terms import Terms
from tests.remedies.patients import network


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(agreement, "_JOIN", timedelta(seconds=1.2))
    monkeypatch.setattr(agreement, "_LONG", timedelta(seconds=0.3))
    monkeypatch.setattr(agreement, "_LOOK", timedelta(seconds=0.2))


def ranks(world):
    first = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    stores = [first, *(TCPStore("127.0.0.1", first.port, wait_for_workers=False) for _ in range(world - 1))]
    return [Agreement(PrefixStore("here", store), rank, world) for rank, store in enumerate(stores)]


def at_once(ask, members):
    """What each member answers, all of them asked at the same time."""
    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(ask, members))


def joined(members, of):
    """What each member is told when all come with their terms."""
    brought = {one: of(one.rank) for one in members}
    return at_once(lambda one: one._join(brought[one]), members)


def terms(model=None, policy=None, *, total_steps=100, is_sharded=False):
    return Terms.of(model or network(), policy or Policy(), total_steps=total_steps, is_sharded=is_sharded)


def test_ranks_with_the_same_terms_come_together():
    found = joined(ranks(3), lambda _: terms())
    assert [(one.why_not, one.is_sharded) for one in found] == [("", False)] * 3


def test_all_know_that_parameters_are_sharded_on_one():
    found = joined(ranks(3), lambda rank: terms(is_sharded=rank == 2))
    assert [(one.why_not, one.is_sharded) for one in found] == [("", True)] * 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("missing", [0, 2])
def test_ranks_say_for_whom_they_wait_and_then_that_it_did_not_come(caplog, missing):
    members = ranks(3)
    with caplog.at_level(logging.WARNING):
        found = joined([one for one in members if one.rank != missing], lambda _: terms())
    assert len({one.why_not for one in found}) == 1
    assert found[0].why_not.startswith(f'rank {missing} made no Monitor with remediate="auto" within')
    assert "make one on every rank" in found[0].why_not
    waiting = [record.getMessage() for record in caplog.records]
    assert len(waiting) == 2
    assert all("waiting up to" in one and f"for rank {missing} to make a Monitor" in one for one in waiting)


@pytest.mark.usefixtures("impatient")
def test_a_rank_that_comes_too_late_is_told_what_was_decided():
    first, late = ranks(2)
    (early,) = joined([first], lambda _: terms())
    (told,) = joined([late], lambda _: terms())
    assert told == early
    assert told.why_not


def other_weights(rank):
    torch.manual_seed(rank)
    return nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (lambda rank: terms(nn.Linear(4, 2 + rank)), "different models"),
        (lambda rank: terms(other_weights(rank)), "the weights differ between ranks"),
        (lambda rank: terms(policy=Policy(budget=4 + rank)), "policy and total_steps are not the same"),
        (lambda rank: terms(policy=Policy(before_act=[None, print][rank])), "policy and total_steps"),
        (lambda rank: terms(total_steps=100 + rank), "policy and total_steps"),
    ],
)
def test_ranks_that_differ_are_not_treated_as_one(of, why):
    found = joined(ranks(2), of)
    assert all(why in one.why_not for one in found)


def test_shards_may_differ_and_the_order_of_allowed_actions_too():
    def of(rank):
        allowed = ["rewind", "skip_step"]
        return terms(other_weights(rank), Policy(actions=allowed[:: 1 - 2 * rank]), is_sharded=True)

    assert [one.why_not for one in joined(ranks(2), of)] == ["", ""]


def test_what_ranks_have_in_common():
    members = ranks(3)
    mine = [{1.0, 2.0, 3.0}, {2.0, 3.0}, {3.0, 2.0, 7.0}]
    assert at_once(lambda one: one.common(mine[one.rank]), members) == [{2.0, 3.0}] * 3
    assert at_once(lambda one: one.by_all(mine=True), members) == [True] * 3
    assert at_once(lambda one: one.by_all(mine=one.rank != 1), members) == [False] * 3
    assert at_once(lambda one: one.least(5 - one.rank), members) == [3] * 3
    assert at_once(lambda one: one.to_first(bytes([one.rank])), members) == [[b"\0", b"\1", b"\2"], [], []]
    assert at_once(lambda one: one.from_first(lambda: one.rank + 7), members) == [7] * 3


def test_nobody_waits_for_a_rank_that_has_left():
    members = ranks(2)
    members[1].leave()
    with pytest.raises(LeftError):
        members[0].common({1.0})


@pytest.mark.usefixtures("impatient")
def test_who_asks_alone_whether_weights_are_sound_is_answered_after_a_while(caplog):
    first, second = ranks(2)
    assert first.by_all_at(8.0, mine=True)
    assert "not every rank asks" in caplog.text
    assert at_once(lambda one: one.by_all_at(16.0, mine=one.rank == 0), [first, second]) == [False, False]
    assert at_once(lambda one: one.by_all_at(16.0, mine=True), [first, second]) == [True, True]
