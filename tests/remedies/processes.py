"""Two processes that train one model, each in a module of tests that prints JSON lines."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

__all__ = ["told_by_two"]

ROOT = Path(__file__).parents[2]


def told_by_two(module: str, here: Path, *arguments: str, lines: int) -> list[list[Any]]:
    """The `lines` that each of two ranks of `python -m module RANK 2 STORE DIRECTORY ...` prints, rank by rank."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        processes = []
        for rank in range(2):
            command = [sys.executable, "-m", module, str(rank), "2", str(here / "store"), str(here), *arguments]
            stderr = stack.enter_context((here / f"stderr-{rank}").open("wb"))
            processes.append(
                subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=stderr)
            )
            stack.callback(processes[-1].kill)
        told = [process.communicate(timeout=180)[0].decode().splitlines() for process in processes]
    assert [len(one) for one in told] == [lines] * 2, (here / "stderr-0").read_text()[-3000:]
    return [[json.loads(line) for line in one] for one in told]
