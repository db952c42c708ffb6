"""A run in which everything a stranger can name tries to be markup, a path, a control sequence or a lie."""

from pathlib import Path

import numpy as np

from lossdoctor.findings import Diagnosis, Finding, Prescription, Undecided
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.info import LayerInfo, ModelInfo, RunInfo
from lossdoctor.runs.tables import Column, Run, Table

EVIL = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked=2">',
    "'><svg onload=window.hacked=3>",
    "</style><style>*{display:none}</style>",
    "</title></script><script>window.hacked=4</script>",
    "javascript:window.hacked=5",
    "{{ 7 * 7 }}{% raw %}",
    "../../../../etc/passwd",
    "..\\..\\windows\\system32",
    "https://example.com/track.png",
    "\x00\x1b[2J\x07\x9b31m\ud800",
    "\u202efdp.exe\u202c\u2066\u200f",
    "$\\frac{1}{0}$ $x",
    "&lt;b&gt; &#x3c;",
    "a\nb\tc\r\n--",
    "漢字 émoji 🙂",
    "x" * 3000,
)
NAME = " ".join(EVIL[:-1])


def strange_run():
    """The run and a diagnosis of it, with such text in every field that has text."""
    steps = np.arange(1.0, 201)
    loss = np.r_[np.geomspace(2, 0.1, 150), np.full(50, np.nan)].astype(np.float32)
    layers = [LayerInfo(name=name, type=name, parameters=1, trainable=0) for name in EVIL]
    ratios = np.full((20, len(EVIL)), 0.01, np.float32)
    act = Intervention(
        id=1, step=50, time=0, rule=NAME, action=NAME, reason=NAME, changes={NAME: (1.0, float("nan"))},
        outcome_reason=NAME, effect={NAME: (1.0, 2.0)}, settled=60, outcome="kept",
    )  # fmt: skip
    info = RunInfo(
        name=NAME,
        model=ModelInfo(type=NAME, layers=layers),
        config={NAME: NAME, "nested": {text: [text] for text in EVIL}},
        versions={text: text for text in EVIL},
        git={NAME: NAME},
        hardware={NAME: NAME},
        scheduler=NAME,
        exception=NAME,
        started=1e30,
    )
    run = Run(
        name=NAME,
        path=Path("x"),
        info=info,
        steps=Table({"step": Column(steps), "train_loss": Column(loss), NAME: Column(loss)}),
        layers=Table({"step": Column(steps[::10]), "layer_grad_to_param": Column(ratios)}),
        interventions=(act,),
        warnings=EVIL,
        read_as=EVIL,
    )
    of = {"family": "stability", "category": "unstable", "clock": "step", "detected": 60}
    findings = [
        Finding(
            rule=NAME, title=NAME, severity="error", since=50, message=NAME, layers=list(EVIL), names=list(EVIL),
            evidence={NAME: float("inf"), "x": float("nan")}, evidence_signal="train_loss",
            prescriptions=[Prescription(advice=NAME, action=NAME, verify=NAME)], **of,
        ),
        Finding(rule="follows", title=NAME, severity="info", since=60, message=NAME, explained_by=NAME, **of),
        Finding(rule=NAME, title=NAME, severity="info", since=1, message=NAME, **{**of, "family": "recipe"}),
    ]  # fmt: skip
    diagnosis = Diagnosis(
        run=NAME,
        verdict=NAME,
        category="unstable",
        summary=NAME,
        status=NAME,
        steps=200,
        findings=findings,
        passed=list(EVIL),
        undecided=[Undecided(rule=NAME, reason=NAME, missing=list(EVIL))],
        reasons=list(EVIL),
        interventions=[act],
        warnings=list(EVIL),
        config=info.config,
    )
    return run, diagnosis
