"""
What the training and its machine use, as scalars of a ClearML task.

Titles and names are those of `clearml` 2.1, for what `_system_metrics.py` reads; the iteration is
the seconds since the training began. The server counts none of these titles as progress.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from asynccb.trackers.clearml.values import Scalar

_GIB_IN_MIB: Final = 1024.0
_GIB: Final = float(1 << 30)
_MACHINE: Final = {
    "cpu": ("cpu_usage", 1.0),
    "proc.memory.rssMB": ("memory_used_gb", _GIB_IN_MIB),
    "proc.memory.availableMB": ("memory_free_gb", _GIB_IN_MIB),
}
"""Names of the samples, with ClearML's and by what they are divided. CPU and memory used are those
of the training process."""
_GPU: Final = {
    "gpu": ("utilization", 1.0),
    "temp": ("temperature", 1.0),
    "memoryAllocated": ("mem_usage", 1.0),
    "memoryAllocatedBytes": ("mem_used_gb", _GIB),
    "powerWatts": ("power_draw", 1.0),
}


def machine_scalars(sample: Mapping[str, float], began: int, now: int) -> Iterator[Scalar]:
    """Return a sample's scalars; both times are in Unix nanoseconds."""
    seconds, moment = max(0, now - began) // 10**9, now // 10**6
    for name, value in sample.items():
        _, _, rest = name.partition("gpu.")
        index, _, reading = rest.partition(".")
        if name in _MACHINE:
            shown, unit = _MACHINE[name]
            yield Scalar(":monitor:machine", shown, seconds, value / unit, moment)
        elif name.startswith("gpu.") and reading in _GPU:
            shown, unit = _GPU[reading]
            yield Scalar(":monitor:gpu", f"gpu_{index}_{shown}", seconds, value / unit, moment)
