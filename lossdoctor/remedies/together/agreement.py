"""What the processes of one training agree upon, through the store that torch's process group was made with.

No collective of ours can get between those of the training, and nothing here touches a device.
"""

import itertools
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import torch
from torch import distributed

from lossdoctor.remedies.keeping.holding import local
from lossdoctor.remedies.together.exchange import LeftError
from lossdoctor.remedies.together.terms import Terms

__all__ = ["Agreement"]

logger = logging.getLogger(__name__)

_MADE = itertools.count()
_JOIN = timedelta(seconds=30)
_LONG = timedelta(seconds=5)
_ANSWER = timedelta(minutes=10)
_LOOK = timedelta(seconds=2)
_GONE = "gone"
_NAMED = 8
"""Missing ranks that are named."""
_WAITING = (
    'waiting up to {seconds} s for {who} to make a Monitor with remediate="auto": all ranks are treated together or '
    "none is, so every rank has to make one, at the same place of the script"
)
_ABSENT = (
    '{who} made no Monitor with remediate="auto" within {seconds} s of the others; make one on every rank, with the '
    'same run_dir, or use remediate="suggest"'
)


class _Joined(msgspec.Struct, frozen=True):
    """What all ranks are told when they have come together: nothing speaks against it, or this."""

    why_not: str
    is_sharded: bool


