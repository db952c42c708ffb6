"""`analyze --plot` and `--format html`: files where they were asked for, mistakes said before anything is read."""

import pytest


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_run_is_drawn_beside_its_report(runs, call, suffix):
    code, out, _ = call("analyze", "runs/sound", "--plot", f"plot.{suffix}")
    assert code == 0
    assert "healthy" in out
    assert (runs.parent / f"plot.{suffix}").stat().st_size > 5000


def test_plots_of_several_runs_are_numbered(runs, call):
    call("analyze", "runs", "--plot", "plot.svg", "--dark")
    assert sorted(path.name for path in runs.parent.glob("plot*")) == ["plot-1.svg", "plot-2.svg"]
    assert "broken" in (runs.parent / "plot-1.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "why"), [("plot.jpg", ".png, .svg, .pdf"), ("no/plot.png", "no such directory")])
def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_read(runs, call, name, why):
    code, out, err = call("analyze", "runs/nowhere", "--plot", name)
    assert (code, out) == (2, "")
    assert why in err
    assert "nowhere" not in err


def test_a_page_is_written_and_the_verdict_said(runs, call):
    code, out, _ = call("analyze", "runs/broken", "--format", "html", "--output", "report.html")
    assert code == 1
    assert out.startswith("lossdoctor: verdict=non_finite_loss")
    page = (runs.parent / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert '<path class="line train' in page
    assert "What this means" in page


def test_a_page_of_several_runs_links_to_each(runs, call):
    _, out, _ = call("analyze", "runs", "--format", "html")
    assert '<a href="#run-1">runs/broken</a>' in out
    assert '<a href="#run-2">runs/sound</a>' in out
