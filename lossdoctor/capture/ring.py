"""Numbers on their way from a device to the host, without a wait.

On an accelerator they are copied into a buffer there; every few steps the buffer is shipped to pinned memory and an
event marks its arrival; whoever polls later finds it. Norms in host memory are kept as they are until then: to gather
those of many steps at once costs a fifth of gathering them step by step, when caches are full of the training. Values
on the meta device have no numbers and are never read: what depends on them stays unobserved.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from lossdoctor.capture.measures import norms

__all__ = ["Drain", "Event", "Ring", "Sink", "Waiting", "host_number"]

Sink: TypeAlias = Callable[[list[float]], None]
"""Takes the numbers when they have arrived."""

_CAPACITY = 16_384
"""Numbers in one buffer: eight steps of a model of 1,000 tensors, read twice."""


class Event(Protocol):
    """As much of torch.Event as is needed."""

    def record(self) -> None:
        """Mark this point of the device's work."""

    def query(self) -> bool:
        """Whether the device has come past it."""

    def synchronize(self) -> None:
        """Wait until it has."""


class Waiting(Protocol):
    """What is complete once nothing of it is on its way any more."""

    waiting: int


@dataclass(slots=True)
class _Parcel:
    """One buffer: filled on the device, then on its way to `host`."""

    device: Tensor
    host: Tensor
    event: Event
    used: int = 0
    content: list[tuple[int, int, Waiting, Sink]] = field(default_factory=list)


class Ring:
    """The buffers of one accelerator. There are as many as are under way at a time, usually two or three."""

    def __init__(self, device: torch.device, *, event: Callable[[], Event] | None = None, pinned: bool = True) -> None:
        self._device = device
        self._event = event or (lambda: torch.Event(device))
        self._pinned = pinned
        self._free: list[_Parcel] = []
        self._filling: _Parcel | None = None
        self._under_way: deque[_Parcel] = deque()

    def push(self, numbers: Tensor, record: Waiting, sink: Sink) -> None:
        """Take the numbers, shape (n,), of a record; `sink` gets them once they are on the host."""
        count = numbers.numel()
        if self._filling is not None and self._filling.used + count > self._filling.device.numel():
            self.ship()
        if self._filling is None:
            self._filling = self._parcel(count)
        parcel = self._filling
        end = parcel.used + count
        parcel.device[parcel.used : end].copy_(numbers)
        parcel.content.append((parcel.used, end, record, sink))
        parcel.used = end
        record.waiting += 1

    def ship(self) -> None:
        """Send what has been taken so far on its way."""
        if (parcel := self._filling) is not None:
            parcel.host[: parcel.used].copy_(parcel.device[: parcel.used], non_blocking=True)
            parcel.event.record()
            self._under_way.append(parcel)
            self._filling = None

    def deliver(self) -> None:
        """Hand out what has arrived, in order."""
        while self._under_way and self._under_way[0].event.query():
            self._open(self._under_way.popleft())

    def wait(self, *, newest: int = 0) -> None:
        """Hand out all that was shipped but the `newest` parcels, waiting for what has not arrived."""
        while len(self._under_way) > newest:
            parcel = self._under_way.popleft()
            parcel.event.synchronize()
            self._open(parcel)

    @property
    def buffer_bytes(self) -> int:
        """Memory of the buffers, on the device and pinned on the host together."""
        parcels = [*self._free, *self._under_way, *([] if self._filling is None else [self._filling])]
        return sum(parcel.device.nbytes + parcel.host.nbytes for parcel in parcels)

    def _open(self, parcel: _Parcel) -> None:
        numbers: list[float] = parcel.host[: parcel.used].numpy().tolist()
        content, parcel.content, parcel.used = parcel.content, [], 0
        self._free.append(parcel)
        for start, end, record, sink in content:
            record.waiting -= 1
            sink(numbers[start:end])

    def _parcel(self, count: int) -> _Parcel:
        for index, parcel in enumerate(self._free):
            if parcel.device.numel() >= count:
                return self._free.pop(index)
        size = max(count, _CAPACITY)
        return _Parcel(
            torch.empty(size, dtype=torch.float32, device=self._device),
            torch.empty(size, dtype=torch.float32, device="cpu", pin_memory=self._pinned),
            self._event(),
        )