class Agreement:
    """Messages between `world` ranks, each exchange made by all of them in the same order."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self._store, self.rank, self._world = store, rank, world
        self._count = 0
        self._sent: list[str] = []
        self._read: list[str] = []
        """Keys that every rank has read by now."""
        self._asked = -1.0, 0
        """The latest step of `by_all_at`, and how often it was asked there."""

    @classmethod
    def join(cls, terms: Terms) -> "tuple[Agreement | None, str, bool]":
        """The agreement of all ranks, or why there is none; and whether parameters are sharded on any of them.

        There is none where a rank does not come within half a minute, or where their terms are not alike. Every rank
        calls this as often as the others: once for each Monitor in `auto`.
        """
        number = next(_MADE)
        rank, world = distributed.get_rank(), distributed.get_world_size()
        store = distributed.distributed_c10d._get_default_store()  # noqa: SLF001 - the only store that all ranks share
        made = cls(distributed.distributed_c10d.PrefixStore(f"lossdoctor/{number}", store), rank, world)
        found = made._join(terms)
        return (made if not found.why_not else None), found.why_not, found.is_sharded

    def _join(self, terms: Terms) -> "_Joined":
        """What all ranks are bound by: rank 0's word, or that of the first to lose patience. Only one can be given."""
        self._store.set(f"here/{self.rank}", msgspec.msgpack.encode(terms))
        here = [f"here/{other}" for other in range(self._world)]
        if self.rank:
            patience = _JOIN + _LOOK  # rank 0 knows best who is missing
            mine = (
                None if self._come(["joined"], patience) else _Joined(self._who_is_missing(_ABSENT), is_sharded=False)
            )
        elif self._come(here, _JOIN):
            all_terms = [msgspec.msgpack.decode(one, type=Terms) for one in self._all(here)]
            mine = _Joined(Terms.differ(all_terms), is_sharded=any(one.is_sharded for one in all_terms))
        else:
            mine = _Joined(self._who_is_missing(_ABSENT), is_sharded=False)
        if mine is not None:
            self._store.compare_set("joined", "", msgspec.msgpack.encode(mine))
        return msgspec.msgpack.decode(self._store.get("joined"), type=_Joined)

    def _come(self, keys: list[str], patience: timedelta) -> bool:
        """Whether keys are set before the time is over. Says what it waits for when that takes long."""
        ends = time.monotonic() + patience.total_seconds()
        is_told = False
        while (left := ends - time.monotonic()) > 0:
            try:
                self._store.wait(keys, min(_LONG, timedelta(seconds=left)))
            except (RuntimeError, distributed.DistStoreError):
                if not is_told:
                    is_told = True
                    logger.warning("lossdoctor: %s", self._who_is_missing(_WAITING))
            else:
                return True
        return False

    def _who_is_missing(self, text: str) -> str:
        missing = [other for other in range(self._world) if not self._store.check([f"here/{other}"])] or [0]
        names = ", ".join(map(str, missing[:_NAMED])) + (" ..." if len(missing) > _NAMED else "")
        return text.format(who=f"rank{'s' if len(missing) > 1 else ''} {names}", seconds=_JOIN.seconds)

    def leave(self) -> None:
        """Say that this rank takes part no more: the others must not go on without it."""
        self._store.set(_GONE, b"1")

    @property
    def is_broken(self) -> bool:
        """Whether a rank has left."""
        return bool(self._store.check([_GONE]))

    def _wait(self, keys: list[str]) -> None:
        """Wait for messages, but not for those of a rank that has left. Raises LeftError."""
        ends = time.monotonic() + _ANSWER.total_seconds()
        while True:
            try:
                self._store.wait(keys, _LOOK)
                return
            except (RuntimeError, distributed.DistStoreError):
                if self.is_broken or time.monotonic() > ends:
                    raise LeftError from None

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

    def to_first(self, mine: bytes) -> list[bytes]:
        """What each rank has, on rank 0; nothing on the others."""
        key = self._next()
        self._send(f"{key}/{self.rank}", mine)
        if self.rank:
            return []
        keys = [f"{key}/{other}" for other in range(self._world)]
        self._wait(keys)
        return [msgspec.msgpack.decode(one, type=bytes) for one in self._all(keys)]

    def common(self, mine: set[float]) -> set[float]:
        """Those numbers that every rank has."""
        key = self._next()
        self._send(f"{key}/{self.rank}", sorted(mine))
        keys = [f"{key}/{other}" for other in range(self._world)]
        self._wait(keys)
        return set[float].intersection(*(set(msgspec.msgpack.decode(one)) for one in self._all(keys)))

    def by_all(self, *, mine: bool) -> bool:
        """Whether it is so on every rank."""
        return bool(self.common({1.0} if mine else set()))

    def least(self, mine: int) -> int:
        """The smallest of the ranks' numbers."""
        key = self._next()
        self._send(f"{key}/{self.rank}", mine)
        keys = [f"{key}/{other}" for other in range(self._world)]
        self._wait(keys)
        return min(msgspec.msgpack.decode(one, type=int) for one in self._all(keys))

    def by_all_at(self, step: float, *, mine: bool) -> bool:
        """Whether it is so on every rank at this step, of which each may ask when it likes, or never.

        Where a rank does not ask within half a minute, this one's own answer has to do.
        """
        at, asked = self._asked
        asked = asked + 1 if at == step else 1
        self._asked = step, asked
        keys = [f"at/{step:.0f}/{asked}/{other}" for other in range(self._world)]
        self._send(keys[self.rank], mine)
        try:
            self._store.wait(keys, _JOIN)
        except (RuntimeError, distributed.DistStoreError):
            logger.warning(
                "step %.0f: not every rank asks whether the weights are sound; this is the answer of rank %d alone. "
                "Ask on all of them, where parameters are sharded",
                step,
                self.rank,
            )
            return mine
        return all(msgspec.msgpack.decode(one, type=bool) for one in self._all(keys))

    def spread(self, model: torch.nn.Module) -> None:
        """Send the parameters and buffers of rank 0 to all ranks, in place. All ranks call it at the same step."""
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                distributed.broadcast(local(tensor.data), 0)

    def _all(self, keys: list[str]) -> list[bytes]:
        """The values of keys that are known to be set."""
        try:
            return [bytes(one) for one in self._store.multi_get(keys)]
        except RuntimeError:  # not every store has it
            return [bytes(self._store.get(key)) for key in keys]

    def _next(self) -> str:
        self._count += 1
        return f"{self._count}"

    def _send(self, key: str, value: Any) -> None:
        self._store.set(key, msgspec.msgpack.encode(value))
        self._sent.append(key)
