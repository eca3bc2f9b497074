"""
What the machine and the training process are using: CPU, memory, GPUs.

Promises: it looks from another process, at `/proc` and at NVML, and asks the training nothing; what
cannot be read is left out. Names are those of W&B's system metrics.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

from asynccb._run import RunDescription

_MIB: Final = 1 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def is_live(run: RunDescription) -> bool:
    """Tell whether this is the companion of the training, and that goes on."""
    return run.pid == os.getppid() and run.host == socket.gethostname()


class SystemSampler:
    """Take samples of a process and its machine; for one thread at a time."""

    def __init__(self, pid: int) -> None:
        """Take the process that trains."""
        self._process = Path(f"/proc/{pid}")
        self._pid = pid
        self._last: tuple[float, float] | None = None
        self._gpus = _Gpus(pid)

    def sample(self) -> dict[str, float]:
        """
        Return what can be read now; takes a millisecond or two, more where NVML is slow.

        Shares are in percent: `cpu` of all processors, since the sample before, `memory_percent` of
        the machine's memory that is taken, `proc.memory.percent` of that which the process takes.
        """
        values: dict[str, float] = {}
        for read in (self._cpu, self._memory, self._gpus.sample):
            try:
                values |= read()
            except (OSError, ValueError, IndexError):  # no /proc, or the process has gone
                continue
        return values

    def _cpu(self) -> dict[str, float]:
        now = time.monotonic()
        # Behind the name, which is in parentheses and may hold anything.
        fields = (self._process / "stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / _TICKS
        values = {"proc.cpu.threads": float(fields[17])}
        if self._last is not None and now > self._last[0]:
            share = (used - self._last[1]) / (now - self._last[0])
            values["cpu"] = 100.0 * share / (os.cpu_count() or 1)
        self._last = now, used
        return values

    def _memory(self) -> dict[str, float]:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line}
        total, available = sizes["MemTotal"], sizes["MemAvailable"]
        resident = int((self._process / "statm").read_text().split()[1]) * _PAGE
        return {
            "memory_percent": 100.0 * (total - available) / total,
            "proc.memory.availableMB": available / _MIB,
            "proc.memory.rssMB": resident / _MIB,
            "proc.memory.percent": 100.0 * resident / total,
        }


class _Gpus:
    """Read NVIDIA's GPUs, where the package `pynvml` (`nvidia-ml-py`) is installed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._nvml: Any = None
        self._devices: list[Any] | None = None

    def sample(self) -> dict[str, float]:
        """Return the readings of every GPU, and those of the process's own under its name."""
        if self._devices is None:
            self._devices = self._open()
        values: dict[str, float] = {}
        for number, device in enumerate(self._devices):
            readings = self._read(device)
            values |= {f"gpu.{number}.{name}": value for name, value in readings.items()}
            if self._is_ours(device):
                own = {f"gpu.process.{number}.{name}": value for name, value in readings.items()}
                values |= own
        return values

    def _open(self) -> list[Any]:
        try:
            self._nvml = importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            return [self._nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        except ImportError:
            return []
        except self._nvml.NVMLError:  # no driver, as a rule
            return []

    def _read(self, device: Any) -> dict[str, float]:
        nvml = self._nvml
        values: dict[str, float] = {}

        def utilization() -> dict[str, float]:
            rates = nvml.nvmlDeviceGetUtilizationRates(device)
            return {"gpu": rates.gpu, "memory": rates.memory}

        def memory() -> dict[str, float]:
            info = nvml.nvmlDeviceGetMemoryInfo(device)
            share = 100.0 * info.used / info.total
            return {"memoryAllocated": share, "memoryAllocatedBytes": info.used}

        def temperature() -> dict[str, float]:
            return {"temp": nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)}

        def power() -> dict[str, float]:
            used = nvml.nvmlDeviceGetPowerUsage(device) / 1000.0
            limit = nvml.nvmlDeviceGetEnforcedPowerLimit(device) / 1000.0
            shares = {"enforcedPowerLimitWatts": limit, "powerPercent": 100.0 * used / limit}
            return {"powerWatts": used, **shares}

        for reading in (utilization, memory, temperature, power):
            try:
                values |= {name: float(value) for name, value in reading().items()}
            except nvml.NVMLError:  # not every GPU says everything, a part of one little
                continue
        return values

    def _is_ours(self, device: Any) -> bool:
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(device)
        except self._nvml.NVMLError:
            return False
        return any(process.pid == self._pid for process in processes)
