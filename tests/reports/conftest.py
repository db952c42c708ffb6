"""Hand-made diagnoses and runs that every report is tried on, and how their snapshots are rendered.

After a wanted change of a report: `python tests/reports/conftest.py` writes the snapshots anew; then read the diff.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.findings import Diagnosis, Finding, Prescription, Undecided
from lossdoctor.reports import json, markdown, text
from lossdoctor.reports.page import Page
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.info import LayerInfo, ModelInfo, RunInfo
from lossdoctor.runs.tables import Column, Run, Table

Example = tuple[Diagnosis, Run | None]

SNAPSHOTS = Path(__file__).parent / "snapshots"


def column(values: object) -> Column:
    return Column(np.asarray(values, dtype=np.float32))


def _run(name: str, columns: Mapping[str, Column], **others: object) -> Run:
    steps = len(next(iter(columns.values())))
    table = Table({"step": Column(np.arange(1.0, steps + 1)), **columns})
    return Run(name=name, path=Path(name), info=others.pop("info", RunInfo()), steps=table, **others)


def healthy() -> Example:
    diagnosis = Diagnosis(
        run="runs/baseline",
        verdict="healthy",
        category="healthy",
        summary="training loss fell from 2.3 to 0.11; LR: linear warm-up over 50 steps to 0.001, then cosine to 1e-06",
        steps=1000,
        evaluations=10,
        status="finished",
        passed=[
            "clip_before_unscale",
            "divergence",
            "exploding_gradient",
            "loss_spike",
            "non_finite_gradient",
            "non_finite_loss",
            "not_learning",
            "overfitting",
            "plateau",
            "slow_learning",
            "underfitting",
            "vanishing_gradient",
        ],
        undecided=[
            Undecided(
                rule="amp_overflow",
                reason="no loss_scale was recorded; give Monitor the scaler: Monitor(..., scaler=scaler)",
                missing=["loss_scale"],
            )
        ],
        reasons=[
            "training loss fell from 2.3 to 0.11",
            "val_loss fell from 2.28 to 0.19 (its lowest)",
            "LR: linear warm-up over 50 steps to 0.001, then cosine to 1e-06",
            "gradient norm within 3.1 x of its median 0.84",
        ],
    )
    return diagnosis, None


def divergence() -> Example:
    """The loss falls, then gives everything back and ends in NaN; consequences are folded under it."""
    steps = np.arange(980.0)
    loss = 2.3 * np.exp(-steps / 150) + 0.2 + 0.02 * np.sin(steps * 1.7)
    loss[411:] = loss[411:] * np.exp((steps[411:] - 411) / 90)
    loss[430] = 240.0
    loss[975:] = np.nan
    run = _run("runs/lr 0.3", {"train_loss": column(loss)}, warnings=())
    state = {"family": "stability", "category": "unstable", "clock": "step"}
    diagnosis = Diagnosis(
        run="runs/lr 0.3",
        verdict="divergence",
        category="unstable",
        summary="train_loss gave back 57% of its progress since step 300 and did not come back.",
        steps=980,
        evaluations=9,
        status="crashed",
        warnings=[
            "steps/00000.open.arrow ends in the middle of a batch (was the training cut off?); 980 rows were read."
        ],
        findings=[
            Finding(
                rule="divergence",
                title="Divergence",
                severity="error",
                since=412,
                detected=420,
                message="train_loss gave back 57% of its progress since step 300 and did not come back.",
                evidence={
                    "lost": 0.568,
                    "lowest": 0.4121,
                    "best_step": 300.0,
                    "learning_rate": 0.003,
                    "noise": 1.2e-05,
                },
                peak=214.7,
                evidence_signal="train_loss",
                prescriptions=[
                    Prescription(
                        advice="Go back to step 300 and lower the learning rate: 0.003 → 0.001.",
                        action="scale_lr",
                        applicability="safe",
                        arguments={"factor": 1 / 3},
                        verify="lost < 0.02",
                        within=200,
                    ),
                    Prescription(
                        advice="Clip the global gradient norm at 1.0, about the median before step 412.",
                        action="tighten_clipping",
                        applicability="maybe",
                    ),
                    Prescription(advice="Warm the learning rate up over the first 1 to 5 % of the steps."),
                ],
                **state,
            ),
            Finding(
                rule="exploding_gradient",
                title="Exploding gradient",
                severity="error",
                since=405,
                detected=409,
                message="grad_norm rose to 213 times its median of 0.84.",
                explained_by="divergence",
                **state,
            ),
            *(
                Finding(
                    rule="loss_spike",
                    title="Loss spike",
                    severity="warning",
                    since=since,
                    detected=since,
                    until=since,
                    message=f"train_loss jumped to {value} from a typical 0.43, for one step.",
                    explained_by="divergence",
                    **state,
                )
                for since, value in ((431.0, 240), (477.0, 310), (512.0, 355))
            ),
            Finding(
                rule="plateau",
                title="Plateau",
                family="learning",
                category="undertrained",
                severity="info",
                clock="interval",
                since=120,
                detected=180,
                until=260,
                resolved=True,
                message="train_loss improved by 0.3% only over 140 steps.",
            ),
        ],
        passed=["clip_before_unscale", "not_learning", "slow_learning", "vanishing_gradient"],
        undecided=[
            Undecided(
                rule="amp_overflow",
                reason="no loss_scale was recorded; give Monitor the scaler: Monitor(..., scaler=scaler)",
                missing=["loss_scale"],
            ),
            Undecided(rule="overfitting", reason="too short: 9 evaluation ticks were seen, 2 could be decided"),
            Undecided(rule="underfitting", reason="too short: 9 evaluation ticks were seen, 2 could be decided"),
        ],
        reasons=["LR: constant 0.003"],
        interventions=[
            Intervention(
                id=1,
                step=431,
                time=0.0,
                rule="divergence",
                action="scale_lr",
                reason="the loss gave back its progress",
                changes={"learning_rate": (0.003, 0.001)},
                outcome="reverted",
                outcome_reason="the loss went on rising",
                settled=480,
            ),
            Intervention(id=2, step=480, time=0.0, rule="divergence", action="rewind", reason="scale_lr did not help"),
        ],
    )
    return diagnosis, run


def vanishing_gradient() -> Example:
    """Early layers without a gradient: a finding on layers, drawn for the worst of them."""
    names = [f"blocks.{number}.linear" for number in range(8)]
    depth = np.arange(8)
    values = 10.0 ** (-(7 - depth)[None, :] * np.linspace(0.2, 1.0, 40)[:, None] - 2)
    layers = Table({"step": Column(np.arange(25.0, 1025.0, 25.0)), "layer_grad_to_param": column(values)})
    info = RunInfo(
        model=ModelInfo(layers=[LayerInfo(name=n, type="Linear", parameters=10, trainable=10) for n in names])
    )
    run = _run("runs/deep_tanh", {"train_loss": column(np.full(1000, 2.302))}, layers=layers, info=info)
    diagnosis = Diagnosis(
        run="runs/deep_tanh",
        verdict="vanishing_gradient",
        category="undertrained",
        summary="6 early layers get a gradient 4.2 orders of magnitude below the last one's.",
        steps=1000,
        status="finished",
        findings=[
            Finding(
                rule="vanishing_gradient",
                title="Vanishing gradient",
                family="learning",
                category="undertrained",
                severity="warning",
                clock="interval",
                since=410,
                detected=640,
                layers=names[:6],
                message="6 early layers get a gradient 4.2 orders of magnitude below the last one's; the loss stays.",
                evidence={"behind": 4.23, "ratio": 3.1e-07},
                evidence_signal="mean_layer_grad_to_param",
                prescriptions=[
                    Prescription(advice="Put a normalization layer or a residual connection into every block."),
                    Prescription(
                        advice="Use Kaiming initialization with ReLU-like activations.", applicability="maybe"
                    ),
                ],
            ),
            Finding(
                rule="not_learning",
                title="Not learning",
                family="learning",
                category="undertrained",
                severity="error",
                clock="run",
                since=1000,
                detected=1000,
                message="train_loss made no progress beyond its own noise.",
                explained_by="vanishing_gradient",
            ),
        ],
        passed=["divergence", "non_finite_loss"],
        undecided=[
            Undecided(
                rule=rule,
                reason="no val_loss was recorded; report it with monitor.evaluation(loss=...)",
                missing=["val_loss"],
            )
            for rule in ("overfitting", "underfitting")
        ],
    )
    return diagnosis, run


def undecided() -> Example:
    diagnosis = Diagnosis(
        run="runs/quick",
        verdict="undecided",
        category="undecided",
        summary="too short: 12 step ticks were seen, 0 could be decided",
        steps=12,
        status="running",
        passed=["non_finite_loss"],
        undecided=[
            Undecided(rule="divergence", reason="too short: 12 step ticks were seen, 0 could be decided"),
            Undecided(rule="amp_overflow", reason="a scaler's word is needed", missing=["loss_scale"]),
        ],
    )
    return diagnosis, None


def hostile() -> Example:
    """Everything a stranger's log can hold to mislead a reader or a terminal."""
    evil = (
        "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202etxt.exe\u200b\r\nerror[fake]: \x9b31m \udc80 漢字 ==> 3e-3 → 1e-3"
    )
    diagnosis = Diagnosis(
        run=f"runs/{evil}",
        verdict="divergence",
        category="unstable",
        summary=evil,
        steps=3,
        status="finished",
        findings=[
            Finding(
                rule="divergence",
                title=evil,
                family="stability",
                category="unstable",
                severity="error",
                clock="step",
                since=2,
                detected=2,
                layers=[evil],
                message=evil,
                evidence={evil: float("inf"), "lost": float("nan")},
                prescriptions=[Prescription(advice=evil)],
            )
        ],
        undecided=[Undecided(rule="plateau", reason=evil, missing=[evil])],
        reasons=[evil],
        interventions=[
            Intervention(
                id=1, step=2, time=0.0, rule=evil, action=evil, reason=evil, changes={evil: (1.0, float("nan"))}
            )
        ],
        warnings=[evil],
        config={evil: [evil, float("inf")]},
    )
    return diagnosis, None


