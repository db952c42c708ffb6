"""What the processes of one training agree upon, through the store that torch's process group was made with.

No collective of ours can get between those of the training, and nothing here touches a device.
"""

import itertools
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import torch
from torch import distributed

__all__ = ["Agreement"]

_MADE = itertools.count()
_JOIN = timedelta(seconds=30)
_ANSWER = timedelta(minutes=10)
_LOOK = timedelta(seconds=2)
_GONE = "gone"


class Agreement:
    """Messages between `world` ranks, each exchange made by all of them in the same order."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self._store, self.rank, self._world = store, rank, world
        self._count = 0
        self._sent: list[str] = []
        self._read: list[str] = []
        """Keys that every rank has read by now."""

    @classmethod
    def join(cls) -> "Agreement | None":
        """The agreement of all ranks; None where one of them does not come within half a minute.

        Every rank calls this as often as the others: once for each Monitor in `auto`.
        """
        number = next(_MADE)
        rank, world = distributed.get_rank(), distributed.get_world_size()
        store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - the only store that all ranks share
        made = cls(distributed.distributed_c10d.PrefixStore(f"lossdoctor/{number}", store), rank, world)
        made._store.set(f"here/{rank}", b"1")
        try:
            made._store.wait([f"here/{other}" for other in range(world)], _JOIN)
        except (RuntimeError, distributed.DistStoreError):
            return None
        return made

    def leave(self) -> None:
        """Say that this rank takes part no more: the others must not go on without it."""
        self._store.set(_GONE, b"1")

    @property
    def is_broken(self) -> bool:
        """Whether a rank has left."""
        return bool(self._store.check([_GONE]))

    def _wait(self, keys: list[str]) -> None:
        """Wait for messages, but not for those of a rank that has left. Raises RuntimeError."""
        ends = time.monotonic() + _ANSWER.total_seconds()
        while True:
            try:
                self._store.wait(keys, _LOOK)
                return
            except (RuntimeError, distributed.DistStoreError):
                if self.is_broken or time.monotonic() > ends:
                    raise RuntimeError("a rank takes part in the remedies no more") from None

    def new_round(self) -> None:
        """Delete what was sent before the last round: gradients were reduced since, so every rank has read it."""
        for key in self._read:
            self._store.delete_key(key)
        self._read, self._sent = self._sent, []

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What `make` returns on rank 0, on all ranks. Only rank 0 calls it."""
        key = self._next()
        if self.rank == 0:
            value = make()
            self._send(key, value)
            return value
        self._wait([key])
        return msgspec.msgpack.decode(self._store.get(key))

    def common(self, mine: set[float]) -> set[float]:
        """Those numbers that every rank has."""
        key = self._next()
        self._send(f"{key}/{self.rank}", sorted(mine))
        keys = [f"{key}/{other}" for other in range(self._world)]
        self._wait(keys)
        return set[float].intersection(*(set(msgspec.msgpack.decode(self._store.get(one))) for one in keys))

    def spread(self, model: torch.nn.Module) -> None:
        """Send the parameters and buffers of rank 0 to all ranks, in place. All ranks call it at the same step."""
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                distributed.broadcast(tensor.data, 0)

    def _next(self) -> str:
        self._count += 1
        return f"{self._count}"

    def _send(self, key: str, value: Any) -> None:
        self._store.set(key, msgspec.msgpack.encode(value))
        self._sent.append(key)
