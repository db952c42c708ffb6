"""A running training, watched: each look reads what is new, judges it by the one evaluator, and says how things are."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np

from lossdoctor.analysis import judge, judge_all, needed_columns
from lossdoctor.diagnosis import Diagnoser
from lossdoctor.errors import LogError
from lossdoctor.findings import Diagnosis
from lossdoctor.reports.live import LiveView
from lossdoctor.reports.trace import Trace
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.following import Follower, News
from lossdoctor.runs.info import facts
from lossdoctor.runs.reader import find_runs, is_run
from lossdoctor.runs.tables import Block, Run

__all__ = ["Watch", "is_watchable", "newest_run"]

_CURVES = ("train_loss", "val_loss", "val_accuracy", "learning_rate", "grad_norm", "update_ratio")
_THROUGHPUT = ("samples_per_second", "tokens_per_second")
_RATE_SECONDS = 15.0
"""The rate is that of so many seconds."""
_REST = 100.0
"""So many times what a diagnosis took is waited until the next: it looks at the whole run, the rows only at the new."""


def newest_run(path: Path) -> Path:
    """The run at `path`, else the one below it that was written last; `path` itself where there is none."""
    if is_run(path) or not path.is_dir():
        return path
    found = [run for run in find_runs(path) if (run / "run.json").is_file()]
    return max(found, key=lambda run: (run / "run.json").stat().st_mtime, default=path)


def is_watchable(path: Path) -> bool:
    """Whether there is a run, or a log that some reader knows."""
    if is_run(path):
        return True
    if not path.exists():
        return False
    from lossdoctor.runs.readers import is_log  # noqa: PLC0415  a run of our own needs none of the readers

    return is_log(path)


class Watch:
    """Watches the run, or the log of another logger, at `path`.

    A run of our own is read and judged bit by bit; of a foreign log it is not known what a writer may still change, so
    it is read anew whenever it has changed. `columns` maps signals to columns of a foreign log.
    """

    _diagnoser: Diagnoser | None
    _diagnosis: Diagnosis | None
    _due: float
    _traces: dict[str, Trace]
    _recent: deque[tuple[float, float]]
    _step: float | None

    def __init__(self, path: Path, rulebook: Rulebook, columns: Mapping[str, str] = MappingProxyType({})) -> None:
        self.path = path
        self._rulebook, self._columns = rulebook, columns
        self.is_foreign = path.exists() and not is_run(path)
        self._wanted = needed_columns(rulebook) | {"time", *_CURVES, *_THROUGHPUT}
        self._follower = Follower(path, self._wanted)
        self._size: int | None = None
        self._view: LiveView | None = None
        self._begin_anew()

    @property
    def is_over(self) -> bool:
        """Whether the run has ended. Nobody tells of a foreign log."""
        return self._view is not None and not self.is_foreign and self._view.status != "running"

    def look(self) -> LiveView:
        """Read what is new, and judge it. While the run goes on, the diagnosis may be some looks old.

        Raises:
            LogError: There is nothing to read.
        """
        if self.is_foreign:
            self._view = self._look_at_log()
            return self._view
        try:
            news = self._follower.look()
        except OSError as error:
            raise LogError(f"{self.path}: cannot be read ({error.strerror})") from None
        if news.restarted:
            self._begin_anew()
        if self._diagnoser is None:
            layers = [layer.name for layer in news.info.model.layers]
            self._diagnoser = Diagnoser(self._rulebook, run_facts=facts(news.info), layers=layers)
        self._remember(news.recent)
        self._diagnoser.learn(facts(news.info))
        if any(map(len, (news.block.steps, news.block.evaluations, news.block.layers))):
            whole = Run("", self.path, news.info, news.block.steps, news.block.evaluations, news.block.layers)
            for block in whole.blocks():
                self._diagnoser.observe(block)
        if not news.live or self._diagnosis is None or time.monotonic() >= self._due:
            begun = time.process_time()
            self._diagnosis = self._judged(self._diagnoser, news)
            self._due = time.monotonic() + _REST * (time.process_time() - begun)
        self._view = self._show(news, self._diagnosis)
        return self._view

    def look_once(self) -> LiveView:
        """Read and judge everything that was recorded until now. Raises LogError if there is nothing to read."""
        view = self.look()
        if self.is_foreign:
            return view
        return replace(view, diagnosis=judge(self.path, self._rulebook)[1])

    def _begin_anew(self) -> None:
        self._diagnoser = None
        self._diagnosis = None
        self._due = 0.0
        self._begin_curves()

    def _begin_curves(self) -> None:
        self._traces = {}
        self._recent = deque()
        self._step = None

    def _judged(self, diagnoser: Diagnoser, news: News) -> Diagnosis:
        return diagnoser.diagnosis(
            run=str(self.path),
            status=news.info.status,
            interventions=news.interventions,
            config=news.info.config,
            checks=news.info.checks,
        )

    def _remember(self, block: Block) -> None:
        """Add what was read to the curves."""
        for table in (block.steps, block.evaluations):
            names = [name for name in table.columns if name in _CURVES or name.startswith("train_loss_")]
            names += [name for name in _THROUGHPUT if name in table.columns]
            for name in names:
                column = table.columns[name]
                seen = column.mask()
                trace = self._traces.setdefault(name, Trace())
                trace.add(table.step[seen], column.values[seen].astype(np.float64))
        if len(block.steps):
            self._step = float(block.steps.step[-1])
        if len(block.steps) and "time" in block.steps.columns:
            times = block.steps.columns["time"].values
            for row in (0, -1) if not self._recent else (-1,):
                self._recent.append((float(block.steps.step[row]), float(times[row])))
            while len(self._recent) > 2 and self._recent[-1][1] - self._recent[0][1] > _RATE_SECONDS:  # noqa: PLR2004
                self._recent.popleft()

    def _show(self, news: News, diagnosis: Diagnosis) -> LiveView:
        rate = age = None
        if self._recent:
            (first, began), (step, last) = self._recent[0], self._recent[-1]
            age = max(time.time() - last, 0.0)
            rate = (step - first) / (last - began) if last > began else None
        return LiveView(
            diagnosis=msgspec.structs.replace(diagnosis, status=news.info.status),
            status=news.info.status,
            step=self._step,
            total_steps=news.info.total_steps,
            rate=rate,
            age=age,
            traces=self._ordered(),
        )

    def _ordered(self) -> dict[str, Trace]:
        losses = [name for name in self._traces if name.startswith("train_loss")]
        ordered = [*losses, *(name for name in (*_CURVES, *_THROUGHPUT) if name not in losses)]
        return {name: self._traces[name] for name in ordered if name in self._traces and len(self._traces[name])}

    def _look_at_log(self) -> LiveView:
        """A foreign log as it is, read again where it changed."""
        size, changed = _state(self.path)
        age = max(time.time() - changed, 0.0)
        if self._view is not None and (size == self._size or time.monotonic() < self._due):
            return replace(self._view, age=age)
        self._size = size
        begun = time.process_time()
        found: tuple[Run, Diagnosis] | None = None
        for found in judge_all(self.path, self._rulebook, self._columns):  # noqa: B007  the last one is the newest
            pass
        if found is None:
            raise LogError(f"{self.path}: there is no run in this log")
        run, diagnosis = found
        self._due = time.monotonic() + _REST * (time.process_time() - begun)
        self._begin_curves()
        self._remember(Block(run.steps, run.evaluations, run.layers))
        total, curves = run.info.total_steps, self._ordered()
        return LiveView(diagnosis=diagnosis, status="", step=self._step, total_steps=total, age=age, traces=curves)


def _state(path: Path) -> tuple[int, float]:
    """How large a log is, and when it was changed: of a directory, all the files right in it."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    states = [file.stat() for file in files]
    return sum(state.st_size for state in states), max((state.st_mtime for state in states), default=0.0)
