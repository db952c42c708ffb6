"""From prescriptions to treatments in order."""

from lossdoctor.findings import Prescription
from lossdoctor.remedies.treatments import LAST_RESORT, Treatment, began, is_treatable, ladder_of, treatments, urgency
from tests.remedies.patients import finding, prescribe


def test_only_safe_prescriptions_with_an_action_are_treatments():
    prescriptions = [
        Prescription(advice="look at the data"),
        Prescription(advice="", action="scale_lr", applicability="maybe", arguments={"factor": 0.1}),
        Prescription(advice="", action="scale_lr", applicability="safe", arguments={"factor": 0.5}),
    ]
    assert [one.name for one in treatments(prescriptions)] == ["scale_lr"]


def test_a_rewind_and_the_cut_after_it_are_one_treatment():
    prescriptions = [
        *prescribe(("rewind", {})),
        *prescribe(("scale_lr", {"factor": 0.5}), verify="ratio < 1", within=20),
        *prescribe(("scale_weight_decay", {"factor": 2.0})),
    ]
    both, other = treatments(prescriptions)
    assert both == Treatment((("rewind", {}), ("scale_lr", {"factor": 0.5})), "ratio < 1", 20)
    assert other.name == "scale_weight_decay"
    (only,) = treatments(prescribe(("rewind", {"factor": 0.3, "before": 80.0})))
    assert only.actions == (("rewind", {"before": 80.0}), ("scale_lr", {"factor": 0.3}))


def test_all_knobs_behind_a_rewind_belong_to_it_but_none_twice():
    cut, clip = ("scale_lr", {"factor": 0.5}), ("tighten_clipping", {"max_norm": 1.0})
    names = [one.name for one in treatments(prescribe(("rewind", {}), clip, cut, cut))]
    assert names == ["rewind+tighten_clipping+scale_lr", "scale_lr"]
    names = [one.name for one in treatments(prescribe(("rewind", {}), clip, ("rewind", {}), cut))]
    assert names == ["rewind+tighten_clipping", "rewind+scale_lr"]


def test_a_cut_before_a_rewind_is_one_of_its_own():
    names = [one.name for one in treatments(prescribe(("scale_lr", {"factor": 0.5}), ("rewind", {})))]
    assert names == ["scale_lr", "rewind"]


def test_an_unstable_run_gets_deeper_cuts_when_all_else_has_failed():
    ladder = treatments(prescribe(("rewind", {}), ("scale_lr", {"factor": 0.5})), unstable=True)
    factors = [dict(one.actions)["scale_lr"]["factor"] for one in ladder]
    assert factors == [0.5, 0.25, 0.0625, 0.00625]
    assert {one.name for one in ladder} == {"rewind+scale_lr"}
    (_, deeper, *_) = treatments(prescribe(("rewind", {"before": 80.0, "factor": 0.5})), unstable=True)
    assert deeper.actions == (("rewind", {"before": 80.0}), ("scale_lr", {"factor": 0.25}))
    assert len(treatments(prescribe(("tighten_clipping", {"max_norm": 1.0})), unstable=True)) == 1
    assert len(treatments(prescribe(("scale_lr", {"factor": 2.0})), unstable=True)) == 1


def test_deeper_cuts_of_a_fresh_start_warm_up_as_well_and_are_known_as_such():
    afresh = prescribe(("rewind", {"before": 1.0, "factor": 0.5}), ("warm_up_again", {"steps": 9.0}))
    ladder = treatments(afresh, unstable=True)
    assert {one.name for one in ladder} == {"rewind+scale_lr+warm_up_again"}
    assert [one.deeper for one in ladder] == [False, True, True, True]
    assert all(one.begins_afresh for one in ladder)
    assert not any(one.begins_afresh for one in treatments(prescribe(("rewind", {}), ("scale_lr", {"factor": 0.5}))))


def test_stopping_with_the_best_weights_is_the_last_resort_of_an_error_of_an_unstable_run_alone():
    cut = ("scale_lr", {"factor": 0.5})
    assert ladder_of(finding("a", cut, category="unstable"))[-1].actions is LAST_RESORT
    assert ladder_of(finding("a", cut, category="unstable", severity="warning"))[-1].name == "rewind+scale_lr"
    assert [one.name for one in ladder_of(finding("a", cut))] == ["scale_lr"]
    assert ladder_of(finding("a", category="unstable")) == []
    (only,) = ladder_of(finding("a", ("early_stop", {"to_step": 5.0}), category="unstable"))
    assert only.actions is not LAST_RESORT


def test_what_is_harmless_over_or_without_remedy_is_not_treated():
    cut = ("scale_lr", {"factor": 0.5})
    assert is_treatable(finding("a", cut, severity="warning"))
    assert not is_treatable(finding("a", cut, severity="info"))
    assert not is_treatable(finding("a"))
    import msgspec

    assert not is_treatable(msgspec.structs.replace(finding("a", cut), resolved=True))


def test_causes_come_first_then_the_gravest_then_the_earliest():
    import msgspec

    cut = ("scale_lr", {"factor": 0.5})
    consequence = msgspec.structs.replace(finding("d", cut, since=1), explained_by="c")
    findings = [
        consequence,
        finding("w", cut, severity="warning", since=2),
        finding("b", cut, since=9),
        finding("c", cut),
    ]
    assert [one.rule for one in sorted(findings, key=urgency)] == ["b", "c", "w", "d"]


def test_a_finding_on_intervals_began_in_the_interval_that_ended_at_its_since():
    cut = ("scale_lr", {"factor": 0.5})
    assert began(finding("a", cut, since=1000, clock="interval")) == 950
    assert began(finding("a", cut, since=10, clock="interval")) == 8
    assert began(finding("a", cut, since=10)) == 10
