"""The text report: what it says, and that nothing in a log can misuse it."""

import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len

from lossdoctor.findings import Diagnosis, Finding, Undecided
from lossdoctor.reports.finding import STYLES
from lossdoctor.reports.page import Page
from lossdoctor.reports.text import overview, render, verdict_line
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Run


def _finding(rule="divergence", **others):
    values = {
        "rule": rule,
        "title": "",
        "family": "stability",
        "category": "unstable",
        "severity": "error",
        "clock": "step",
        "since": 5.0,
        "detected": 7.0,
        "message": f"{rule} happened",
    }
    return Finding(**values | others)


def _diagnosis(*findings, **others):
    verdict = findings[0].rule if findings else "healthy"
    category = "unstable" if findings else "healthy"
    values = {
        "run": "runs/a",
        "verdict": verdict,
        "category": category,
        "summary": "",
        "steps": 10,
        "status": "finished",
    }
    return Diagnosis(**values | {"findings": list(findings)} | others)


def _lines(diagnosis, **page):
    return render(diagnosis, page=Page(**page)).plain.splitlines()


def test_every_report_is_what_its_snapshot_says(snapshots, snapshot_directory):
    for name, content in snapshots.items():
        assert (snapshot_directory / name).read_text(encoding="utf-8") == content, name
    assert {path.name for path in snapshot_directory.iterdir()} == {*snapshots}


@pytest.mark.parametrize("width", [60, 80, 97, 120])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_page(examples, width, unicode):
    for name, (diagnosis, run) in examples.items():
        if name != "hostile":
            lines = render(diagnosis, run, page=Page(width=width, unicode=unicode, verbose=True)).plain.splitlines()
            assert max(map(cell_len, lines)) <= width


def test_a_page_is_never_narrower_than_60_nor_wider_than_120_columns():
    assert [Page(width=width).columns for width in (1, 60, 100, 500)] == [60, 60, 100, 120]


def test_no_character_of_a_hostile_log_is_obeyed(examples):
    diagnosis, run = examples["hostile"]
    for page in (Page(), Page(verbose=True), Page(unicode=False)):
        for shown in (render(diagnosis, run, page=page), overview([diagnosis], page=page)):
            plain = shown.plain.replace("\n", "")
            assert {unicodedata.category(char) for char in plain}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
            assert "[bold" in plain
    assert verdict_line(diagnosis, named=True).isprintable()


def test_an_ascii_page_holds_only_ascii(examples):
    for diagnosis, run in examples.values():
        assert render(diagnosis, run, page=Page(unicode=False, verbose=True)).plain.isascii()


def test_further_episodes_of_a_cause_are_listed_under_the_first():
    spikes = [_finding("loss_spike", since=step, detected=step, until=step) for step in (3.0, 6.0, 8.0)]
    lines = _lines(_diagnosis(*spikes))
    assert sum(line.startswith("error[loss_spike]") for line in lines) == 1
    assert "  = again: step 6; step 8" in lines


def test_the_gravest_episode_stands_for_its_rule():
    lines = _lines(
        _diagnosis(
            _finding(severity="warning", since=3.0, until=4.0), _finding(severity="error", since=8.0, detected=8.0)
        )
    )
    assert "error[divergence]: divergence happened" in lines
    assert "  = again: steps 3 to 4 (detected at 7)" in lines


def test_consequences_are_folded_under_their_cause_and_counted():
    spikes = [_finding("loss_spike", since=step, explained_by="divergence") for step in (6.0, 8.0)]
    lines = _lines(_diagnosis(_finding(), *spikes))
    assert "  = explains: loss_spike (2 ×, since step 6)" in lines
    assert not any(line.startswith("error[loss_spike]") for line in lines)


def test_consequences_of_consequences_are_indented_deeper():
    chain = [_finding("loss_spike", explained_by="divergence"), _finding("plateau", explained_by="loss_spike")]
    lines = _lines(_diagnosis(_finding(), *chain))
    assert "  = explains: loss_spike (since step 5)" in lines
    assert "                plateau (since step 5)" in lines


def test_a_consequence_whose_cause_is_not_in_the_report_is_shown_in_full():
    lines = _lines(_diagnosis(_finding("loss_spike", explained_by="divergence"), verdict="loss_spike"))
    assert "error[loss_spike]: loss_spike happened" in lines


