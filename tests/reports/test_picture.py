"""Pictures: what is drawn of a run, and what is left out as there is nothing to see."""

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lossdoctor.reports.heat import BAD, NONE, ZERO, elided, heat_maps
from lossdoctor.reports.picture import picture_of
from lossdoctor.runs.events import Intervention, Mark
from lossdoctor.runs.info import LayerInfo, ModelInfo, RunInfo
from lossdoctor.runs.tables import Column, Run, Table


def table(step, **columns):
    return Table({"step": Column(np.asarray(step, float)), **{name: _column(of) for name, of in columns.items()}})


def _column(values):
    return values if isinstance(values, Column) else Column(np.asarray(values, np.float32))


def layers(*names):
    return ModelInfo(layers=[LayerInfo(name=name, type="Linear", parameters=1, trainable=1) for name in names])


def test_panels_without_data_are_left_out(examples):
    panels = picture_of(examples["divergence"][1]).panels
    assert [panel.key for panel in panels] == ["loss"]


def test_nothing_recorded_is_a_picture_without_panels():
    picture = picture_of(Run("empty", Path("empty"), RunInfo()))
    assert not picture.panels
    assert not picture.heat
    assert picture.last > picture.first


def test_values_that_are_no_numbers_are_marks_not_gaps_in_knowledge(examples):
    curve = picture_of(examples["divergence"][1]).panels[0].lines[0].curve
    assert curve.non_finite_rows == 5
    assert len(curve.non_finite)


def test_a_second_curve_is_drawn_only_where_gradients_were_clipped():
    norm = np.linspace(1, 2, 50)
    run = Run("x", Path("x"), RunInfo(), table(range(50), grad_norm=norm, grad_norm_clipped=norm))
    assert len(picture_of(run).panels[0].lines) == 1
    run = Run("x", Path("x"), RunInfo(), table(range(50), grad_norm=norm, grad_norm_clipped=np.minimum(norm, 1.5)))
    assert [line.label for line in picture_of(run).panels[0].lines] == ["before clipping", "after clipping"]


def test_throughput_is_counted_in_what_was_recorded():
    seconds = np.full(20, 0.5)
    for columns, unit, rate in (({}, "steps/s", 2.0), ({"tokens": np.full(20, 100)}, "tokens/s", 200.0)):
        run = Run("x", Path("x"), RunInfo(), table(range(20), step_time=seconds, **columns))
        (panel,) = picture_of(run).panels
        assert panel.unit == unit
        assert panel.lines[0].curve.values[0] == pytest.approx(rate)


def test_skipped_updates_are_marked_at_the_loss_scale():
    skipped = np.zeros(30)
    skipped[[3, 4]] = 1
    run = Run("x", Path("x"), RunInfo(), table(range(30), loss_scale=np.full(30, 1024.0), skipped=skipped))
    (panel,) = picture_of(run).panels
    assert (panel.marks.tolist(), panel.marks_rows) == ([3.0, 4.0], 2)


def test_evidence_that_no_panel_shows_gets_one_of_its_own(examples):
    diagnosis, run = examples["divergence"]
    run = Run("x", Path("x"), RunInfo(), table(range(1, 981), data_wait=np.ones(980)))
    finding = msgspec.structs.replace(diagnosis.findings[0], evidence_signal="data_wait")
    picture = picture_of(run, msgspec.structs.replace(diagnosis, findings=[finding]))
    assert [panel.title for panel in picture.panels] == ["Data wait"]


def test_epochs_the_best_evaluation_and_interventions_are_in_the_picture():
    act = Intervention(id=1, step=5, time=0, rule="divergence", action="scale_lr", reason="")
    run = Run(
        "x",
        Path("x"),
        RunInfo(),
        table(range(1, 31), train_loss=np.ones(30)),
        evaluations=table([10, 20, 30], val_loss=[3.0, 1.0, np.nan]),
        interventions=(act,),
        marks=tuple(Mark(name="epoch", step=step, time=0) for step in (0, 10, 20)),
    )
    picture = picture_of(run)
    assert picture.epochs == (10, 20)
    assert (picture.best.step, picture.best.value) == (20, 1)
    assert picture.interventions == (act,)


