"""Record the corpus: `python -m tests.pathologies.record OUT_DIR [--only PATTERN] [--jobs N]`.

Every recipe is trained under a Monitor that only records, into OUT_DIR/<name>. The processes use one torch thread each,
so losses depend on the recipe alone.
"""

import argparse
import fnmatch
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lossdoctor import Monitor
from lossdoctor.runs.reader import read_run
from tests.pathologies.recipes import RECIPES, Recipe
from tests.pathologies.training import Outcome, train

__all__ = ["main", "record", "summary"]


def record(recipe: Recipe, directory: Path) -> Outcome:
    """Train one recipe and leave its run directory at `directory`, replacing what was there.

    Raises RuntimeError if the recording stops early: a Monitor with a fault of its own goes on in silence.
    """
    shutil.rmtree(directory, ignore_errors=True)
    monitor = partial(Monitor, run_dir=directory, remediate="off", grad_norm_every=1)
    outcome = train(recipe.make_task(), recipe.settings, monitor=monitor)
    recorded, steps = len(read_run(directory).steps), recipe.settings.steps
    if recorded < steps - 1 and recipe.settings.steps_optimizer:  # an update left out is reported with the next one
        raise RuntimeError(f"{recipe.name}: {recorded} of {steps} steps were recorded")
    return outcome


def summary(recipe: Recipe, outcome: Outcome) -> str:
    """One line for a reader: name, steps, training loss at both ends, validation loss at its best and last, label."""
    window = max(5, len(outcome.losses) // 20)
    first, last = np.median(outcome.losses[:5]), np.median(outcome.losses[-window:])
    step, best, _ = outcome.best
    _, final, accuracy = outcome.evaluations[-1]
    right = "" if accuracy is None else f"{accuracy:.3f}"
    label = " ".join(sorted(recipe.expected)) or "healthy"
    return (
        f"{recipe.name:36} {recipe.settings.steps:5} {first:10.4g} {last:10.4g} {best:10.4g} @{step:<5} {final:10.4g} "
        f"{right:6} {label}"
    )


def _record_one(name: str, out_dir: Path) -> tuple[str, float]:
    torch.set_num_threads(1)
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    begun = time.perf_counter()
    outcome = record(recipe, out_dir / name)
    return summary(recipe, outcome), time.perf_counter() - begun


def record_all(recipes: Sequence[Recipe], out_dir: Path, *, jobs: int, tell: Callable[[str], None]) -> None:
    """Record many recipes in `jobs` processes and tell a line about each, in order."""
    out_dir.mkdir(parents=True, exist_ok=True)
    tell(
        f"{'name':36} {'steps':>5} {'train':>10} {'':>10} {'val best':>10} {'at':6} {'val last':>10} {'right':6} label"
    )
    one = partial(_record_one, out_dir=out_dir)
    names = [recipe.name for recipe in recipes]
    if jobs == 1:
        _tell(map(one, names), tell)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        _tell(pool.imap(one, names), tell)


def _tell(results: Iterable[tuple[str, float]], tell: Callable[[str], None]) -> None:
    for line, seconds in results:
        tell(f"{line}  ({seconds:.1f} s)")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.pathologies.record", description="Record the corpus of trainings."
    )
    parser.add_argument("out_dir", type=Path, help="a run directory per recipe is made in it")
    parser.add_argument("--only", default="*", help="names to record, as a shell pattern")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    options = parser.parse_args(arguments)
    chosen = [recipe for recipe in RECIPES if fnmatch.fnmatch(recipe.name, options.only)]
    if not chosen:
        parser.error(f"no recipe is called {options.only}")
    begun = time.perf_counter()
    record_all(chosen, options.out_dir, jobs=options.jobs, tell=partial(print, flush=True))
    print(f"{len(chosen)} trainings in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
