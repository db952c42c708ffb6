"""Where copies of a training's state are kept: in memory, or in files without a name.

A file without a name belongs to this process alone. Nobody finds it in the run directory, and its space is free again
with the last copy in it, however the process ends. It is filled by `write`, never through the mapping that it is read
by: a full disk is then an error that can be handled, and not a signal that ends the training.
"""

import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lossdoctor.remedies.keeping.copies import Keep, in_memory
from lossdoctor.remedies.keeping.holding import local

__all__ = ["PLACES", "Place", "Wanted", "available_memory"]

logger = logging.getLogger(__name__)

Wanted: TypeAlias = Literal["auto", "memory", "disk"]

PLACES: tuple[Wanted, ...] = get_args(Wanted)

_SMALL = 16_384
"""Bytes up to which a tensor is kept in memory all the same: there may be thousands of step counters."""
_ALIGNMENT = 64
_LEAST = 2
"""Generations that are worth keeping: the first of the run and the newest."""
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


class Place:
    """Where the copies of one training go.

    Args:
        wanted: "memory", "disk", or "auto": memory, but the disk where that holds more of them.
        directory: Where files may be made; None for memory in any case.
    """

    def __init__(self, wanted: Wanted = "memory", directory: Path | None = None) -> None:
        self._directory = directory
        self._wanted: Wanted = "memory" if directory is None else wanted
        self.is_disk = False
        """Whether large tensors go to files."""

    def settle(self, each: int, generations: int) -> int:
        """Decide by what is free, and say so; how many snapshots of `each` bytes are to be kept, 0 for none.

        One more than is kept is alive while the oldest is replaced, and half of what is free is left to others.
        """
        local = os.environ.get("LOCAL_WORLD_SIZE", "")  # as torchrun says: they share what is free
        ranks = max(int(local), 1) if local.isdecimal() else 1
        memory, disk = available_memory() // 2 // ranks, self._room_on_disk() // ranks
        in_memory_fit, on_disk_fit = (_fitting(room, each) for room in (memory, disk))
        is_short = in_memory_fit < generations
        self.is_disk = on_disk_fit >= _LEAST and (
            self._wanted == "disk" or (self._wanted == "auto" and is_short and on_disk_fit > in_memory_fit)
        )
        if self._wanted == "disk" and not self.is_disk:
            logger.warning(
                "snapshots for a rewind would take %.1f GB each, half of the free disk space is %.1f GB: "
                "they are kept in memory",
                each / 1e9,
                disk / 1e9,
            )
        fitting = min(on_disk_fit if self.is_disk else in_memory_fit, generations)
        fitting = fitting if fitting >= _LEAST else 0
        self._announce(each, fitting, generations, memory=memory, disk=disk)
        return fitting

    def _announce(self, each: int, fitting: int, generations: int, *, memory: int, disk: int) -> None:
        if self.is_disk:
            # They have no name: `du` does not show them, `df` does.
            logger.info(
                "snapshots for a rewind: at most %d of %.3g MB each, in unnamed files on the disk of %s; "
                "half of the free memory is %.1f GB, of the free disk space %.1f GB",
                fitting + 1,
                each / 1e6,
                self._directory,
                memory / 1e9,
                disk / 1e9,
            )
        elif fitting < generations:
            logger.warning(
                "snapshots for a rewind would take %.1f GB each, half of the free memory is %.1f GB: %s",
                each / 1e9,
                memory / 1e9,
                f"{fitting} are kept" if fitting else "none are taken, there will be no rewind",
            )
        else:
            logger.info("snapshots for a rewind: at most %d of %.3g MB each in memory", fitting + 1, each / 1e6)

    def _room_on_disk(self) -> int:
        """Half of the free bytes on the disk; 0 where there may be no files, or where they would be in memory."""
        if self._directory is None or self._wanted == "memory" or not hasattr(os, "pwrite"):  # Windows
            return 0
        try:
            if self._wanted == "auto" and _is_in_memory(self._directory):
                return 0
            return shutil.disk_usage(self._directory).free // 2
        except OSError:
            return 0

    def give_up_the_disk(self, error: OSError) -> None:
        """It is full, or cannot be written: what is copied from now on is kept in memory."""
        self._wanted, self.is_disk = "memory", False
        logger.warning("a snapshot for a rewind could not be written to disk (%s): they are kept in memory now", error)

    @contextmanager
    def keeper(self, tensors: Iterable[Tensor]) -> Iterator[Keep]:
        """What makes the copies of these tensors, each once. On disk it raises OSError where they cannot be written."""
        size = 0
        if self.is_disk:
            size = sum(_aligned(tensor.nbytes) for tensor in map(local, tensors) if _is_for_files(tensor))
        if not size:
            yield in_memory
            return
        with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
            yield _File(file.fileno(), size).keep


class _File:
    """An open file of `size` bytes, and the tensors in it. Its space is free once none of them is referred to."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        os.ftruncate(descriptor, size)
        self._bytes = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)  # which keeps the file open
        self._size, self._used = size, 0

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy of the tensor: in the file, where that is worth it.

        What is on a device comes through ordinary memory, and the training waits for it: pages of a file cannot be
        pinned. That takes longer than a copy to pinned memory, so it is done less often (`is_due`).
        """
        if not _is_for_files(tensor) or self._used + _aligned(tensor.nbytes) > self._size:
            return in_memory(tensor)
        host = tensor.cpu()
        flat = _in_order_of_memory(host)
        start, self._used = self._used, self._used + _aligned(host.nbytes)
        content = flat.view(torch.uint8).numpy().data
        while content:  # one call writes 2 GB at most
            written = os.pwrite(self._descriptor, content, start + host.nbytes - len(content))
            content = content[written:]
        values = self._bytes[start : start + host.nbytes].view(host.dtype)
        return values.as_strided(host.shape, torch.empty_like(host, device="meta").stride())


def _is_for_files(tensor: Tensor) -> bool:
    """Whether it is large, and nothing but its numbers: no subclass (DTensor), not sparse, not quantized."""
    tensor = tensor.detach()
    is_plain = type(tensor) is Tensor and tensor.layout is torch.strided
    if not is_plain or tensor.is_meta or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.nbytes > _SMALL


def _in_order_of_memory(tensor: Tensor) -> Tensor:
    """The elements in the order in which `torch.empty_like` would have them: channels_last stays what it is."""
    tensor = tensor.detach()
    if torch.empty_like(tensor, device="meta").stride() != tensor.stride():
        tensor = tensor.clone()
    return tensor.as_strided((tensor.numel(),), (1,))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _fitting(room: int, each: int) -> int:
    return max(room // max(each, 1) - 1, 0)


def _is_in_memory(directory: Path) -> bool:
    """Whether the files of a directory take memory; only Linux says so."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    kinds = {line.split()[1]: line.split()[2] for line in lines if len(line.split()) > 2}  # noqa: PLR2004
    here = directory.resolve()
    kind = next((kinds[str(parent)] for parent in (here, *here.parents) if str(parent) in kinds), "")
    return kind in _MEMORY_FILE_SYSTEMS


def available_memory() -> int:
    """Bytes of host memory that are free or can be freed; very many where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 1 << 62
