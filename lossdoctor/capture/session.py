"""A session: one training being recorded, judged and, if asked, treated. It owns everything but the loop."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, get_args

from lossdoctor.capture.data_watch import Split
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.footprint import held_bytes
from lossdoctor.capture.live import LiveJudge
from lossdoctor.capture.recorder import Recorder
from lossdoctor.capture.timing import Batches
from lossdoctor.diagnosis import Diagnoser
from lossdoctor.errors import UsageError
from lossdoctor.findings import Diagnosis, Finding
from lossdoctor.runs.events import Intervention, Mark
from lossdoctor.runs.info import Status
from lossdoctor.runs.reader import read_run
from lossdoctor.runs.writer import RunWriter

__all__ = ["Doctor", "Session"]

_LOG = logging.getLogger("lossdoctor")
_T = TypeVar("_T")

_FLUSH_SECONDS = 1.0
"""What was recorded is on its way to the disk after this time: a killed process loses no more than that."""
_FLUSH_ROWS = 2048
_TREAT_STEPS = 8
"""Steps between two judgings in auto."""


class Doctor(Protocol):
    """As much of a Remediator as a session needs."""

    @property
    def multipliers(self) -> list[float]:
        """What each optimizer's learning rate is multiplied by."""

    def after_step(self, step: float, *, finite: bool | None) -> None:
        """An optimizer step is over."""

    def evaluated(self, step: float, values: Mapping[str, float]) -> None:
        """An evaluation is over."""

    def act(self, findings: Sequence[Finding], step: float) -> None:
        """There are new findings."""

    def settle(self, judge: Diagnoser, step: float) -> None:
        """The findings were judged again."""

    def close(self, *, crashed: bool = False) -> None:
        """Take out the hooks; a training that did not crash may be left with its best weights."""


