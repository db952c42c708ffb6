"""The live view: one screen, and a line for every change."""

import msgspec
import numpy as np
import pytest
from rich.cells import cell_len

from lossdoctor.findings import Diagnosis
from lossdoctor.reports.live import LiveView, changes, render
from lossdoctor.reports.page import Page
from lossdoctor.reports.trace import Trace


def _trace(values):
    trace = Trace()
    trace.add(np.arange(1.0, len(values) + 1), np.asarray(values, dtype=float))
    return trace


def _view(diagnosis, **others):
    traces = {"train_loss": _trace(np.linspace(2, 1, 200)), "samples_per_second": _trace(np.full(50, 123456.0))}
    given = {"status": "running", "step": 400.0, "total_steps": 1000, "rate": 20.0, "age": 0.4, "traces": traces}
    return LiveView(diagnosis=diagnosis, **(given | others))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_page(examples, width, unicode):
    for diagnosis, _ in examples.values():
        text = render(_view(diagnosis), page=Page(width, unicode=unicode)).plain
        assert max(map(cell_len, text.splitlines())) <= width
        assert unicode or text.isascii()


def test_the_head_tells_progress_rate_and_what_is_left(examples):
    lines = render(_view(examples["healthy"][0])).plain.splitlines()
    assert lines[0] == "runs/baseline: running  step 400 of 1,000 (40%), 20 steps/s, 30 s left"
    assert lines[1].strip() == "last record 0.4 s ago"
    assert lines[2] == "verdict: healthy so far"


def test_an_old_record_is_a_question(examples):
    assert "3 min ago; is it still training?" in render(_view(examples["healthy"][0], age=180.0)).plain
    assert "is it still training" not in render(_view(examples["healthy"][0], age=180.0, rate=0.05)).plain


def test_findings_come_causes_first_with_their_first_fix(examples):
    diagnosis, _ = examples["divergence"]
    text = render(_view(diagnosis)).plain
    assert "error[divergence]: since step 412: " in text
    assert f"help: {diagnosis.findings[0].prescriptions[0].advice[:20]}" in text
    assert "explains: " in text


def test_a_low_screen_shows_the_head_and_the_curves_first(examples):
    lines = render(_view(examples["divergence"][0]), rows=10).plain.splitlines()
    assert len(lines) <= 10
    assert lines[-1].strip() == "… more in lossdoctor analyze"
    assert any(line.startswith("  train_loss") for line in lines)


def test_a_curve_shows_its_last_value_its_range_and_nan(examples):
    broken = _trace([1.0, 2.0, np.nan])
    text = render(_view(examples["healthy"][0], traces={"train_loss": broken})).plain
    assert "nan  1 to 2, NaN" in text
    never = render(_view(examples["healthy"][0], traces={"val_loss": _trace([np.nan])})).plain
    assert "never finite" in never
    flat = render(_view(examples["healthy"][0])).plain
    assert "constant" in flat
    assert "samples/s" in flat


def test_nothing_recorded_is_said():
    view = LiveView(
        diagnosis=Diagnosis(run="r", verdict="undecided", category="undecided", summary=""), status="running"
    )
    assert "nothing was recorded yet" in render(view).plain


def test_a_log_has_a_line_for_what_began_what_ended_and_the_verdict(examples):
    diagnosis, _ = examples["divergence"]
    empty = msgspec.structs.replace(diagnosis, findings=[], verdict="healthy")
    first = changes(None, _view(empty))
    assert first == ["step 400: verdict=healthy status=running"]
    began = changes(_view(empty), _view(diagnosis))
    assert began[0].startswith("step 412: error[divergence]: ")
    assert " help: " in began[0]
    assert began[-1] == "step 400: verdict=divergence status=running"
    assert changes(_view(diagnosis), _view(diagnosis)) == []
    over = [msgspec.structs.replace(diagnosis.findings[0], resolved=True, until=450.0), *diagnosis.findings[1:]]
    ended = changes(_view(diagnosis), _view(msgspec.structs.replace(diagnosis, findings=over)))
    assert ended == ["step 450: divergence resolved"]
