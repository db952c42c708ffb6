"""How fast logs are read, and with how much memory, beside the readers people use today, all in one run.

    python -m benchmarks.reading                 # 1,000,000 events, 500,000 rows
    python -m benchmarks.reading --events 200000

Each reader runs in a process of its own, so that the peak of its memory is its own. Figures are medians of three, by
CPU time: what a busy machine does beside does not count. The event file is as torch writes them: 20 tags, a scalar an
event. A reader that is not installed is left out.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import google_crc32c

TAGS = 20


def _masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def _framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", _masked(length)) + record + struct.pack("<I", _masked(record))


def write_events(path: Path, events: int) -> None:
    from tensorboard.compat.proto import event_pb2

    with path.open("wb") as file:
        file.write(_framed(event_pb2.Event(wall_time=1.7e9, file_version="brain.Event:2").SerializeToString()))
        for number in range(events):
            event = event_pb2.Event(wall_time=1.7e9 + number * 0.01, step=number // TAGS)
            event.summary.value.add(tag=f"train/metric_{number % TAGS:02d}", simple_value=number * 0.5)
            file.write(_framed(event.SerializeToString()))


def write_table(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("epoch,step,train_loss,val_loss,lr\n")
        for row in range(rows):
            val = f"{2 / (row + 1):.6f}" if row % 100 == 0 else ""
            file.write(f"{row // 1000},{row},{1 / (row + 1):.6f},{val},0.0001\n")


def write_lines(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for row in range(rows):
            file.write(json.dumps({"step": row, "loss": 1 / (row + 1), "lr": 1e-4, "grad_norm": 0.5}) + "\n")


def ours(path: Path) -> int:
    from lossdoctor.runs.readers import logs_at

    return max(len(series.at) for log in logs_at(path) for series in log.series.values())


def scanner(path: Path) -> int:
    from lossdoctor.runs.readers.event_files import read_scalars

    return len(read_scalars(path).value)


def event_accumulator(path: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    reader = EventAccumulator(str(path), size_guidance={SCALARS: 0})
    reader.Reload()
    return sum(len(reader.Scalars(tag)) for tag in reader.Tags()["scalars"])


def tbparse(path: Path) -> int:
    from tbparse import SummaryReader

    return len(SummaryReader(str(path)).scalars)


def pandas_csv(path: Path) -> int:
    import pandas as pd

    return len(pd.read_csv(path))


def pandas_json(path: Path) -> int:
    import pandas as pd

    return len(pd.read_json(path, lines=True))


def _measure(read: Callable[[Path], int], path: Path, results: "multiprocessing.Queue[tuple[float, float]]") -> None:
    warm = path.with_name(f"small-{path.name}")
    read(warm)  # imports are not reading
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    read(path)
    took = time.process_time() - began
    results.put((took, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def measured(read: Callable[[Path], int], path: Path, repeats: int = 3) -> tuple[float, float]:
    """Median CPU seconds, and the largest growth of memory in MB."""
    context = multiprocessing.get_context("spawn")
    found = []
    for _ in range(repeats):
        results = context.Queue()
        process = context.Process(target=_measure, args=(read, path, results))
        process.start()
        found.append(results.get())
        process.join()
    return statistics.median(took for took, _ in found), max(memory for _, memory in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=500_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cases = (
            (
                "events.out.tfevents.1700000000.host",
                write_events,
                options.events,
                "events",
                (scanner, ours, event_accumulator, tbparse),
            ),
            ("metrics.csv", write_table, options.rows, "rows", (ours, pandas_csv)),
            ("log.jsonl", write_lines, options.rows, "rows", (ours, pandas_json)),
        )
        for file, write, count, unit, readers in cases:
            path = directory / file
            write(path, count)
            write(path.with_name(f"small-{file}"), 100)
            print(f"{file}: {count:,} {unit}, {path.stat().st_size / 1e6:.0f} MB")
            for read in readers:
                if read is tbparse and find_spec("tbparse") is None:
                    print("  tbparse             not installed")
                    continue
                seconds, memory = measured(read, path)
                print(f"  {read.__name__:<18} {count / seconds / 1e6:7.3f} M {unit}/s  {memory:6.0f} MB")


if __name__ == "__main__":
    main()
