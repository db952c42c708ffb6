"""What explains what, and the verdict."""

import msgspec
import pytest

from lossdoctor.few_rows import FewRows
from lossdoctor.findings import Diagnosis, Finding, Undecided
from lossdoctor.runs.events import Intervention
from lossdoctor.verdicts import arrange, conclude, settle

EXPLANATIONS = {
    "cause": frozenset({"effect", "late"}),
    "effect": frozenset({"late"}),
    "harmless": frozenset({"effect"}),
}


def finding(rule, since=1.0, until=None, severity="warning", **more):
    return Finding(
        rule=rule,
        title=rule,
        family="stability",
        category=more.pop("category", "unstable"),
        severity=severity,
        clock="step",
        since=since,
        detected=since,
        until=until,
        message=f"{rule} happened",
        **more,
    )


def arranged(*findings, last_step=1000.0):
    return [(one.rule, one.explained_by) for one in arrange(findings, EXPLANATIONS, last_step)]


def concluded(*findings, **more):
    diagnosis = Diagnosis(run="r", verdict="undecided", category="undecided", summary="", **more)
    ordered = arrange(findings, EXPLANATIONS, 1000.0)
    return conclude(msgspec.structs.replace(diagnosis, findings=ordered), {"vital"})


def act(rule="cause", step=10.0, outcome="kept", settled=20.0):
    return Intervention(
        id=1, step=step, time=0, rule=rule, action="scale_lr", reason="...", outcome=outcome, settled=settled
    )


@pytest.mark.parametrize(
    ("finding_made", "intervention", "ended"),
    [
        (finding("cause", 5, 15), act(), True),
        (finding("effect", 5, 15), act(), True),
        (finding("other", 5, 15), act(), False),
        (finding("cause", 5, 25), act(), False),
        (finding("cause", 11, 15), act(), False),
        (finding("cause", 5), act(), False),
        (finding("cause", 5, 15), act(outcome="reverted"), False),
        (finding("cause", 5, 15), act(outcome="pending", settled=None), False),
        (finding("cause", 5, 15), act(settled=None), False),
    ],
    ids=[
        "its own",
        "its consequence",
        "another",
        "ends later",
        "begins later",
        "goes on",
        "reverted",
        "pending",
        "not settled",
    ],
)
def test_an_intervention_that_was_kept_settles_what_it_ended(finding_made, intervention, ended):
    (settled,) = settle([finding_made], [intervention], EXPLANATIONS)
    assert (settled.resolved, settled.severity) == ((True, "info") if ended else (False, "warning"))


def test_settling_leaves_what_is_harmless_harmless():
    assert settle([finding("cause", 5, 15, severity="benign")], [act()], EXPLANATIONS)[0].severity == "benign"


def test_nothing_is_arranged_to_nothing():
    assert arranged() == []


def test_a_consequence_is_folded_under_its_cause():
    assert arranged(finding("effect", 5), finding("cause", 3)) == [("cause", None), ("effect", "cause")]


def test_consequences_of_consequences_are_folded_under_the_first_cause():
    assert arranged(finding("late", 9), finding("effect", 5), finding("cause", 3)) == [
        ("cause", None),
        ("effect", "cause"),
        ("late", "cause"),
    ]


@pytest.mark.parametrize(
    ("cause", "effect", "explained"),
    [
        ((100, 200), (150, 300), True),
        ((100, 200), (500, 600), True),
        ((500, 600), (450, 460), True),
        ((500, 600), (400, 450), True),
        ((500, 600), (399, 450), False),
        ((500, 600), (100, None), True),
        ((500, None), (100, 200), False),
    ],
    ids=["overlap", "before", "detected late", "just in time", "too late", "goes on", "over long before"],
)
def test_a_cause_overlaps_its_consequence_or_began_no_later_than_a_tenth_of_the_run_after_it(cause, effect, explained):
    one = arranged(finding("cause", *cause), finding("effect", *effect))
    assert (("effect", "cause") in one) is explained


def test_what_has_resolved_itself_is_no_cause_of_what_has_not():
    over = {"severity": "info", "resolved": True}
    assert arranged(finding("cause", 1, 9, **over), finding("effect", 5)) == [("effect", None), ("cause", None)]
    assert ("effect", "cause") in arranged(finding("cause", 1, 9, **over), finding("effect", 5, 8, **over))
    harmless = finding("harmless", 1, 9, severity="benign", resolved=True)
    assert ("effect", "harmless") in arranged(harmless, finding("effect", 5))


def test_a_finding_that_nothing_explains_stands_alone():
    assert arranged(finding("other", 5), finding("cause", 3)) == [("cause", None), ("other", None)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (finding("b", 9, severity="error"), finding("a", 1)),
        (finding("a", 1), finding("b", 9)),
        (finding("a", 5), finding("b", 5)),
        (finding("a", 5), finding("b", 1, severity="info")),
        (finding("b", 9), finding("a", 1, severity="benign")),
    ],
    ids=["graver", "earlier", "id", "info", "benign"],
)
def test_causes_come_in_the_order_of_gravity_then_time_then_id(first, second):
    assert [rule for rule, _ in arranged(second, first)] == [first.rule, second.rule]


