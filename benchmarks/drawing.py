"""What pictures cost: the page and the plot of runs of a thousand, a hundred thousand and a million steps.

    python benchmarks/drawing.py [--repeat K]

Times are medians of wall-clock seconds, with CPU seconds in brackets: reading and judging are not in them, nor imports.
"Picture" is thinning: what a page and a plot share. The runs are those of benchmarks/analyze.py.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from analyze import write

from lossdoctor.analysis import judge
from lossdoctor.reports import html
from lossdoctor.reports.picture import PICTURE_COLUMNS, picture_of
from lossdoctor.reports.plots import save_plot
from lossdoctor.rulebook import Rulebook

STEPS = (1_000, 100_000, 1_000_000)
LARGEST_PAGE = 500_000
SLOWEST = 1.0
"""Seconds: the picture and the plot of a million steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    rulebook = Rulebook.load()
    print(
        f"{'steps':>10} {'picture':>15} {'page':>15} {'plot (PNG)':>15} {'plot (SVG)':>15} {'page kB':>9} {'PNG kB':>8}"
    )
    with tempfile.TemporaryDirectory() as directory:
        for steps in STEPS:
            place = Path(directory) / str(steps)
            write(place, steps)
            run, diagnosis = judge(place, rulebook, also=PICTURE_COLUMNS)
            picture = picture_of(run, diagnosis)
            png, svg = Path(directory) / "plot.png", Path(directory) / "plot.svg"
            save_plot(png, diagnosis, picture)  # the first one imports and finds fonts
            taken = [
                timed(work, arguments.repeat)
                for work in (
                    lambda run=run, diagnosis=diagnosis: picture_of(run, diagnosis),
                    lambda one=(diagnosis, picture): html.page([one], rules=rulebook.rules),
                    lambda one=(png, diagnosis, picture): save_plot(*one),
                    lambda one=(svg, diagnosis, picture): save_plot(*one),
                )
            ]
            page = len(html.page([(diagnosis, picture)], rules=rulebook.rules).encode())
            cells = " ".join(f"{wall:7.3f} ({cpu:5.3f})" for wall, cpu in taken)
            over = "  OVER" if page > LARGEST_PAGE or taken[0][1] + taken[2][1] > SLOWEST else ""
            print(f"{steps:>10,} {cells} {page / 1e3:9.0f} {png.stat().st_size / 1e3:8.0f}{over}")


def timed(work: Callable[[], object], repeat: int) -> tuple[float, float]:
    """The medians of wall-clock and CPU seconds."""
    walls, cpus = [], []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


if __name__ == "__main__":
    main()
