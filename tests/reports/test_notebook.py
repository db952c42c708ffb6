"""What a notebook shows, and what a prompt prints: short, still, and without a script."""

import re

from lossdoctor.reports.notebook import recording_html
from lossdoctor.runs import RunWriter
from lossdoctor.runs.tables import Block


def test_a_diagnosis_shows_its_verdict_and_its_findings(examples):
    shown = examples["divergence"][0]._repr_html_()
    assert "Divergence" in shown
    assert "exploding_gradient" in shown or "Exploding gradient" in shown
    assert "<script" not in shown


def test_a_run_shows_its_curves_unjudged(examples):
    shown = examples["divergence"][1]._repr_html_()
    assert re.search(r'<path class="line train[^>]* d="M', shown)
    assert "<script" not in shown
    assert "Undecided" not in shown


def test_a_prompt_prints_a_line(examples):
    diagnosis, run = examples["divergence"]
    assert repr(diagnosis).startswith("<Diagnosis of 'runs/lr 0.3': divergence (unstable); divergence since 412,")
    assert repr(run) == "<Run 'runs/lr 0.3': 980 steps, 0 evaluations, 0 layer samples, finished>"
    assert repr(examples["hostile"][0]).isprintable()


def test_a_recording_is_shown_while_it_is_written(examples, tmp_path):
    diagnosis, run = examples["divergence"]
    writer = RunWriter(tmp_path / "run", run.info)
    writer.write(Block(run.steps))
    writer.flush(wait=True)
    for judged in (None, diagnosis):
        shown = recording_html(tmp_path / "run", judged)
        assert '<path class="line train' in shown
        assert ("Divergence" in shown) == (judged is not None)
    writer.close()