EXAMPLES: Mapping[str, Callable[[], Example]] = {
    "healthy": healthy,
    "divergence": divergence,
    "vanishing_gradient": vanishing_gradient,
    "undecided": undecided,
    "hostile": hostile,
}

PAGES: Mapping[str, Page] = {
    "80": Page(width=80),
    "120": Page(width=120),
    "60_ascii": Page(width=60, unicode=False),
    "80_verbose": Page(width=80, verbose=True),
}


def rendered() -> dict[str, str]:
    """Every snapshot by file name."""
    files = {}
    for name, make in EXAMPLES.items():
        diagnosis, run = make()
        for size, page in PAGES.items():
            report = text.render(diagnosis, run, page=page).plain
            files[f"{name}_{size}.txt"] = f"{report}\n\n{text.verdict_line(diagnosis)}\n"
        files[f"{name}.md"] = markdown.render([diagnosis])
    everything = [make()[0] for make in EXAMPLES.values()]
    files["overview_80.txt"] = text.overview(everything, page=Page(width=80)).plain + "\n"
    files["all.json"] = json.render(everything)
    return files


@pytest.fixture
def examples() -> dict[str, Example]:
    return {name: make() for name, make in EXAMPLES.items()}


@pytest.fixture
def snapshots() -> dict[str, str]:
    return rendered()


@pytest.fixture
def snapshot_directory() -> Path:
    return SNAPSHOTS


@pytest.fixture
def sparse_run() -> Run:
    """A signal observed at every other step, once as NaN."""
    norm = Column(np.array([7, 8, np.nan, 9], dtype=np.float32), np.array([True, False, True, False]))
    return _run("sparse", {"grad_norm": norm})


if __name__ == "__main__":
    for outdated in SNAPSHOTS.iterdir():
        outdated.unlink()
    for file, content in rendered().items():
        (SNAPSHOTS / file).write_text(content, encoding="utf-8")
