"""Logs that lie elsewhere (s3://, gs://, hf://, https://): fetched through fsspec into a temporary directory."""

from pathlib import Path, PurePosixPath
from typing import Any

from lossdoctor.errors import LogError, UsageError

__all__ = ["fetch", "is_remote"]

_LARGEST = 2 * 1024**3
_WEIGHTS = frozenset(
    {".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".onnx", ".npy", ".npz", ".h5", ".pkl", ".parquet"}
)
"""Ends of files that a training leaves beside its logs, and that are large."""


def is_remote(path: str) -> bool:
    """Whether a path is an address with a protocol.

    >>> is_remote("s3://bucket/runs"), is_remote("runs/a")
    (True, False)
    """
    return "://" in path


def fetch(address: str, into: Path) -> Path:
    """Copy what may be logs at an address into a directory; returns the file or directory there.

    Raises:
        UsageError: fsspec, or what it needs for this protocol, is not installed.
        LogError: There is nothing at the address, or it cannot be read.
    """
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{address}: reading this needs fsspec; pip install 'lossdoctor[remote]'") from None
    try:
        system, root = fsspec.core.url_to_fs(address)
        return _copied(system, root, into, address)
    except ImportError as error:
        raise UsageError(f"{address}: {error}") from None
    except LogError:
        raise
    except Exception as error:  # each protocol has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LogError(f"{address}: cannot be read: {reason}; check the address and your credentials") from error


def _copied(system: Any, root: str, into: Path, address: str) -> Path:
    top = into / (PurePosixPath(root).name or "root")
    if system.isfile(root):
        system.get_file(root, str(top))
        return top
    found = False
    for name, info in system.find(root, detail=True).items():
        relative = PurePosixPath(name).relative_to(PurePosixPath(root))
        if relative.suffix.lower() in _WEIGHTS or ".." in relative.parts or (info.get("size") or 0) > _LARGEST:
            continue
        target = top / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(name, str(target))
        found = True
    if not found:
        raise LogError(f"{address}: nothing there that could be a log; check the address")
    return top
