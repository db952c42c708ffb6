"""Episodes: since when a condition held, when that was long enough, until when; the same for any cut into blocks."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossdoctor.episodes import MAX_EPISODES, EpisodeTracker, Frozen

NAN = float("nan")


def array(text):
    """T is true, f false, ? undecided; a word for each layer, or one."""
    rows = [[{"T": 1.0, "f": 0.0, "?": NAN}[mark] for mark in word] for word in text.split()]
    return np.array(rows).T


def tracked(truth, patience=1, *, cuts=(), peak=None, grave=None, layered=False):
    truth = array(truth) if isinstance(truth, str) else truth
    tracker = EpisodeTracker(patience, layered=layered)
    peak = np.full(truth.shape, NAN) if peak is None else peak
    grave = np.full(truth.shape, NAN) if grave is None else grave
    began = []
    for begin, end in itertools.pairwise(sorted({0, len(truth), *cuts})):
        step = np.arange(begin + 1.0, end + 1.0)

        def freeze(tick, layer, step=step):
            return Frozen({"step": step[tick], "layer": float(layer)})

        rows = slice(begin, end)
        began += tracker.observe(step, truth[rows], peak=peak[rows], grave=grave[rows], freeze=freeze)
    return tracker, began


def plain(episodes):
    """Episodes as text, in which NaN equals NaN; the order of layers says nothing."""
    return [repr(replace(episode, layers=dict(sorted(episode.layers.items())))) for episode in episodes]


def spans(truth, patience=1, **more):
    tracker, _ = tracked(truth, patience, **more)
    return [(one.since, one.detected, one.until, one.over) for one in tracker.episodes]


@pytest.mark.parametrize(
    ("truth", "patience", "expected"),
    [
        ("fffff", 1, []),
        ("??T??", 1, [(3, 3, 3, False)]),
        ("ffTff", 1, [(3, 3, 3, True)]),
        ("fTTTf", 2, [(2, 3, 4, False)]),
        ("fTTTff", 2, [(2, 3, 4, True)]),
        ("fTfTfT", 2, []),
        ("fT?Tf", 2, [(2, 4, 4, False)]),
        ("fT?f?Tf", 2, []),
        ("TTfTff", 2, [(1, 2, 4, True)]),
        ("TTf?fT", 2, [(1, 2, 2, True)]),
        ("TTffTT", 2, [(1, 2, 2, True), (5, 6, 6, False)]),
        ("TTT", 1, [(1, 1, 3, False)]),
    ],
)
def test_an_episode_lasts_from_the_first_tick_of_a_streak_to_the_last_before_clear_ones(truth, patience, expected):
    assert spans(truth, patience) == expected
    assert spans(truth, patience, cuts=range(1, len(truth))) == expected


def test_what_a_rule_says_is_frozen_at_the_tick_that_completes_the_streak():
    tracker, began = tracked("fTTTT", 3)
    assert [episode.frozen.values["step"] for episode in tracker.episodes] == [4]
    assert began == tracker.episodes


def test_an_episode_is_grave_once_it_was_grave_while_it_held():
    for grave, expected in (("ffTff", True), ("fffff", False), ("Tffff", False), ("ffffT", False)):
        assert tracked("fTTTf", 2, grave=array(grave))[0].episodes[0].grave is expected


def test_the_peak_is_the_highest_while_the_condition_held():
    peak = np.array([[9.0], [1.0], [3.0], [2.0], [9.0]])
    assert tracked("fTTTf", 1, peak=peak)[0].episodes[0].peak == 3


def test_decided_ticks_are_counted():
    assert tracked("f?T?f")[0].decided == 3
    assert tracked("f?? ?f?")[0].decided == 2


def test_layers_share_an_episode_and_the_worst_comes_from_the_peak():
    peak = np.array([[1.0, 5.0, 2.0]] * 6)
    tracker, _ = tracked("fTTTff fTTfff ffffff", 2, peak=peak, layered=True)
    (episode,) = tracker.episodes
    assert (episode.since, episode.detected, episode.until, episode.over) == (2, 3, 4, True)
    assert episode.layers == {0: 1.0, 1: 5.0}
    assert episode.frozen.values["layer"] == 1


def test_a_layer_that_joins_later_prolongs_the_episode():
    tracker, _ = tracked("TTffff ffTTTT", 2, layered=True)
    (episode,) = tracker.episodes
    assert (episode.since, episode.until, episode.over) == (1, 6, False)
    assert {*episode.layers} == {0, 1}


def test_a_layers_own_peak_begins_when_it_fires_wherever_a_block_begins():
    peak = np.array([[1.0, 9.0], [1.0, 2.0], [1.0, 3.0]])
    for cuts in ([], [1], [2], [1, 2]):
        (episode,) = tracked("TTT TTT", 2, peak=peak, layered=True, cuts=cuts)[0].episodes
        assert episode.layers == {0: 1.0, 1: 3.0}


def test_only_the_first_episodes_and_the_latest_are_kept():
    text = "Tf" * 30
    for cuts in ([], range(1, 60), [37]):
        tracker, _ = tracked(text, cuts=cuts)
        assert tracker.count == 30
        assert len(tracker.episodes) == MAX_EPISODES
        assert [episode.number for episode in tracker.episodes] == [*range(1, MAX_EPISODES), 30]
        assert tracker.episodes[-1].since == 59
        assert all(episode.over for episode in tracker.episodes)


def test_an_episode_for_every_other_tick_costs_no_more_than_those_that_are_kept():
    truth = np.tile([[1.0], [0.0]], (50_000, 1))
    asked = []
    tracker = EpisodeTracker(1)
    unknown = np.full(truth.shape, NAN)
    tracker.observe(
        np.arange(100_000.0),
        truth,
        peak=unknown,
        grave=unknown,
        freeze=lambda tick, _: asked.append(tick) or Frozen({}),
    )
    assert tracker.count == 50_000
    assert len(asked) == MAX_EPISODES + 1


def test_a_run_without_layers_or_ticks_has_no_episodes():
    assert tracked(np.empty((0, 1)))[0].episodes == []
    assert tracked(np.empty((5, 0)), layered=True)[0].episodes == []


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2, 3]),
    st.lists(st.integers(1, 79), max_size=8),
)
def test_any_cut_into_blocks_gives_the_same_episodes(seed, ticks, layers, patience, cuts):
    rng = np.random.default_rng(seed)
    shape = (ticks, layers)
    truth = rng.choice([1.0, 0.0, NAN], shape, p=rng.dirichlet([1, 1, 0.5]))
    peak = np.where(rng.random(shape) < 0.2, NAN, rng.standard_normal(shape))
    grave = rng.choice([1.0, 0.0, NAN], shape)
    more = {"peak": peak, "grave": grave, "layered": layers > 1}
    whole, _ = tracked(truth, patience, **more)
    for at in ([cut for cut in cuts if cut < ticks], range(1, ticks)):
        cut, _ = tracked(truth, patience, cuts=at, **more)
        assert plain(cut.episodes) == plain(whole.episodes)
        assert (cut.count, cut.decided) == (whole.count, whole.decided)


def slow_spans(truth, patience):
    """The definition, tick by tick, for one layer."""
    found, streak, clear, since, going_on = [], 0, 0, None, False
    for step, value in enumerate(truth, start=1):
        if value == 1:
            since = step if streak == 0 else since
            streak, clear = streak + 1, 0
            if going_on:
                found[-1][2] = step
            elif streak >= patience:
                found.append([since, step, step, False])
                going_on = True
        elif value == 0:
            streak, clear = 0, clear + 1
            if going_on and clear >= patience:
                found[-1][3], going_on = True, False
    return [tuple(one) for one in found]


@settings(max_examples=100, deadline=None)
@given(st.text("Tf?", min_size=1, max_size=38), st.sampled_from([1, 2, 3]))
def test_episodes_follow_their_definition(text, patience):
    assert spans(text, patience) == slow_spans(array(text)[:, 0], patience)
