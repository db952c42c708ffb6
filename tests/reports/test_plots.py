"""Plots: a file in each format, everything in it that should be, nothing heavy imported without need."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.errors import UsageError
from lossdoctor.reports.picture import picture_of
from lossdoctor.reports.plots import figure_of, save_plot
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.tables import Column, Run, Table
from tests.reports.strangers import strange_run

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture
def divergence(examples):
    diagnosis, run = examples["divergence"]
    return diagnosis, picture_of(run, diagnosis)


@pytest.mark.parametrize("suffix", SIGNATURES)
@pytest.mark.parametrize("paper", ["light", "dark"])
def test_a_plot_is_written_in_the_format_of_its_name(divergence, tmp_path, suffix, paper):
    save_plot(tmp_path / f"plot{suffix}", *divergence, paper=paper)
    assert (tmp_path / f"plot{suffix}").read_bytes().startswith(SIGNATURES[suffix])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_equal_runs_give_equal_files(divergence, tmp_path, suffix):
    for name in ("one", "two"):
        save_plot(tmp_path / f"{name}{suffix}", *divergence)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["plot.jpg", "plot", "missing/plot.png"])
def test_a_file_that_cannot_be_written_is_the_users_mistake(divergence, tmp_path, name):
    with pytest.raises(UsageError, match="--plot"):
        save_plot(tmp_path / name, *divergence)


def test_findings_are_named_at_their_onset_and_interventions_are_marked(divergence, tmp_path):
    figure = figure_of(*divergence)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("divergence") == 2, "once in the timeline, once where its evidence is drawn"
    assert "exploding_gradient (follows)" in words
    assert "loss_spike × 3 (follows)" in words
    labels = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
    assert "training: 5 × NaN or Inf" in labels


def test_texts_neither_overlap_each_other_nor_leave_the_figure(examples):
    diagnosis, run = examples["vanishing_gradient"]
    figure = figure_of(diagnosis, picture_of(run, diagnosis))
    figure.canvas.draw()
    everything = figure.get_window_extent()
    titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    titles += [text.get_window_extent() for text in figure.texts]
    titles += [axes._left_title.get_window_extent() for axes in figure.axes if axes.get_title(loc="left")]
    assert all(everything.x0 <= box.x0 and box.x1 <= everything.x1 for box in titles)
    assert not [1 for n, one in enumerate(titles) for two in titles[n + 1 :] if one.overlaps(two)]


def test_names_with_markup_and_formulas_are_drawn_as_they_are(tmp_path):
    run, diagnosis = strange_run()
    save_plot(tmp_path / "plot.svg", diagnosis, picture_of(run, diagnosis))
    content = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|style)[ >](?!.*stroke)", content)
    assert "\u202e" not in content


def test_a_run_without_anything_to_draw_is_a_plot_that_says_so(examples, tmp_path):
    run = Run("empty", Path("empty"), RunInfo())
    save_plot(tmp_path / "plot.png", examples["healthy"][0], picture_of(run))
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_million_steps_are_drawn_in_under_a_second(examples, tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        name: Column(rng.random(1_000_000, np.float32)) for name in ("train_loss", "grad_norm", "samples_per_second")
    }
    run = Run("long", Path("x"), RunInfo(), Table({"step": Column(np.arange(1e6)), **columns}))
    save_plot(tmp_path / "warm.png", *[examples["healthy"][0], picture_of(run)])
    begun = time.process_time()
    save_plot(tmp_path / "plot.png", examples["healthy"][0], picture_of(run))
    assert time.process_time() - begun < 1