def test_epochs_are_known_from_their_number_too():
    epoch = Column(np.repeat([1.0, 2.0, 3.0], 10).astype(np.float32))
    run = Run("x", Path("x"), RunInfo(), table(range(1, 31), train_loss=np.ones(30), epoch=epoch))
    assert picture_of(run).epochs == (10, 20)


def test_findings_on_the_whole_run_shade_no_part_of_it(examples):
    diagnosis, run = examples["divergence"]
    whole = msgspec.structs.replace(diagnosis.findings[0], clock="run")
    (span,) = picture_of(run, msgspec.structs.replace(diagnosis, findings=[whole])).spans
    assert span.whole
    assert (span.since, span.until) == (1, 980)


def test_a_heat_map_tells_zero_bad_and_missing_apart():
    values = np.full((40, 3), 0.01, np.float32)
    values[:20, 0], values[30:, 1] = 0.0, np.nan
    observed = np.ones_like(values, bool)
    observed[:, 2] = np.arange(40) >= 20
    run = Run("x", Path("x"), RunInfo(model=layers("a", "b", "c")),
              layers=table(range(40), layer_grad_to_param=Column(values, observed)))  # fmt: skip
    (heat,) = heat_maps(run, columns=4)
    assert heat.names == ("a", "b", "c")
    assert (heat.cells[0, 0], heat.cells[1, -1], heat.cells[2, 0]) == (ZERO, BAD, NONE)
    assert heat.cells[0, -1] >= 0


def test_of_very_many_layers_neighbours_share_a_row():
    names = [f"layer.{number}" for number in range(300)]
    run = Run("x", Path("x"), RunInfo(model=layers(*names)),
              layers=table(range(10), layer_update_ratio=np.ones((10, 300))))  # fmt: skip
    (heat,) = heat_maps(run)
    assert heat.cells.shape[0] == len(heat.names) == 40
    assert heat.names[0] == "layer.0 … layer.6"


def test_a_bad_value_of_one_layer_is_seen_among_three_hundred():
    values = np.ones((500, 300), np.float32)
    values[123, 200] = np.inf
    run = Run("x", Path("x"), RunInfo(model=layers(*map(str, range(300)))),
              layers=table(range(500), layer_grad_to_param=values))  # fmt: skip
    (heat,) = heat_maps(run)
    assert (heat.cells == BAD).sum() == 1


def test_names_of_layers_stay_apart_when_they_are_cut():
    names = [f"encoder.layers.{number}.self_attn.{part}" for number in range(12) for part in ("q", "k", "v")]
    assert len({elided(name) for name in names}) == len(names)
    assert all(len(elided(name)) <= 16 for name in [*names, "x" * 100, "a." * 60])


def test_a_million_steps_are_a_picture_in_under_a_second():
    rng = np.random.default_rng(0)
    names = ("train_loss", "train_accuracy", "learning_rate", "grad_norm", "update_ratio", "samples_per_second")
    columns = {name: rng.random(1_000_000, np.float32) for name in names}
    run = Run("long", Path("long"), RunInfo(), table(np.arange(1e6), **columns))
    begun = time.process_time()
    picture = picture_of(run)
    assert time.process_time() - begun < 1
    assert len(picture.panels) == len(names)
    assert sum(len(line.curve.values) for panel in picture.panels for line in panel.lines) <= 1002 * len(names)


def test_an_accuracy_is_never_on_a_logarithmic_scale():
    run = Run("x", Path("x"), RunInfo(), evaluations=table(range(1, 201), val_accuracy=np.geomspace(0.1, 90, 200)))
    (panel,) = picture_of(run).panels
    assert not panel.scale.logarithmic
