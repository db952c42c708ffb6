"""What a Monitor does differently where several processes train one model."""

from os import PathLike
from pathlib import Path
from typing import Any

from lossdoctor.capture.faults import Faults
from lossdoctor.capture.scaler import ScalerWatch
from lossdoctor.capture.shards import Shards
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


def why_not_treated(shards: Shards | None, scaler: Any) -> str:
    """Why remedies cannot be applied to a training by several processes; empty where they can."""
    sharded = any(kind.__name__ == "ShardedGradScaler" for kind in type(scaler).__mro__)
    if shards is not None and shards.are_flat and ScalerWatch(scaler).is_enabled and not sharded:
        return (
            f"{type(scaler).__name__} looks at one rank's shards only, so ranks would skip different steps; use "
            "torch's ShardedGradScaler with FullyShardedDataParallel"
        )
    return ""
