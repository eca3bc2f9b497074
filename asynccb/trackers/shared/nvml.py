"""
Read the usage of NVIDIA GPUs from the driver's own library (NVML), without a package.

Promises: if the library or a GPU is missing, readings are empty and nothing is raised. No CUDA call
is made, so the training's device is not touched. A reading of one GPU takes about a millisecond.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LIBRARY: Final = "libnvidia-ml.so.1"
_OK: Final = 0
_CORE_SENSOR: Final = 0
_UUID_LENGTH: Final = 96


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_uint64), ("free", ctypes.c_uint64), ("used", ctypes.c_uint64))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass(frozen=True)
class GPU:
    """One reading; a value that the GPU does not report is None."""

    index: int
    """Index among the GPUs that the training sees."""
    utilization: float | None
    """Percent of the time during which a kernel ran."""
    used: int | None
    """Bytes of memory in use, by all processes."""
    total: int | None
    power: float | None
    """Watts."""
    power_limit: float | None
    temperature: float | None
    """Degrees Celsius."""


class NVML:
    """A reader of this machine's GPUs; create it with `open_nvml`."""

    def __init__(self, library: ctypes.CDLL, visible: str | None) -> None:
        self._library = library
        self._devices = _chosen(self._all(), visible)

    def __len__(self) -> int:
        return len(self._devices)

    def read(self) -> list[GPU]:
        """Return a reading of each GPU; blocks for about a millisecond each."""
        return [self._read(index, device) for index, (_, device) in enumerate(self._devices)]

    def _read(self, index: int, device: ctypes.c_void_p) -> GPU:
        memory, utilization = _Memory(), _Utilization()
        has_memory = self._ask("DeviceGetMemoryInfo", device, ctypes.byref(memory))
        is_used = self._ask("DeviceGetUtilizationRates", device, ctypes.byref(utilization))
        power = self._number("DeviceGetPowerUsage", device)
        limit = self._number("DeviceGetEnforcedPowerLimit", device)
        return GPU(
            index=index,
            utilization=float(utilization.gpu) if is_used else None,
            used=memory.used if has_memory else None,
            total=memory.total if has_memory else None,
            power=None if power is None else power / 1000,
            power_limit=None if limit is None else limit / 1000,
            temperature=self._number("DeviceGetTemperature", device, _CORE_SENSOR),
        )

    def _all(self) -> list[tuple[str, ctypes.c_void_p]]:
        """Return each device with its name for `CUDA_VISIBLE_DEVICES`."""
        count = ctypes.c_uint()
        if not self._ask("DeviceGetCount_v2", ctypes.byref(count)):
            return []
        found: list[tuple[str, ctypes.c_void_p]] = []
        for number in range(count.value):
            device, name = ctypes.c_void_p(), ctypes.create_string_buffer(_UUID_LENGTH)
            if self._ask("DeviceGetHandleByIndex_v2", number, ctypes.byref(device)):
                self._ask("DeviceGetUUID", device, name, _UUID_LENGTH)
                found.append((name.value.decode("ascii", "replace"), device))
        return found

    def _number(self, name: str, *arguments: object) -> int | None:
        value = ctypes.c_uint()
        return value.value if self._ask(name, *arguments, ctypes.byref(value)) else None

    def _ask(self, name: str, *arguments: object) -> bool:
        function = getattr(self._library, f"nvml{name}", None)
        return function is not None and function(*arguments) == _OK


def open_nvml(environ: Mapping[str, str]) -> NVML | None:
    """Return a reader of the GPUs that the environment makes visible; None if there are none."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        if library.nvmlInit_v2() != _OK:
            return None
    except (OSError, AttributeError):
        return None
    nvml = NVML(library, environ.get("CUDA_VISIBLE_DEVICES"))
    return nvml if len(nvml) else None


def _chosen(
    devices: list[tuple[str, ctypes.c_void_p]], visible: str | None
) -> list[tuple[str, ctypes.c_void_p]]:
    """Return the devices in `CUDA_VISIBLE_DEVICES`, in its order, up to the first invalid name."""
    if visible is None:
        return devices
    chosen: list[tuple[str, ctypes.c_void_p]] = []
    for name in (part.strip() for part in visible.split(",")):
        if name.isdigit():
            found = devices[int(name) : int(name) + 1]
        else:
            found = [device for device in devices if name and device[0].startswith(name)]
        if len(found) != 1:
            break
        chosen += found
    return chosen
