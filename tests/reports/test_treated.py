"""What is said of a run that was treated."""

import msgspec

from lossdoctor.findings import Finding, Prescription
from lossdoctor.reports.treated import account
from lossdoctor.runs.events import Intervention

CUT = Intervention(
    id=1,
    step=160,
    time=0,
    rule="divergence",
    action="rewind+scale_lr",
    reason="it rose",
    changes={"lr_multiplier": (1.0, 0.3), "learning_rate": (0.1, 0.03)},
    outcome="kept",
    effect={"lost": (1.4, 0.05)},
)
CLIP = msgspec.structs.replace(
    CUT, id=2, step=90, rule="exploding_gradient", action="tighten_clipping", changes={}, outcome="reverted", effect={}
)


def finding(rule, *prescriptions, severity="warning"):
    return Finding(
        rule=rule,
        title=rule,
        family="stability",
        category="unstable",
        severity=severity,
        clock="step",
        since=1,
        detected=2,
        message="",
        prescriptions=list(prescriptions),
    )


def test_what_helped_is_told_with_its_numbers_and_what_did_not_as_undone():
    lines = dict(account([CLIP, CUT], []))
    assert lines["helped"] == "rewind+scale_lr at step 160 for divergence (lost 1.4 → 0.05)"
    assert lines["undone, as it did not help"] == "tighten_clipping at step 90 for exploding_gradient"
    assert "open when the run ended" not in lines


def test_a_standing_multiplier_is_left_for_the_person_to_write_down():
    assert "0.3 times" in dict(account([CUT], []))["left for you"]
    assert "left for you" not in dict(account([CLIP], []))
    undone = msgspec.structs.replace(CUT, outcome="reverted")
    assert "left for you" not in dict(account([undone], []))


def test_advice_that_no_action_stands_for_is_left_for_the_person():
    lower = Prescription(advice="Lower it.", action="scale_lr", applicability="safe", arguments={"factor": 0.3})
    data, other = Prescription(advice="Look at the data."), Prescription(advice="Add layers.")
    told = dict(account([CLIP], [finding("divergence", lower, data), finding("padding", other, severity="info")]))
    assert told["left for you"] == "Look at the data."


def test_of_an_untreated_run_and_a_dry_run_nothing_is_said():
    assert account([], []) == []
    assert account([msgspec.structs.replace(CUT, outcome="proposed")], []) == []
