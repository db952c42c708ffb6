"""The way from a device to the host, with an event that arrives when the test says so."""

from dataclasses import dataclass

import torch

from lossdoctor.capture.ring import Drain, Ring, host_number


@dataclass
class Arrival:
    """Stands for torch.Event: arrives when told, or when waited for."""

    has_arrived: bool = False
    recorded: int = 0
    waits: int = 0

    def record(self) -> None:
        self.recorded += 1
        self.has_arrived = False

    def query(self) -> bool:
        return self.has_arrived

    def synchronize(self) -> None:
        self.waits += 1
        self.has_arrived = True


@dataclass
class Record:
    waiting: int = 0


def ring() -> tuple[Ring, list[Arrival]]:
    events: list[Arrival] = []

    def event() -> Arrival:
        events.append(Arrival())
        return events[-1]

    return Ring(torch.device("cpu"), event=event, pinned=False), events


def test_numbers_arrive_in_order_and_only_when_the_device_is_done():
    way, events = ring()
    first, second, got = Record(), Record(), []
    way.push(torch.tensor([1.0, 2.0]), first, lambda numbers: got.append(("first", numbers)))
    way.ship()
    way.push(torch.tensor([3.0]), second, lambda numbers: got.append(("second", numbers)))
    way.ship()
    events[1].has_arrived = True
    way.deliver()
    assert got == []
    assert (first.waiting, second.waiting) == (1, 1)
    events[0].has_arrived = True
    way.deliver()
    assert got == [("first", [1.0, 2.0]), ("second", [3.0])]
    assert (first.waiting, second.waiting) == (0, 0)
    assert sum(event.waits for event in events) == 0


def test_waiting_leaves_the_newest_shipments_alone():
    way, events = ring()
    got: list[float] = []
    for number in range(3):
        way.push(torch.tensor([float(number)]), Record(), got.extend)
        way.ship()
    way.wait(newest=1)
    assert got == [0.0, 1.0]
    assert [event.waits for event in events] == [1, 1, 0]


def test_buffers_are_used_again():
    way, events = ring()
    got: list[float] = []
    for number in range(100):
        way.push(torch.tensor([float(number)]), Record(), got.extend)
        way.ship()
        events[-1].has_arrived = True
        way.deliver()
    assert got == [float(number) for number in range(100)]
    assert len(events) == 1


def test_a_vector_larger_than_a_buffer_gets_its_own():
    way, _ = ring()
    got: list[float] = []
    way.push(torch.ones(3), Record(), got.extend)
    way.push(torch.full((100_000,), 2.0), Record(), got.extend)
    way.ship()
    way.wait()
    assert len(got) == 100_003


def test_meta_tensors_are_never_read():
    drain, record, got = Drain(), Record(), []
    drain.scalar(torch.ones((), device="meta"), record, got.extend)
    drain.norms([torch.ones(3, device="meta")], record, got.extend)
    drain.ship()
    drain.wait()
    assert got == []
    assert record.waiting == 0


def test_host_numbers_keep_their_precision():
    assert host_number(torch.tensor(1.5, dtype=torch.bfloat16)) == 1.5
    assert host_number(torch.tensor([0.1], dtype=torch.float64, requires_grad=True)) == 0.1
