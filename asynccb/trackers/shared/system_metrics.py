"""
Sample the CPU, memory and GPU usage of the training process and its machine.

Promises: samples are read from another process, through `/proc` and NVML, without asking the
training; values that cannot be read are left out. Names are the same as in W&B's system metrics.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asynccb._state.run_description import RunDescription
from asynccb.trackers.shared.nvml import GPU, NVML, open_nvml

_MIB: Final = 1 << 20
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def is_live(run: RunDescription) -> bool:
    """Tell whether this process is the companion of a training that is still running."""
    return run.pid == os.getppid() and run.host == socket.gethostname()


class SystemSampler:
    """A sampler of a process and its machine; not safe for two threads at once."""

    def __init__(self, pid: int) -> None:
        """Sample the training process, which has the id `pid`."""
        self._process = Path(f"/proc/{pid}")
        self._last: tuple[float, float] | None = None
        self._gpus = _Gpus()

    def sample(self) -> dict[str, float]:
        """
        Return the current readings; takes a millisecond or two, more if NVML is slow.

        Shares are in percent: `cpu` is the process's share of all processors since the previous
        sample, `memory_percent` the used share of the machine's memory, and `proc.memory.percent`
        the share of the machine's memory that the process uses.
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
        # The fields follow the process name, which is in parentheses and may contain anything.
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
    """The NVIDIA GPUs that the training sees."""

    def __init__(self) -> None:
        self._nvml: NVML | None = None
        self._looked = False

    def sample(self) -> dict[str, float]:
        """Return each GPU's readings, under its index among the GPUs that the training sees."""
        if not self._looked:
            self._looked, self._nvml = True, open_nvml(os.environ)
        values: dict[str, float] = {}
        for gpu in self._nvml.read() if self._nvml is not None else ():
            values |= {f"gpu.{gpu.index}.{name}": value for name, value in _readings(gpu)}
        return values


def _readings(gpu: GPU) -> Iterator[tuple[str, float]]:
    plain = {
        "gpu": gpu.utilization,
        "temp": gpu.temperature,
        "memoryAllocatedBytes": gpu.used,
        "powerWatts": gpu.power,
        "enforcedPowerLimitWatts": gpu.power_limit,
    }
    yield from ((name, float(value)) for name, value in plain.items() if value is not None)
    if gpu.used is not None and gpu.total:
        yield "memoryAllocated", 100.0 * gpu.used / gpu.total
    if gpu.power is not None and gpu.power_limit:
        yield "powerPercent", 100.0 * gpu.power / gpu.power_limit