class Session:
    """One training. `judge` is None where nothing is judged live, `doctor` where nothing is treated."""

    def __init__(
        self,
        recorder: Recorder,
        writer: RunWriter,
        faults: Faults,
        *,
        make_judge: Callable[[], LiveJudge] | None = None,
    ) -> None:
        self.recorder = recorder
        self.writer = writer
        self.judge = make_judge() if make_judge else None
        self.doctor: Doctor | None = None
        self.interventions: dict[int, Intervention] = {}
        self.best: tuple[float, float] | None = None
        """Step and value of the lowest validation loss."""
        self._make_judge = make_judge
        self._faults = faults
        self._treat = faults.guard("remedies", self._treat_findings)
        if recorder.instruments is not None:
            self._describing = faults.protect("lists of the model", recorder.instruments.describe)
        self._judging = faults.guard("live judging", self._judge)
        self._flushed = time.perf_counter()
        self._describe = faults.protect("facts of the data", recorder.data.describe)
        self._fault_told = False
        self._closed = False
        self._process = os.getpid()
        self._untreated: list[Finding] = []
        self._is_one_of_several = writer.info.world_size > 1
        faults.protect("resource readings", recorder.watch_resources)()

    @property
    def is_closed(self) -> bool:
        """Whether the end was written."""
        return self._closed

    # -- what the loop does

    def step(self, loss: Any, samples: float | None, tokens: float | None, metrics: Mapping[str, Any] | None) -> None:
        """Take in a call of monitor.step."""
        recorder, doctor = self.recorder, self.doctor
        if recorder.data.is_sampling:
            recorder.data.reported(loss)
        if not recorder.report(loss, samples, tokens, metrics, doctor.multipliers if doctor else ()):
            return
        if doctor:
            self._treat("step")
            if not recorder.is_on_host:
                return  # which rows are judged at the next treatment must not depend on time
        watch = recorder.watch
        is_late = watch.since + watch.step_time - self._flushed > _FLUSH_SECONDS
        if is_late or recorder.saw_non_finite_loss or recorder.unread >= _FLUSH_ROWS:
            self.flush()
            self.writer.flush()

    def evaluated(self, loss: Any, metrics: Mapping[str, Any]) -> None:
        """Take in a call of monitor.evaluation."""
        recorder = self.recorder
        recorder.evaluated(loss, metrics)
        recorder.collect(lag=0 if self.doctor else None)
        for row in recorder.rows.evaluations:
            value = row.get("val_loss", math.nan)
            if math.isfinite(value) and (self.best is None or value < self.best[1]):
                self.best = (row["step"], value)
        if self.doctor:
            self._treat("evaluation")
        else:
            self.flush()

    def batches(self, loader: Iterable[_T], split: Split) -> Iterable[_T]:
        """The loader, with its batches watched."""
        if split not in get_args(Split):
            raise UsageError(f"split={split!r}: expected one of {', '.join(get_args(Split))}")
        watch = self.recorder.watch if split == "train" else None
        return Batches(loader, watch, self._faults.guard("epochs", self.epoch), self.recorder.data.begin)

    def epoch(self) -> None:
        """Take in the beginning of an epoch."""
        self.mark("epoch")

    def mark(self, name: Any, detail: str = "") -> None:
        """Name this moment."""
        self.writer.event(Mark(name=name, step=float(self.recorder.step), time=time.time(), detail=detail))

    def intervened(self, intervention: Intervention) -> None:
        """Take in what the doctor did."""
        self.interventions[intervention.id] = intervention
        self.writer.event(intervention)

    # -- rows on their way

    def flush(self, *, at_once: bool = False, lag: int | None = None) -> None:
        """Hand finished rows to the writer, and judge them if it is time or has to be `at_once`.

        `lag` is as in Recorder.collect: None never waits for a device.
        """
        self._flushed = time.perf_counter()
        recorder, info = self.recorder, self.writer.info
        info.monitor_memory = max(info.monitor_memory, held_bytes(recorder, self.writer))
        recorder.collect(lag=lag)
        at_once = at_once or recorder.saw_non_finite_loss
        recorder.saw_non_finite_loss = False
        if recorder.rows:
            block = recorder.rows.take()
            info.grad_norm_every = recorder.cadence.every
            if recorder.instruments is not None:
                self._describing(info)
            self._describe(info)
            self.writer.write(block)
            if self.judge:
                self.judge.add(block)
        self._warn_of_disk()
        if self.judge and (at_once or (self.doctor is None and self.judge.is_due)):
            self._judging()

    def _judge(self) -> None:
        if self.judge:
            found = self.judge.judge()
            if found:
                self.writer.flush()
            if self.doctor:
                self._untreated.extend(found)

    def _treat_findings(self, occasion: str) -> None:
        """Judge and act; after a fault nothing of the doctor's stays behind, and the run is judged as in `suggest`."""
        try:
            self._treat_now(occasion)
        except Exception:
            doctor, self.doctor = self.doctor, None
            if doctor:
                self._faults.protect("the end of the remedies", doctor.close)(crashed=True)
            if self.judge:
                self.judge.let_go()
            raise

    def _treat_now(self, occasion: str) -> None:
        """Judge and act at fixed steps, so that what is done does not depend on the speed of the machine."""
        recorder, doctor = self.recorder, self.doctor
        if doctor is None or self.judge is None:
            return
        step = float(recorder.step)
        if occasion == "step":
            doctor.after_step(step, finite=recorder.last_loss_is_finite)
            at_once = recorder.saw_non_finite_loss and not self._is_one_of_several
            if recorder.step % _TREAT_STEPS and not at_once:
                return
            lag = 1
        else:
            lag = 0
            values: dict[str, float] = {}
            for row in recorder.rows.evaluations:
                values = {name: value for name, value in row.items() if name not in {"step", "time"}}
            doctor.evaluated(step, values)
            if self._is_one_of_several:
                return  # the others may not evaluate, or at other steps
        self.flush(lag=lag)
        self.judge.complete()
        self._judging()
        findings, self._untreated = self._untreated, []
        if findings:
            findings = self._without_benign(self.judge, findings)
        doctor.act(findings, step)
        doctor.settle(self.judge.diagnoser, step)

    def _without_benign(self, judge: LiveJudge, findings: Sequence[Finding]) -> list[Finding]:
        """Without what a benign finding explains: nothing is to be done about the end of a learning-rate range test."""
        known = self._of_what_was_judged(judge).findings
        harmless = {one.rule for one in known if one.severity == "benign"}
        explained = {(one.rule, one.since) for one in known if one.explained_by in harmless}
        return [one for one in findings if (one.rule, one.since) not in explained]

    # -- what the user asks

    def diagnosis(self) -> Diagnosis | None:
        """The diagnosis so far; None where nothing is judged."""
        if self.judge is None:
            return None
        self.flush(lag=0)
        return self._of_what_was_judged(self.judge)

    def _of_what_was_judged(self, judge: LiveJudge) -> Diagnosis:
        return judge.diagnosis(
            run=str(self.writer.directory),
            status=self.writer.info.status,
            interventions=list(self.interventions.values()),
            config=self.writer.info.config,
        )

    def resume(self, step: int) -> None:
        """Go on after `step` of this or an earlier process; rows beyond it are superseded, also for the judge."""
        self.flush(lag=0)
        self.recorder.resume(step)
        self.writer.resume(float(step))
        if self._make_judge and self.writer.fault is None:
            self.judge = self._make_judge()
            for block in read_run(self.writer.directory).blocks():
                self.judge.add(block, is_whole=True)
            self._judging()

    def close(self, status: Status = "finished", *, mark: tuple[str, str] | None = None) -> None:
        """Write what is left and let go of the model. Only the first call counts, and no forked child's."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        if self.doctor:
            self._faults.guard("the end of the remedies", self.doctor.close)(crashed=status == "crashed")
        self._faults.guard("the end of the recording", self._finish)(status, mark)
        self.writer.close(status)
        self._warn_of_disk()
        if self.judge:
            take_leave = self._faults.guard("the verdict", self.judge.take_leave)
            acts, config = list(self.interventions.values()), self.writer.info.config
            take_leave(run=str(self.writer.directory), status=status, interventions=acts, config=config)

    def _finish(self, status: Status, mark: tuple[str, str] | None) -> None:
        self.recorder.close()
        self.flush(at_once=True)
        if mark:
            self.mark(*mark)
            if status == "crashed":
                self.writer.info.exception = mark[1]
        if self.judge:
            self.judge.conclude(status)

    def _warn_of_disk(self) -> None:
        if self.writer.fault and not self._fault_told:
            self._fault_told = True
            _LOG.warning("lossdoctor: %s; the training is not affected", self.writer.fault)
