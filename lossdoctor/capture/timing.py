"""Time: how long a step took, evaluation excluded, and how much of it was waiting for data."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor

from lossdoctor.capture.data_watch import Pass, Split

__all__ = ["Batches", "StopWatch"]

_T = TypeVar("_T")


class StopWatch:
    """Seconds since the previous record, and seconds of them spent waiting for the loader."""

    def __init__(self) -> None:
        self.since = -math.inf
        """When the previous record was finished, in seconds of time.perf_counter."""
        self.step_time = 0.0
        """Seconds between the two previous records."""
        self._wait = 0.0
        self._is_waiting_known = False
        self.is_plain = False
        """Whether a lap is nothing but a look at the clock."""
        self.batch_size: int | None = None
        """Samples of the batches fetched since the previous record, as far as their shapes tell."""

    def waited(self, seconds: float, samples: int | None) -> None:
        """Count a fetch of a batch of `samples`."""
        self._wait += seconds
        self._is_waiting_known, self.is_plain = True, False
        if samples is not None:
            self.batch_size = (self.batch_size or 0) + samples

    def lap(self, values: dict[str, float]) -> float | None:
        """Note data_wait, return the seconds since the previous record (None at the first), and start again."""
        now = time.perf_counter()
        since, self.since = self.since, now
        if self._is_waiting_known:
            values["data_wait"] = self._wait
            self._wait = 0.0
            self.batch_size = None
        if since == -math.inf:
            return None
        self.is_plain = not self._is_waiting_known
        step_time = self.step_time = now - since
        return step_time

    def restart(self) -> None:
        """Forget the time since the previous record: it was spent on something else."""
        self._wait = 0.0
        self.batch_size = None
        if self.since != -math.inf:
            self.since = time.perf_counter()


class Batches(Generic[_T]):
    """An iterable over a loader that watches its batches. Each iteration over it is one iteration over the loader.

    With a `watch` every wait is timed and every epoch marked: validation has none. `begin` begins to watch a pass.

    Anything else asked of it (`len`, `dataset`, `sampler`) is the loader's own.
    """

    def __init__(
        self,
        loader: Iterable[_T],
        watch: StopWatch | None,
        on_epoch: Callable[[], None],
        begin: Callable[[Split, Any], Pass],
    ) -> None:
        self._loader = loader
        self._watch = watch
        self._on_epoch = on_epoch
        self._begin = begin

    def __iter__(self) -> Iterator[_T]:
        clock, watch = time.perf_counter, self._watch
        if watch is None:
            seen = self._begin("val", self._loader)
            for batch in self._loader:
                if seen.is_due:
                    seen.saw(batch)
                yield batch
            seen.end()
            return
        self._on_epoch()
        seen = self._begin("train", self._loader)
        limit = getattr(self._loader, "batch_size", None)
        began = clock()
        for batch in self._loader:
            waited = clock() - began
            try:
                samples = _samples(batch, limit)
            except Exception:  # noqa: BLE001 - a batch may be anything; its size is a courtesy
                samples = None
            watch.waited(waited, samples)
            if seen.is_due:
                seen.saw(batch)
            yield batch
            if seen.is_reported:
                seen.between()
            began = clock()
        seen.end()

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]  # TypeError where the loader has no length, as it is

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":
            raise AttributeError(name)
        return getattr(self._loader, name)


def _samples(batch: object, limit: object) -> int | None:
    """Samples of a batch: the length of its first tensor, where the loader's batch size does not contradict it."""
    while isinstance(batch, Mapping | list | tuple):
        if not batch:
            return None
        batch = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
    if isinstance(limit, int) and isinstance(batch, Tensor) and batch.ndim and batch.shape[0] <= limit:
        return int(batch.shape[0])
    return None
