"""Samples of a machine and a process, from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_runs import description
from waiting import eventually

from asynccb._run import RunDescription
from asynccb.trackers._system_metrics import SystemSampler, is_live

FAKE_NVML = '''
"""Stand in for the vendor's package: two GPUs, the second of which says little."""
from types import SimpleNamespace
import os
NVML_TEMPERATURE_GPU = 0
class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetUtilizationRates(device):
    if device: raise NVMLError("not supported")
    return SimpleNamespace(gpu=50, memory=25)
def nvmlDeviceGetMemoryInfo(device): return SimpleNamespace(used=1 << 30, total=4 << 30)
def nvmlDeviceGetTemperature(device, kind): return 40
def nvmlDeviceGetPowerUsage(device): return 150_000
def nvmlDeviceGetEnforcedPowerLimit(device): return 300_000
def nvmlDeviceGetComputeRunningProcesses(device):
    return [SimpleNamespace(pid=os.getpid())] if device == 0 else []
'''


def test_a_process_that_works_is_seen_to() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        sampler = SystemSampler(busy.pid)
        first = sampler.sample()
        assert "cpu" not in first  # it takes two looks
        values = eventually(lambda: v if (v := sampler.sample()).get("cpu", 0) > 0 else None)
    finally:
        busy.kill()
        busy.wait()
    assert 0 < values["cpu"] <= 100
    assert 0 < values["memory_percent"] < 100
    assert values["proc.memory.rssMB"] > 1
    assert values["proc.memory.availableMB"] > 1
    assert 0 < values["proc.memory.percent"] < 100
    assert values["proc.cpu.threads"] == 1
    gone = sampler.sample()
    assert "proc.cpu.threads" not in gone


def test_gpus_are_named_by_number_and_those_of_the_process_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pynvml.py").write_text(FAKE_NVML)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    values = SystemSampler(os.getpid()).sample()
    monkeypatch.delitem(sys.modules, "pynvml")
    gpus = {name: value for name, value in values.items() if name.startswith("gpu")}
    common = {
        "memoryAllocated": 25.0,
        "memoryAllocatedBytes": float(1 << 30),
        "temp": 40.0,
        "powerWatts": 150.0,
        "enforcedPowerLimitWatts": 300.0,
        "powerPercent": 50.0,
    }
    first = {"gpu": 50.0, "memory": 25.0, **common}
    assert gpus == {
        **{f"gpu.0.{name}": value for name, value in first.items()},
        **{f"gpu.process.0.{name}": value for name, value in first.items()},
        **{f"gpu.1.{name}": value for name, value in common.items()},
    }


def test_a_driver_that_is_missing_leaves_gpus_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pynvml.py").write_text(
        "class NVMLError(Exception): pass\ndef nvmlInit(): raise NVMLError('no driver')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    sampler = SystemSampler(os.getpid())
    for _ in range(2):
        assert not [name for name in sampler.sample() if name.startswith("gpu")]
    monkeypatch.delitem(sys.modules, "pynvml")


def test_a_run_is_live_in_the_process_that_its_training_has_started() -> None:
    usual = description()
    assert not is_live(usual)
    ours = RunDescription(usual.key, 0, usual.args, host=socket.gethostname(), pid=os.getppid())
    assert is_live(ours)
    other = RunDescription(usual.key, 0, usual.args, host="elsewhere", pid=os.getppid())
    assert not is_live(other)
