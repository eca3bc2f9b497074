"""
The shared slots as memory that devices write to.

Promises: a kernel on any device writes its values straight into the memory that the companion
reads, so that no copy to the host follows it; nothing is allocated on a device.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any, Final

import torch

from asynccb._ring.slots import COUNT, SIZE

logger = logging.getLogger("asynccb")

_PORTABLE: Final = 1
"""`cudaHostRegisterPortable`: pinned for all devices, whichever is current."""


class DeviceSlots:
    """See the slots as tensors of one device."""

    def __init__(self, address: int, device: torch.device) -> None:
        """Take the address of the pinned memory, which is the same on every device."""
        storage = torch._C._construct_storage_from_data_pointer(address, device, SIZE)
        with torch.inference_mode(False):  # tensors of it cannot be written to outside it
            empty = torch.empty(0, dtype=torch.float64, device=device)
            self._floats = empty.set_(storage, 0, (COUNT,), (1,))
            self._integers = self._floats.view(torch.int64)
        self._views: dict[bool, list[torch.Tensor]] = {}

    def each(self, *, floating: bool) -> list[torch.Tensor]:
        """Return a 0-d tensor for each slot; the first call takes a tenth of a second."""
        views = self._views.get(floating)
        if views is None:
            with torch.inference_mode(False):
                slots = self._floats if floating else self._integers
                views = self._views[floating] = list(slots.unbind())
        return views

    def row(self, begin: int, length: int, *, floating: bool) -> torch.Tensor:
        """Return slots as a 1-d tensor."""
        return (self._floats if floating else self._integers)[begin : begin + length]


class PinnedSlots:
    """Make the shared slots a place that devices can write to."""

    def __init__(self, memory: memoryview) -> None:
        """Pin the memory; where that fails, pin other memory and `mirror` from it."""
        self._tensor = torch.frombuffer(memory, dtype=torch.float64)
        self._shared: memoryview | None = None
        self._registered = _register(self._tensor.data_ptr())
        if not self._registered:
            self._shared = memory
            self._tensor = torch.empty(COUNT, dtype=torch.float64, pin_memory=True)
            own = (ctypes.c_char * SIZE).from_address(self._tensor.data_ptr())
            self._bytes = memoryview(own).cast("B")
        self.mirrors = not self._registered
        """Whether the devices write to other memory than the shared slots."""
        self._devices: dict[int, DeviceSlots] = {}

    def on(self, device: int) -> DeviceSlots:
        """Return the slots as the device of that number sees them."""
        slots = self._devices.get(device)
        if slots is None:
            where = torch.device("cuda", device)
            slots = self._devices[device] = DeviceSlots(self._tensor.data_ptr(), where)
        return slots

    def clear(self, place: int, count: int) -> None:
        """Empty the pinned copy as the shared slots were."""
        if self._shared is not None:
            span = slice(place * 8, (place + count) * 8)
            self._bytes[span] = self._shared[span]

    def mirror(self, place: int, count: int) -> None:
        """Copy slots to the shared memory, where devices cannot write to that."""
        if self._shared is not None:
            span = slice(place * 8, (place + count) * 8)
            self._shared[span] = self._bytes[span]

    def close(self) -> None:
        """Unpin the memory; nothing may be on its way."""
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
        "the shared memory cannot be pinned (CUDA error %d); values from the device take one more "
        "copy, made by the training thread",
        int(error),
    )
    return False


def _forget_error() -> None:
    """Take the failure off the CUDA runtime, which would raise it again at the next call."""
    major = (torch.version.cuda or "0").partition(".")[0]
    ctypes.CDLL(f"libcudart.so.{major}").cudaGetLastError()
