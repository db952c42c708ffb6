"""How much memory the Monitor itself holds: an estimate from what is kept where, for run.json."""

from lossdoctor.capture.recorder import Recorder
from lossdoctor.runs.writer import RunWriter

__all__ = ["held_bytes"]

_RECORD = 2_000
"""A record that waits for its row: an object, a few small dicts and lists, about 40 numbers (measured)."""


def held_bytes(recorder: Recorder, writer: RunWriter) -> int:
    """Bytes of buffers, copies of parameters at a sample step, waiting records, and rows that wait for the disk."""
    return recorder.buffer_bytes + recorder.unread * _RECORD + writer.held_bytes
