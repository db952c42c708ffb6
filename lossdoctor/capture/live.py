"""Live judging: feeds recorded blocks to the same Diagnoser that `analyze` uses, seldom enough not to be noticed."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from lossdoctor.capture.rows import merged
from lossdoctor.capture.whole import WholeNorms
from lossdoctor.diagnosis import Diagnoser
from lossdoctor.findings import Diagnosis, Finding
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.events import FindingEvent
from lossdoctor.runs.info import RunInfo, Status, facts
from lossdoctor.runs.ranks import without_shares
from lossdoctor.runs.tables import Block

__all__ = ["Listener", "LiveJudge"]

_LOG = logging.getLogger("lossdoctor")
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "benign": logging.DEBUG}

_REST = 500.0
"""After judging, as many times as long as it took is left to the training."""
_FIRST = 0.02
"""Seconds that the first judging is expected to take: the rest of ten seconds that belongs to it comes before it."""
_TOLD_EPISODES = 3
"""Episodes of one rule that are logged; all are in the diagnosis."""


class Listener(Protocol):
    """Who is told of findings besides the log and the run directory; raises nothing."""

    def found(self, finding: Finding) -> None:
        """There is a new finding."""

    def ended(self, diagnosis: Diagnosis) -> None:
        """The run is over."""


class LiveJudge:
    """Judges a run while it is recorded.

    With `whole` what is added are shares of norms: they are judged when they were made whole, by `complete`.
    """

    def __init__(
        self,
        rulebook: Rulebook,
        info: RunInfo,
        *,
        event: Callable[[FindingEvent], None],
        listener: Listener | None = None,
        whole: WholeNorms | None = None,
    ) -> None:
        self._info, self._listener, self._whole = info, listener, whole
        self._shares: list[Block] = []
        self._strips = False
        self.diagnoser = Diagnoser(rulebook, run_facts=facts(info), layers=[layer.name for layer in info.model.layers])
        self._event = event
        self._blocks: list[Block] = []
        self._next = time.perf_counter() + _REST * _FIRST
        self._told: dict[str, int] = {}

    def add(self, block: Block, *, is_whole: bool = False) -> None:
        """Take in rows, to be judged later."""
        if self._whole is not None and not is_whole:
            self._shares.append(block)
        else:
            self._blocks.append(without_shares(block) if self._strips and not is_whole else block)

    def complete(self) -> None:
        """Make whole what was added, where it is shares. All ranks do so at the same step."""
        if self._whole is not None:
            shares, self._shares = self._shares, []
            block = self._whole(merged(shares) if shares else Block())
            if len(block.steps) or len(block.evaluations):
                self._blocks.append(block)

    def let_go(self) -> None:
        """The other ranks' shares come no more: from now on judge what can be judged without."""
        if self._whole is not None:
            rest = [*self._whole.rest(), *self._shares]
            self._whole, self._shares, self._strips = None, [], True
            for block in rest:
                self.add(block)

    @property
    def is_due(self) -> bool:
        """Whether the training has had its time since the last judging."""
        return time.perf_counter() >= self._next

    def judge(self) -> list[Finding]:
        """Judge what was added; log and record what is new."""
        if not self._blocks:
            return []
        began = time.perf_counter()
        blocks, self._blocks = self._blocks, []
        block = merged(blocks)
        self.diagnoser.learn(facts(self._info))
        findings = self.diagnoser.observe(block)
        step = max((float(table.step[-1]) for table in (block.steps, block.evaluations) if len(table)), default=0.0)
        for finding in findings:
            self._tell(finding, step)
        ended = time.perf_counter()
        self._next = max(self._next, ended + _REST * (ended - began))
        return findings

    def diagnosis(self, *, run: str, status: str, interventions: Sequence[Any], config: Mapping[str, Any]) -> Diagnosis:
        """Everything there is to say so far."""
        self.judge()
        self.diagnoser.learn(facts(self._info))
        return self.diagnoser.diagnosis(
            run=run, status=status, interventions=interventions, config=config, checks=self._info.checks
        )

    def conclude(self, status: Status) -> None:
        """Say what only the whole run can tell, now that it has ended so."""
        self.let_go()
        self.judge()
        self.diagnoser.learn(facts(msgspec.structs.replace(self._info, status=status)))
        for finding in self.diagnoser.at_the_end():
            self._tell(finding, finding.detected)

    def take_leave(self, *, run: str, status: str, interventions: Sequence[Any], config: Mapping[str, Any]) -> None:
        """Tell the listener how it ended."""
        if self._listener is not None:
            self._listener.ended(self.diagnosis(run=run, status=status, interventions=interventions, config=config))

    def _tell(self, finding: Finding, step: float) -> None:
        if self._listener is not None:
            self._listener.found(finding)
        self._event(
            FindingEvent(
                rule=finding.rule,
                severity=finding.severity,
                since=finding.since,
                detected=finding.detected,
                message=finding.message,
                step=step,
                time=time.time(),
            )
        )
        told = self._told[finding.rule] = self._told.get(finding.rule, 0) + 1
        if told > _TOLD_EPISODES:
            return
        level = _LEVELS[finding.severity]
        _LOG.log(level, "lossdoctor: %s: %s (step %d)", finding.severity, finding.message, finding.detected)
        for prescription in finding.prescriptions:
            _LOG.log(level, "lossdoctor: help: %s", prescription.advice)
