"""How often the doctor is right, on a corpus of real small trainings, with others beside it.

    python -m benchmarks.accuracy [RECORDINGS] [--only PATTERN] [--write]

Each recipe of tests/pathologies is trained once and recorded (some minutes; kept in RECORDINGS), then diagnosed: as it
was recorded, as trackers would have logged it, and by others' published rules. Prints Markdown.

* recall: faulty runs where what the label accepts as the cause is among the open findings
* right: faulty runs whose verdict, the leading cause, the label accepts
* strays: open warnings and errors that are neither an accepted cause nor a consequence
* with an alarm: healthy runs with an open warning or error
* category: runs, healthy ones too, whose category (invalid, unstable, ...) is right
* delay: steps from the onset of the fault, where it was injected or the recipe knows it to ten steps, to the step of
  detection

`--write` puts the figures of each rule into rules/accuracy.json, which ships with the rules, and the tables into
docs/benchmarks.md between their markers.
"""

import argparse
import fnmatch
from pathlib import Path

from benchmarks.accuracy.corpus import judge, recorded
from benchmarks.accuracy.shipped import write_docs, write_figures
from benchmarks.accuracy.tables import report
from tests.pathologies.recipes import RECIPES


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recordings", type=Path, nargs="?", default=Path("build/corpus"))
    parser.add_argument("--only", default="*", help="names of trainings, as a shell pattern")
    parser.add_argument("--write", action="store_true", help="put the figures where they are shipped and shown")
    options = parser.parse_args()
    recipes = [recipe for recipe in RECIPES if fnmatch.fnmatch(recipe.name, options.only)]
    if options.write and len(recipes) < len(RECIPES):
        parser.error("only figures over the whole corpus are written")
    recorded(options.recordings, recipes)
    judged = list(judge(options.recordings, recipes))
    tables = report(judged)
    print(tables)
    if options.write:
        write_figures(judged)
        write_docs(tables)


if __name__ == "__main__":
    main()
