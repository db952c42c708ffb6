"""What a training takes of its machine: memory of the process and of the device, and how busy the device is.

A thread of its own reads them once a second, and the next record takes what it found: a driver that answers slowly
costs the training nothing. Memory of a device is what torch's allocator counts on the host, read where a record ends:
always at the same point of a step, and without asking the device.
"""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lossdoctor.capture.faults import Faults

__all__ = ["ResourceSampler", "accelerators", "resident_bytes"]

_SECONDS = 1.0
_STATM = Path("/proc/self/statm")


class ResourceSampler:
    """Reads resources in the background; whoever finishes a record asks `fresh` and, if so, calls `attach`.

    Args:
        devices: The accelerators that hold the parameters; none for a training on the CPU.
        faults: Where an instrument that fails is named.
        every: Seconds between two readings.
    """

    def __init__(self, devices: Sequence[torch.device], faults: Faults, *, every: float = _SECONDS) -> None:
        """Read once, so that the first record has it, and start the thread."""
        self.fresh = False
        """Whether something was read that no record took yet."""
        self._devices = list(devices)
        self._every = every
        self._readings: dict[str, float] = {}
        self._ended = threading.Event()
        self._knows_utilization = any(device.type == "cuda" for device in devices)
        self._read_device = faults.protect("device memory", self._read_device_memory)
        self._read_host()
        threading.Thread(target=self._work, name="lossdoctor-resources", daemon=True).start()

    def attach(self, values: dict[str, float]) -> None:
        """Note the last reading in the values of a record."""
        self.fresh = False
        values.update(self._readings)
        if self._devices:
            self._read_device(values)

    def close(self) -> None:
        """End the thread; nothing waits for it."""
        self._ended.set()

    def _work(self) -> None:
        # The first reading of the device may load a library and start a driver: not while the training waits.
        while True:
            if self._knows_utilization:
                self._read_utilization()
            if self._ended.wait(self._every):
                return
            self._read_host()

    def _read_host(self) -> None:
        resident = resident_bytes()
        if resident is not None:
            self._readings = {**self._readings, "process_memory": float(resident)}
            self.fresh = True

    def _read_utilization(self) -> None:
        """Through NVML, by way of torch, which knows which of its devices is which."""
        try:
            busy = [torch.cuda.utilization(device) for device in self._devices if device.type == "cuda"]
        except Exception:  # noqa: BLE001 - no library, no permission, no such query: a thing that is not known
            self._knows_utilization = False
            self._readings = {name: value for name, value in self._readings.items() if name != "gpu_utilization"}
        else:
            self._readings = {**self._readings, "gpu_utilization": sum(busy) / len(busy) / 100}

    def _read_device_memory(self, values: dict[str, float]) -> None:
        """Of the fullest device."""
        values["device_memory"] = float(max(map(torch.cuda.memory_allocated, self._devices)))
        values["device_memory_peak"] = float(max(map(torch.cuda.max_memory_allocated, self._devices)))


def accelerators(parameters: Sequence[Tensor]) -> list[torch.device]:
    """The CUDA devices (ROCm's too) that hold parameters, each once."""
    return [device for device in dict.fromkeys(parameter.device for parameter in parameters) if device.type == "cuda"]


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM, in bytes; where the system does not say, the most there was, or None."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - there is none on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