def test_rules_not_checked_for_the_same_reason_share_a_line():
    undecided = [Undecided(rule=rule, reason="no val_loss was recorded", missing=["val_loss"]) for rule in ("a", "b")]
    lines = _lines(_diagnosis(undecided=undecided))
    assert lines[-2:] == ["not checked (2):", "  - a, b: no val_loss was recorded"]


def test_a_missing_signal_that_the_reason_does_not_name_is_added():
    undecided = [Undecided(rule="a", reason="no evaluation", missing=["val_loss"])]
    assert _lines(_diagnosis(undecided=undecided))[-1] == "    decided by val_loss"


def test_a_finding_on_the_run_clock_says_so_instead_of_giving_steps():
    lines = _lines(_diagnosis(_finding(clock="run", since=10, detected=10)))
    assert lines[0] == "runs/a: divergence over the whole run (unstable)"
    assert " --> runs/a, the whole run (10 steps)" in lines


def test_evidence_is_cut_to_four_numbers_unless_verbose():
    evidence = {f"e{number}": float(number) for number in range(6)}
    assert sum(line.startswith("  | e") for line in _lines(_diagnosis(_finding(evidence=evidence)))) == 4
    assert sum(line.startswith("  | e") for line in _lines(_diagnosis(_finding(evidence=evidence)), verbose=True)) == 6


def test_the_overview_has_one_line_a_run():
    runs = [_diagnosis(run="a"), _diagnosis(_finding(), run="bb"), _diagnosis(run="c", verdict="undecided")]
    assert overview(runs).plain.splitlines() == [
        "ok         a   healthy",
        "error      bb  divergence since step 5 (unstable)",
        "undecided  c   undecided",
    ]


def test_the_verdict_line_is_one_line_of_key_value_pairs():
    line = "lossdoctor: verdict=divergence category=unstable severity=error since=5 findings=1 status=finished"
    assert verdict_line(_diagnosis(_finding())) == line
    assert verdict_line(_diagnosis(run="my run"), named=True).endswith(" findings=0 status=finished run=my run")


def test_colours_are_styles_and_never_characters(examples):
    diagnosis, run = examples["divergence"]
    report = render(diagnosis, run)
    assert report.spans
    assert "\x1b" not in report.plain


def test_the_gutter_alone_has_the_colour_of_the_gutter(examples):
    report = render(*examples["divergence"], page=Page(verbose=True))
    coloured = {report.plain[span.start : span.end] for span in report.spans if span.style == STYLES["gutter"]}
    assert {text.strip() for text in coloured} == {"|", "-->", "=", ""}


@pytest.mark.parametrize(
    ("rules", "verbose", "said"),
    [
        (1, False, "  - 1 rule needs what only a Monitor records (gradients, layers, batches): r0"),
        (4, False, "  - 4 rules need what only a Monitor records (gradients, layers, batches): r0, r1, r2, r3"),
        (5, False, "r0, r1, r2 and 2 more (-v names them)"),
        (5, True, "r0, r1, r2, r3, r4"),
    ],
)
def test_rules_that_need_a_recording_are_one_entry_in_the_report_on_a_log(rules, verbose, said):
    needy = [
        Undecided(rule=f"r{number}", reason=f"no layer_{number}", missing=["loss", "x"]) for number in range(rules)
    ]
    short = Undecided(rule="short", reason="no grad_norm was recorded", missing=["grad_norm"])
    diagnosis = _diagnosis(undecided=[*needy, short])
    log = Run(name="log", path=Path("log"), info=RunInfo(), read_as=("format: CSV",))
    lines = render(diagnosis, log, page=Page(width=120, verbose=verbose)).plain.splitlines()
    assert f"not checked ({rules + 1}):" in lines
    assert "  - short: no grad_norm was recorded" in lines
    assert lines[-1].endswith(said)


def test_a_verdict_on_little_says_what_it_is_worth():
    diagnosis = Diagnosis(
        run="log", verdict="healthy", category="healthy", summary="", worth="as far as 8 epochs tell", reasons=["calm"]
    )
    assert render(diagnosis).plain.splitlines()[0] == "log: healthy, as far as 8 epochs tell"
    assert overview([diagnosis]).plain == "ok         log  healthy, as far as 8 epochs tell"
