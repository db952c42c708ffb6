"""An act takes place on all ranks or on none."""

import pytest

from lossdoctor.remedies.together.exchange import LeftError
from lossdoctor.remedies.treatments import Treatment
from tests.remedies.patients import admit, same, values_of

BOTH = Treatment((("rewind", {}), ("scale_lr", {"factor": 0.5})))


def treated(agree):
    """A training that is rewound with half the learning rate, where `agree` speaks for the other ranks."""
    patient = admit("adam")
    patient.train(40)
    spread = []
    patient.remediator._patient.agree = agree
    patient.remediator._patient.spread = lambda: spread.append(values_of(patient.model))
    before = values_of(patient.model)
    try:
        done = patient.remediator._transactions.at_once("divergence", "now", BOTH, since=40.0)
    finally:
        treated.left = same(values_of(patient.model), before), patient.remediator.multipliers
    return patient, done, spread


def test_weights_are_spread_when_every_rank_has_put_them_back():
    patient, done, spread = treated(lambda done: done)
    assert done
    assert len(spread) == 1
    assert same(spread[0], values_of(patient.model))
    assert treated.left == (False, [0.5])


def test_an_act_that_failed_on_another_rank_is_undone_here(caplog):
    patient, done, spread = treated(lambda _: False)
    assert not done
    assert not spread
    assert treated.left == (True, [1.0])
    assert patient.outcomes == []
    assert "another rank" in caplog.text


def test_an_act_is_undone_where_a_rank_has_left():
    def left(_):
        raise LeftError

    with pytest.raises(LeftError):
        treated(left)
    assert treated.left == (True, [1.0])