_SCALAR_BYTES = 400
"""A tensor of one number on the host: the object, its storage and what Python keeps of it."""


class _Shelf:
    """Scalars in host memory, until they are gathered."""

    def __init__(self) -> None:
        self._scalars: list[Tensor] = []
        self._content: list[tuple[int, int, Waiting, Sink]] = []

    def push(self, scalars: Sequence[Tensor], record: Waiting, sink: Sink) -> None:
        """Take numbers of a record, a tensor without dimensions each."""
        start = len(self._scalars)
        self._scalars.extend(scalars)
        self._content.append((start, len(self._scalars), record, sink))
        record.waiting += 1
        if len(self._scalars) > _CAPACITY:
            self.deliver()

    @property
    def buffer_bytes(self) -> int:
        """Memory of the scalars, about."""
        return len(self._scalars) * _SCALAR_BYTES

    def deliver(self) -> None:
        """Hand out what is here."""
        if self._content:
            numbers: list[float] = torch.stack(self._scalars).double().numpy().tolist()
            content, self._content, self._scalars = self._content, [], []
            for start, end, record, sink in content:
                record.waiting -= 1
                sink(numbers[start:end])


class Drain:
    """Reads numbers from wherever they are: a shelf for the host, one ring for each accelerator."""

    def __init__(self) -> None:
        self._shelf = _Shelf()
        self._rings: dict[torch.device, Ring] = {}

    def scalar(self, value: Tensor, record: Waiting, sink: Sink) -> None:
        """Read a tensor of one element."""
        if value.is_cpu:
            sink([host_number(value)])
        elif not value.is_meta:
            self._ring(value.device).push(value.detach().reshape(1), record, sink)

    def vector(self, numbers: Tensor, record: Waiting, sink: Sink) -> None:
        """Read a few numbers of one tensor, shape (n,)."""
        if numbers.is_cpu:
            sink(numbers.detach().double().numpy().tolist())
        elif not numbers.is_meta:
            self._ring(numbers.device).push(numbers.detach(), record, sink)

    def norms(self, tensors: list[Tensor], record: Waiting, sink: Sink) -> None:
        """Read the L2 norm of each of the tensors, which are on one device."""
        if not tensors:
            sink([])
        elif tensors[0].is_cpu:
            self._shelf.push(norms(tensors), record, sink)
        elif not tensors[0].is_meta:
            self._ring(tensors[0].device).push(torch.stack(list(norms(tensors))), record, sink)

    def scalars(self, values: Sequence[Tensor], record: Waiting, sink: Sink) -> None:
        """Read tensors without dimensions, which are on one device and whose memory nothing else writes to."""
        if not values:
            sink([])
        elif values[0].is_cpu:
            self._shelf.push(values, record, sink)
        elif not values[0].is_meta:
            self._ring(values[0].device).push(torch.stack(list(values)), record, sink)

    def ship(self) -> None:
        """Send what has been taken so far on its way."""
        for ring in self._rings.values():
            ring.ship()

    def deliver(self) -> None:
        """Hand out what has arrived."""
        self._shelf.deliver()
        for ring in self._rings.values():
            ring.deliver()

    def wait(self, *, newest: int = 0) -> None:
        """Hand out all but the `newest` shipments of each device. This waits for the device."""
        self._shelf.deliver()
        for ring in self._rings.values():
            ring.wait(newest=newest)

    @property
    def buffer_bytes(self) -> int:
        """Memory of everything that is on its way."""
        return self._shelf.buffer_bytes + sum(ring.buffer_bytes for ring in self._rings.values())

    @property
    def is_on_host(self) -> bool:
        """Whether everything read so far was in host memory."""
        return not self._rings

    def _ring(self, device: torch.device) -> Ring:
        ring = self._rings.get(device)
        if ring is None:
            ring = self._rings[device] = Ring(device)
        return ring


def host_number(value: Tensor) -> float:
    """The number in a tensor of one element in host memory. Not by item(): on a device that is a sync."""
    value = value.detach()
    if value.dtype == torch.bfloat16:  # numpy does not know it
        value = value.float()
    return float(value.numpy().item())
