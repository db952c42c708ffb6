"""The run directory: what a training recorded, written without loss and read back whatever happened."""

from lossdoctor.runs.events import Event, FindingEvent, Intervention, Mark
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.layout import new_run_directory
from lossdoctor.runs.reader import find_runs, is_run, read_run
from lossdoctor.runs.tables import BLOCK_ROWS, Block, Column, Run, Table
from lossdoctor.runs.writer import RunWriter

__all__ = [
    "BLOCK_ROWS",
    "Block",
    "Column",
    "Event",
    "FindingEvent",
    "Intervention",
    "Mark",
    "Run",
    "RunInfo",
    "RunWriter",
    "Table",
    "find_runs",
    "is_run",
    "new_run_directory",
    "read_run",
]
