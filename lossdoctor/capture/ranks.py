"""What a Monitor does differently where several processes train one model."""

from os import PathLike
from pathlib import Path

from lossdoctor.capture.faults import Faults
from lossdoctor.runs.info import RunInfo
from lossdoctor.runs.layout import default_run_directory

__all__ = ["directory_of", "may_treat"]


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


def may_treat(info: RunInfo, faults: Faults) -> bool:
    """Whether remedies may be applied: not by one process of several, which would set its replica apart."""
    if info.world_size > 1:
        faults.mention(
            "remedies",
            'remediate="auto" changes nothing where several processes train one model: what one of them changed would '
            'set its replica apart. It works as "suggest"',
        )
    return info.world_size == 1
