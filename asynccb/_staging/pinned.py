"""
The shared slots as memory that devices can write to.

Promises: a kernel on any device writes its values straight into the memory that the companion
reads, so no copy to the host is needed. Nothing is allocated on a device.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any, Final

import torch

from asynccb._ring.slots import COUNT, SIZE

logger = logging.getLogger("asynccb")

_PORTABLE: Final = 1
"""`cudaHostRegisterPortable`: pinned for all devices, whichever device is current."""


class DeviceSlots:
    """The slots as tensors of one device."""

    def __init__(self, address: int, device: torch.device) -> None:
        """Take the address of the pinned memory, which is the same for every device."""
        storage = torch._C._construct_storage_from_data_pointer(address, device, SIZE)
        with torch.inference_mode(False):  # inference tensors cannot be written outside of it
            empty = torch.empty(0, dtype=torch.float64, device=device)
            self._floats = empty.set_(storage, 0, (COUNT,), (1,))
            self._integers = self._floats.view(torch.int64)
        self._views: dict[bool, list[torch.Tensor]] = {}

    def each(self, *, floating: bool) -> list[torch.Tensor]:
        """Return a 0-d tensor for each slot; the first call takes 0.1 s."""
        views = self._views.get(floating)
        if views is None:
            with torch.inference_mode(False):
                slots = self._floats if floating else self._integers
                views = self._views[floating] = list(slots.unbind())
        return views

    def row(self, begin: int, length: int, *, floating: bool) -> torch.Tensor:
        """Return `length` slots from `begin` on as a 1-d tensor."""
        return (self._floats if floating else self._integers)[begin : begin + length]


class PinnedSlots:
    """The shared slots, pinned so that devices can write to them."""

    def __init__(self, memory: memoryview) -> None:
        """Pin the memory; if pinning fails, pin other memory, which `mirror` copies from."""
        self._tensor = torch.frombuffer(memory, dtype=torch.float64)
        self._shared: memoryview | None = None
        self._registered = _register(self._tensor.data_ptr())
        if not self._registered:
            self._shared = memory
            self._tensor = torch.empty(COUNT, dtype=torch.float64, pin_memory=True)
            own = (ctypes.c_char * SIZE).from_address(self._tensor.data_ptr())
            self._bytes = memoryview(own).cast("B")
        self.mirrors = not self._registered
        """Whether the devices write to separate memory instead of the shared slots."""
        self._devices: dict[int, DeviceSlots] = {}

    @property
    def address(self) -> int:
        """Address of the memory that devices write to."""
        return self._tensor.data_ptr()

    def on(self, device: int) -> DeviceSlots:
        """Return the slots as tensors of the device with this index."""
        slots = self._devices.get(device)
        if slots is None:
            where = torch.device("cuda", device)
            slots = self._devices[device] = DeviceSlots(self._tensor.data_ptr(), where)
        return slots

    def clear(self, place: int, count: int) -> None:
        """Empty the slots in the separate memory, like the shared ones; no-op without it."""
        if self._shared is not None:
            span = slice(place * 8, (place + count) * 8)
            self._bytes[span] = self._shared[span]

    def mirror(self, place: int, count: int) -> None:
        """Copy slots to the shared memory; no-op if devices write to it directly."""
        if self._shared is not None:
            span = slice(place * 8, (place + count) * 8)
            self._shared[span] = self._bytes[span]

    def close(self) -> None:
        """Unpin the memory; no value may be on its way."""
        self._devices.clear()
        if self._registered:
            _runtime().cudaHostUnregister(self._tensor.data_ptr())
            self._registered = False


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _register(address: int) -> bool:
    error = _runtime().cudaHostRegister(address, SIZE, _PORTABLE)
    if int(error) == 0:
        return True
    _forget_error()
    logger.warning(
        "the shared memory cannot be pinned (CUDA error %d); values from the device need one more "
        "copy, made by the training thread",
        int(error),
    )
    return False


def _forget_error() -> None:
    """Clear the CUDA runtime's stored error, which it would raise again at the next call."""
    major = (torch.version.cuda or "0").partition(".")[0]
    ctypes.CDLL(f"libcudart.so.{major}").cudaGetLastError()
