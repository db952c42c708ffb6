"""The TensorBoard mirror: the main signals and what was found, as event files beside the run.

It is a view for people who have TensorBoard open, thinned to what a screen shows; nothing reads it back as truth. Of
tensorboard only the messages and the framing of its records are used: they take 0.2 s to import and neither TensorFlow
nor torch. A row of eight signals costs 40 µs (measured), which is why a turn of the writer mirrors 50 rows at most.
"""

import os
import socket
import time
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossdoctor.errors import UsageError
from lossdoctor.runs.events import Event, FindingEvent, Intervention
from lossdoctor.runs.files import append
from lossdoctor.runs.tables import Block, Table

__all__ = ["TensorBoardMirror"]

_ROWS = 50
"""Rows of one signal that a turn of the writer mirrors, about 100 a second."""

_GROUPS = {
    "optimizer": ("learning_rate", "grad_norm", "grad_norm_clipped", "update_ratio", "loss_scale", "skipped"),
    "throughput": ("samples_per_second", "step_time", "data_wait"),
    "resources": ("process_memory", "device_memory", "gpu_utilization"),
}
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names}


class TensorBoardMirror:
    """Appends to one event file in `tensorboard/` of the directory that rows go to. Used from the writer's thread.

    Scalars are called `training/train_loss`, `optimizer/grad_norm`, `validation/val_loss`; texts `findings/<rule>` and
    `interventions/<action>`.

    Raises:
        UsageError: tensorboard cannot be imported.
    """

    def __init__(self) -> None:
        """Import what is needed, now and not while the training runs."""
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415 - only where a mirror is wanted
            from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415 - the same
        except ImportError as error:
            raise UsageError(f"tensorboard=True: tensorboard cannot be imported ({error}); install it") from error
        self._event, self._summary, self._framed = event_pb2.Event, summary_pb2.Summary, RecordWriter
        self._path: Path | None = None
        self._size = 0

    def __call__(self, directory: Path, blocks: Sequence[Block], events: Sequence[Event]) -> None:
        """Mirror what was just recorded in `directory`. Raises OSError where it cannot be written."""
        records: list[Any] = []
        for block in blocks:
            records += self._rows(block.steps, _ROWS // len(blocks) + 1, "training")
            records += self._rows(block.evaluations, len(block.evaluations), "validation")
        for event in events:
            if isinstance(event, FindingEvent):
                text = f"**{event.severity}** since step {event.since:.0f}: {event.message}"
                records.append(self._text(f"findings/{event.rule}", text, event))
            elif isinstance(event, Intervention):
                text = f"{event.outcome}, for {event.rule}: {event.outcome_reason or event.reason}"
                records.append(self._text(f"interventions/{event.action}", text, event))
        if not records:
            return
        if self._path is None or self._path.parent.parent != directory:
            self._path = self._begin(directory)
            records.insert(0, self._event(wall_time=time.time(), file_version="brain.Event:2"))
        self._size = append(self._path, self._bytes(records), size=self._size)

    def _begin(self, directory: Path) -> Path:
        """A new file in `directory`, which TensorBoard shows as one curve with those of earlier processes there."""
        place = directory / "tensorboard"
        place.mkdir(exist_ok=True)
        self._size = 0
        return place / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"

    def _bytes(self, records: Iterable[Any]) -> bytes:
        content = BytesIO()
        framed = self._framed(content)
        for record in records:
            framed.write(record.SerializeToString())
        return content.getvalue()

    def _rows(self, table: Table, limit: int, group: str) -> list[Any]:
        """A record for each row that is shown, with all signals that are shown of it."""
        if not len(table):
            return []
        shown: dict[int, list[Any]] = {}
        for name, column in table.columns.items():
            prefix = _GROUP_OF.get(name, group if name.startswith(("train_", "val_")) else None)
            if prefix is None:
                continue
            for row in _thinned(np.flatnonzero(column.mask()), limit):
                value = self._summary.Value(tag=f"{prefix}/{name}", simple_value=float(column.values[row]))
                shown.setdefault(int(row), []).append(value)
        step = table.step
        times = table.columns["time"].values if "time" in table.columns else np.full(len(table), time.time())
        return [
            self._event(wall_time=float(times[row]), step=int(step[row]), summary=self._summary(value=shown[row]))
            for row in sorted(shown)
        ]

    def _text(self, tag: str, text: str, event: FindingEvent | Intervention) -> Any:
        value = self._summary.Value(tag=tag)
        value.metadata.plugin_data.plugin_name = "text"
        value.metadata.data_class = 2  # a tensor; the text dashboard asks for these
        value.tensor.dtype = 7  # strings
        value.tensor.tensor_shape.dim.add(size=1)
        value.tensor.string_val.append(text.encode("utf-8", "backslashreplace"))
        return self._event(wall_time=event.time, step=int(event.step), summary=self._summary(value=[value]))


def _thinned(rows: npt.NDArray[np.intp], limit: int) -> npt.NDArray[np.intp]:
    """Every k-th of the rows, the last among them, so that there are at most `limit`.

    >>> _thinned(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    stride = max(-(-len(rows) // max(limit, 1)), 1)
    return rows[::-1][::stride][::-1]
