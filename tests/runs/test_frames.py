"""lossdoctor.runs.frames."""

import random

import numpy as np
import pyarrow as pa
import pytest

from lossdoctor.runs.frames import END, scan, seal

BATCHES = [pa.record_batch({"x": pa.array(np.arange(4, dtype=np.float32) + 10 * i)}) for i in range(3)]
PIECES = [seal(BATCHES[0].schema.serialize()), *(seal(batch.serialize()) for batch in BATCHES)]
STREAM = b"".join(PIECES) + END


def messages(data):
    return [bytes(message) for message in scan(data).messages]


def test_a_sealed_stream_is_an_ordinary_arrow_stream():
    assert pa.ipc.open_stream(STREAM).read_all().equals(pa.Table.from_batches(BATCHES))


def test_all_messages_of_a_whole_stream_are_found():
    found = scan(STREAM)
    assert messages(STREAM) == PIECES
    assert (found.ended, found.torn, found.gaps) == (True, False, 0)


def test_what_comes_before_any_cut_is_found_and_the_cut_is_known():
    for size in range(len(STREAM)):
        found = scan(STREAM[:size])
        whole = [piece for i, piece in enumerate(PIECES) if sum(map(len, PIECES[: i + 1])) <= size]
        assert messages(STREAM[:size]) == whole
        assert found.torn == (size != sum(map(len, whole)))
        assert (found.ended, found.gaps) == (False, 0)


def test_any_flipped_bit_costs_one_message_and_is_noticed():
    ends = np.cumsum([len(piece) for piece in PIECES])
    for position in range(len(STREAM)):
        data = bytearray(STREAM)
        data[position] ^= 1 << (position % 8)
        found = scan(bytes(data))
        hit = np.searchsorted(ends, position, side="right")
        assert messages(bytes(data)) == [piece for i, piece in enumerate(PIECES) if i != hit]
        assert found.gaps + found.torn == 1


def test_what_follows_garbage_is_found():
    noise = random.Random(0).randbytes(999)
    found = scan(PIECES[0] + noise + PIECES[1] + noise)
    assert [bytes(message) for message in found.messages] == PIECES[:2]
    assert found.gaps == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 10_000,
        b"\xff" * 10_000,
        END * 1_000,
        b"lossdoc\x01" * 1_000,
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 1_000,
        b"\xff\xff\xff\xff\x30\x00\x00\x00" + b"\x00" * 24 + b"lossdoc\x01" + b"\xff" * 16,
    ],
)
def test_garbage_is_no_message_and_costs_no_memory(data):
    found = scan(data)
    assert found.messages == []
    assert found.torn or found.gaps


def test_nothing_is_wrong_with_no_data():
    assert scan(b"") == scan(b"")
    assert (scan(b"").torn, scan(b"").gaps) == (False, 0)