def test_a_cause_with_more_consequences_leads():
    found = arranged(finding("other", 1), finding("cause", 9), finding("effect", 9))
    assert found[0] == ("cause", None)


def test_a_cause_is_as_grave_as_what_it_explains():
    found = arranged(finding("other", 1), finding("cause", 9, severity="info"), finding("effect", 9, severity="error"))
    assert found[0] == ("cause", None)


def test_what_something_harmless_explains_drops_to_info_and_does_not_lead():
    found = arrange(
        [finding("harmless", 1, severity="benign"), finding("effect", 2, severity="error"), finding("other", 3)],
        EXPLANATIONS,
        1000.0,
    )
    assert [(one.rule, one.severity) for one in found] == [
        ("other", "warning"),
        ("harmless", "benign"),
        ("effect", "info"),
    ]


def test_between_two_causes_the_graver_one_explains():
    found = arranged(finding("harmless", 1, severity="benign"), finding("cause", 2), finding("effect", 3))
    assert ("effect", "cause") in found


def test_every_finding_is_kept_whatever_explains_it():
    many = [finding(rule, since) for rule in ("cause", "effect", "late", "other") for since in (1, 200, 900)]
    assert len(arranged(*many)) == len(many)


def test_the_verdict_is_the_leading_cause():
    diagnosis = concluded(finding("cause", category="invalid"), finding("effect", severity="error"))
    assert (diagnosis.verdict, diagnosis.category, diagnosis.summary) == ("cause", "invalid", "cause happened")


def test_info_and_benign_findings_leave_a_run_healthy():
    diagnosis = concluded(finding("a", severity="info"), finding("b", severity="benign"))
    assert (diagnosis.verdict, diagnosis.category) == ("healthy", "healthy")
    assert diagnosis.summary == "no rule found anything wrong"


def test_a_warning_that_something_harmless_explains_leaves_a_run_healthy():
    assert concluded(finding("harmless", severity="benign"), finding("effect")).verdict == "healthy"


def test_a_healthy_run_says_why():
    assert concluded(reasons=["the loss fell", "norms are calm"]).summary == "the loss fell; norms are calm"


def test_a_run_is_not_healthy_while_a_vital_rule_is_undecided():
    undecided = [Undecided(rule="vital", reason="no train_loss was recorded")]
    diagnosis = concluded(undecided=undecided)
    assert (diagnosis.verdict, diagnosis.category) == ("undecided", "undecided")
    assert diagnosis.summary == "no train_loss was recorded"
    assert concluded(undecided=[Undecided(rule="other", reason="...")]).verdict == "healthy"


def test_a_finding_outweighs_an_undecided_rule():
    assert concluded(finding("cause"), undecided=[Undecided(rule="vital", reason="...")]).verdict == "cause"


def test_a_run_that_was_treated_says_so():
    act = Intervention(id=1, step=5, time=0, rule="cause", action="scale_lr", reason="...")
    diagnosis = concluded(finding("cause", 1, 9, severity="info", resolved=True), interventions=[act], reasons=["calm"])
    assert diagnosis.summary == "after treatment of cause: calm"


def test_a_run_that_learned_nothing_is_not_called_healthy():
    silent = Diagnosis(run="", verdict="", category="undecided", summary="", reasons=["LR: constant 0.1"])
    assert conclude(silent, frozenset(), learned=True).verdict == "healthy"
    concluded = conclude(silent, frozenset(), learned=False)
    assert (concluded.verdict, concluded.category) == ("undecided", "undecided")
    assert "no loss fell" in concluded.summary


@pytest.mark.parametrize(("since", "explained_by"), [(540.0, "cause"), (560.0, None)])
def test_what_begins_half_a_run_later_is_no_cause_of_what_still_goes_on(since, explained_by):
    found = dict(arranged(finding("effect", 50.0), finding("cause", since)))
    assert found["effect"] == explained_by


@pytest.mark.parametrize(
    ("few", "missing", "found", "verdict"),
    [
        (FewRows("8 epochs", ""), [], [], "healthy"),
        (FewRows("8 epochs", "the loss rises"), [], [], "undecided"),
        (FewRows("8 epochs", ""), ["train_loss"], [], "undecided"),
        (FewRows("8 epochs", ""), [], [finding("gap", severity="info")], "undecided"),
        (FewRows("8 epochs", ""), [], [finding("harmless", severity="benign")], "healthy"),
        (FewRows("8 epochs", ""), [], [finding("cause")], "cause"),
        (None, [], [], "undecided"),
    ],
)
def test_few_rows_excuse_a_vital_rule_only_where_nothing_else_is_amiss(few, missing, found, verdict):
    undecided = [Undecided(rule="vital", reason="too short", missing=missing)]
    diagnosis = Diagnosis(
        run="r", verdict="undecided", category="undecided", summary="", findings=found, undecided=undecided
    )
    assert conclude(diagnosis, {"vital"}, learned=False, few=few).verdict == verdict
