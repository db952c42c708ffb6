"""Logs that are not ours: every reader, and what their columns mean."""

from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.meaning import runs_of
from lossdoctor.runs.readers.registry import find_logs, is_log, logs_at

__all__ = ["Log", "Series", "find_logs", "is_log", "logs_at", "runs_of"]
