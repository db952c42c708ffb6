"""The trainings themselves, each a function that a process of its own can run."""

import logging
import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.cure.arms import ARMS
from benchmarks.cure.cases import CASES
from benchmarks.cure.unseen import UNSEEN
from lossdoctor.runs import read_run
from tests.pathologies.recipes import RECIPES
from tests.pathologies.settings import Settings
from tests.pathologies.tasks import Task
from tests.pathologies.training import evaluate, train

__all__ = ["Result", "left_with", "run", "unharmed"]


@dataclass(frozen=True, slots=True)
class Result:
    """The validation losses of one case and seed, by arm; "twin" is the healthy training. `told` is what auto did."""

    case: str
    seed: int
    losses: dict[str, float]
    told: tuple[str, ...]


def left_with(task: Task, settings: Settings, arm: str, directory: Path) -> tuple[float, list[float]]:
    """The validation loss of the weights after a training under an arm, and its training losses."""
    held: list[torch.nn.Module] = []
    make = ARMS[arm](directory)

    def watch(model: torch.nn.Module, optimizer: torch.optim.Optimizer, **also: Any) -> Any:
        held.append(model)
        return make(model, optimizer, **also)

    outcome = train(task, settings, monitor=watch)
    loss = evaluate(task, held[0], settings)["loss"]
    return (loss if math.isfinite(loss) else math.inf), outcome.losses


def run(case_and_seed: tuple[str, int], arms: Sequence[str]) -> Result:
    """One case with one seed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lossdoctor").setLevel(logging.CRITICAL)
    name, seed = case_and_seed
    case = next(one for one in (*CASES, *UNSEEN) if one.name == name)
    told: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory() as scratch:
        losses = {"twin": left_with(case.make_task(), case.settings(seed, sick=False), "off", Path(scratch))[0]}
        for arm in arms:
            place = Path(scratch) / arm
            losses[arm] = left_with(case.make_task(), case.settings(seed, sick=True), arm, place)[0]
        if "auto" in arms:
            acts = read_run(Path(scratch) / "auto").interventions
            told = tuple(f"{act.step:.0f}:{act.rule}:{act.action}:{act.outcome}" for act in acts)
    return Result(name, seed, losses, told)


def unharmed(name: str) -> tuple[str, bool, tuple[str, ...]]:
    """A healthy recipe with and without the doctor: whether not a bit differs, and what was done."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lossdoctor").setLevel(logging.CRITICAL)
    recipe = next(one for one in RECIPES if one.name == name)
    with tempfile.TemporaryDirectory() as scratch:
        plain = left_with(recipe.make_task(), recipe.settings, "off", Path(scratch))
        treated = left_with(recipe.make_task(), recipe.settings, "auto", Path(scratch) / "auto")
        acts = read_run(Path(scratch) / "auto").interventions
    return name, plain == treated, tuple(f"{act.step:.0f}:{act.rule}:{act.action}" for act in acts)
