"""Does the doctor help? `python -m benchmarks.cure [--seeds N] [--only PATTERN] [--jobs N] [--unseen] [--healthy]`.

Every case is trained sick under each arm and healthy without any, with several seeds; the figure is the validation loss
of the weights the user is left with. `--healthy` trains the healthy recipes of the corpus with and without the doctor
instead: not one bit may differ, and nothing may be done.
"""

import argparse
import fnmatch
import multiprocessing
from collections.abc import Sequence
from functools import partial

from benchmarks.cure.arms import ARMS
from benchmarks.cure.cases import CASES
from benchmarks.cure.trainings import Result, run, unharmed
from benchmarks.cure.unseen import UNSEEN
from tests.pathologies.recipes import RECIPES

_WORSE = 1.02
_CLOSE = 1.10


def head(arms: Sequence[str]) -> str:
    """The names of the columns."""
    return f"{'case':24} {'seed':>4} {'twin':>9} " + " ".join(f"{arm:>9}" for arm in arms) + "  what auto did"


def row(one: Result, arms: Sequence[str]) -> str:
    """One case and seed as a line."""
    cells = " ".join(f"{one.losses[arm]:9.4g}" for arm in ("twin", *arms))
    return f"{one.case:24} {one.seed:4} {cells}  {' '.join(one.told)}"


def report(results: Sequence[Result], arms: Sequence[str]) -> list[str]:
    """The figures of each arm as lines."""
    lines = [""]
    for arm in arms:
        if arm == "off":
            continue
        better = sum(one.losses[arm] < one.losses["off"] for one in results)
        worse = [f"{one.case}/{one.seed}" for one in results if one.losses[arm] > _WORSE * one.losses["off"]]
        close = sum(one.losses[arm] <= _CLOSE * one.losses["twin"] for one in results)
        lines.append(
            f"{arm}: better than off in {better / len(results):.0%}, within 10 % of the healthy twin in "
            f"{close / len(results):.0%}, worse than off (> 2 %) in {len(worse)} of {len(results)} {' '.join(worse)}"
        )
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="*", help="names, as a shell pattern")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--arms", default=",".join(ARMS), help="some of the arms, by commas")
    parser.add_argument("--healthy", action="store_true", help="see whether healthy trainings are left alone")
    parser.add_argument("--unseen", action="store_true", help="the cases that were not at hand before")
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        if options.healthy:
            names = [one.name for one in RECIPES if one.healthy and fnmatch.fnmatch(one.name, options.only)]
            harmed = 0
            for name, same, acts in pool.imap(unharmed, names):
                if acts or not same:
                    harmed += 1
                    print(f"{name}: {'the same weights' if same else 'OTHER WEIGHTS'} {' '.join(acts)}", flush=True)
            print(f"{len(names)} healthy trainings, {harmed} of them not left alone")
            return
        arms = options.arms.split(",")
        chosen = [one.name for one in (UNSEEN if options.unseen else CASES) if fnmatch.fnmatch(one.name, options.only)]
        work = [(name, seed) for name in chosen for seed in range(options.seeds)]
        results: list[Result] = []
        print(head(arms), flush=True)
        for one in pool.imap(partial(run, arms=arms), work):  # printed as they come: all of them take long
            results.append(one)
            print(row(one, arms), flush=True)
        print("\n".join(report(results, arms)))


if __name__ == "__main__":
    main()
