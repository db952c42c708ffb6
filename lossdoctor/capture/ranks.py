"""What a Monitor does differently where several processes train one model."""

from os import PathLike
from pathlib import Path

from lossdoctor.capture.faults import Faults
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.layout import default_run_directory

__all__ = ["directory_of", "why_not_treated"]


def directory_of(run_dir: str | PathLike[str] | None, rank: int, faults: Faults) -> Path | None:
    """Where to record; None, said once, for a rank other than 0 that was told no place.

    Raises:
        RunDirectoryError: It cannot be made.
    """
    directory = default_run_directory(rank) if run_dir is None else Path(run_dir)
    if directory is None:
        faults.mention(
            "run_dir",
            f"rank {rank} was given no run_dir and records nothing; give every rank's Monitor the same run_dir, or set "
            "LOSSDOCTOR_RUN_DIR",
        )
    return directory


def why_not_treated(info: RunInfo) -> str:
    """Why remedies cannot be applied to this training; empty where they can."""
    if info.world_size > 1 and info.sharded:
        return "no process holds the whole model: what one of them changed would set its shards apart"
    return ""
