"""lossdoctor.capture.resources and footprint."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from lossdoctor import Monitor
from lossdoctor.capture import resources
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.resources import ResourceSampler, accelerators, resident_bytes
from lossdoctor.runs import read_run

CUDA = torch.device("cuda", 0)


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_resident_memory_follows_an_allocation():
    before = resident_bytes()
    ballast = np.ones(8_000_000)
    assert resident_bytes() - before > 0.8 * ballast.nbytes


def test_the_first_record_has_a_reading_and_later_ones_one_a_second(tmp_path):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, tmp_path / "run") as monitor:
        for _ in range(26):
            loss = model(torch.randn(2, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(0.05)
            monitor.step(loss)
    run = read_run(tmp_path / "run")
    memory = run.steps.columns["process_memory"]
    assert memory.mask()[0]
    assert 2 <= memory.mask().sum() <= 4
    assert (memory.values[memory.mask()] > 10_000_000).all()
    assert "device_memory" not in run.steps.columns
    assert "gpu_utilization" not in run.steps.columns
    assert 0 < run.info.monitor_memory < 10_000_000


def test_a_gpu_is_read_without_asking_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3e9)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 4e9)
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: 80)
    sampler = ResourceSampler([CUDA], Faults(), every=0.01)
    values = {}

    def arrived():
        sampler.attach(values)
        return "gpu_utilization" in values

    until(arrived)
    sampler.close()
    assert values["gpu_utilization"] == pytest.approx(0.8)
    assert (values["device_memory"], values["device_memory_peak"]) == (3e9, 4e9)


def test_without_nvml_everything_else_is_read(monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2)
    monkeypatch.setattr(torch.cuda, "utilization", missing)
    faults = Faults()
    sampler = ResourceSampler([CUDA], faults, every=0.01)
    until(lambda: not sampler._knows_utilization)
    values = {}
    sampler.attach(values)
    sampler.close()
    assert set(values) == {"process_memory", "device_memory", "device_memory_peak"}
    assert not faults.off


def test_a_device_that_cannot_be_read_is_named_once_and_memory_of_the_process_stays(monkeypatch, caplog):
    def broken(_):
        raise RuntimeError("no such device")

    monkeypatch.setattr(torch.cuda, "memory_allocated", broken)
    sampler = ResourceSampler([CUDA], Faults(), every=60)
    for _ in range(3):
        values = {}
        sampler.attach(values)
    sampler.close()
    assert set(values) == {"process_memory"}
    assert len([record for record in caplog.records if "device memory failed" in record.message]) == 1


def test_a_driver_that_hangs_does_not_hold_up_the_training(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 1)
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: answered.wait(10))
    began = time.perf_counter()
    sampler = ResourceSampler([CUDA], Faults(), every=0.01)
    sampler.attach({})
    sampler.close()
    assert time.perf_counter() - began < 1.0
    answered.set()


def test_where_the_system_has_no_proc_the_peak_stands_in(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_STATM", tmp_path / "nowhere")
    assert resident_bytes() > 10_000_000


def test_only_cuda_devices_are_asked():
    assert accelerators([torch.zeros(1), torch.zeros(1, device="meta")]) == []
