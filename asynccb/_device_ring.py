"""
The ring on a device: what is logged is copied into it on the training's stream, and out of it on a
stream beside.

Promises: no call waits for the device; every call is made by the training thread; a value is what
the tensor held when it was logged, whatever is written to the tensor later; device memory is
constant, half a mebibyte a device.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from typing import Any, Final

import torch

from asynccb._slots import COUNT, SIZE

logger = logging.getLogger("asynccb")

_CHUNK: Final = 1024
"""Views that are made together; one costs a microsecond."""


class PinnedSlots:
    """Make the shared slots a place that devices can write to."""

    def __init__(self, memory: memoryview) -> None:
        """Pin the memory; where that fails, pin other memory and `mirror` from it."""
        self.tensor = torch.frombuffer(memory, dtype=torch.float64)
        self._shared: memoryview | None = None
        self._registered = _register(self.tensor.data_ptr())
        if not self._registered:
            self._shared = memory
            self.tensor = torch.empty(COUNT, dtype=torch.float64, pin_memory=True)
            own = (ctypes.c_char * SIZE).from_address(self.tensor.data_ptr())
            self._bytes = memoryview(own).cast("B")

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
        if self._registered:
            _runtime().cudaHostUnregister(self.tensor.data_ptr())
            self._registered = False
        del self.tensor


class DeviceRing:
    """Hold one device's copies of the slots."""

    def __init__(self, device: torch.device, pinned: PinnedSlots) -> None:
        """Allocate the ring and a stream beside; the device must not be capturing a graph."""
        self._device = device
        self._pinned = pinned
        self._floats = torch.empty(COUNT, dtype=torch.float64, device=device)
        self._integers = self._floats.view(torch.int64)
        self._float_views: list[torch.Tensor] = []
        self._integer_views: list[torch.Tensor] = []
        self._beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._stream = -1
        self._dirty: list[list[int]] = []

    def put(self, place: int, tensors: Sequence[torch.Tensor], *, floating: bool) -> None:
        """Copy scalars of one dtype into the slots from `place` on; one launch."""
        views = self._views(place + len(tensors), floating=floating)
        self._enter(place, len(tensors))
        torch._foreach_copy_(views[place : place + len(tensors)], list(tensors))

    def put_row(self, place: int, row: torch.Tensor, *, floating: bool) -> None:
        """Copy a 1-d tensor into the slots from `place` on."""
        self._enter(place, len(row))
        ring = self._floats if floating else self._integers
        ring[place : place + len(row)].copy_(row)

    def copy_out(self) -> None:
        """Send what was put to the pinned slots, on the stream beside."""
        if not self._dirty:
            return
        self._done.record(torch.cuda.current_stream(self._device))
        self._beside.wait_event(self._done)
        with torch.cuda.stream(self._beside):
            for begin, end in self._dirty:
                self._pinned.tensor[begin:end].copy_(self._floats[begin:end], non_blocking=True)
        self._dirty.clear()

    def _enter(self, place: int, count: int) -> None:
        """Note slots as dirty, and put this stream behind the one that was used before."""
        stream = torch._C._cuda_getCurrentRawStream(self._device.index)
        if stream != self._stream:
            if self._dirty:
                before = torch.cuda.ExternalStream(  # type: ignore[no-untyped-call]
                    self._stream, self._device
                )
                torch.cuda.current_stream(self._device).wait_stream(before)
            self._stream = stream
        if self._dirty and self._dirty[-1][1] == place:
            self._dirty[-1][1] = place + count
        else:
            self._dirty.append([place, place + count])

    def _views(self, end: int, *, floating: bool) -> list[torch.Tensor]:
        views, ring = (
            (self._float_views, self._floats) if floating else (self._integer_views, self._integers)
        )
        while len(views) < end:
            views.extend(ring[len(views) : len(views) + _CHUNK].unbind())
        return views


def is_capturing() -> bool:
    """Tell whether the current stream is being captured into a CUDA graph."""
    return torch.cuda.is_current_stream_capturing()


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _register(address: int) -> bool:
    error = _runtime().cudaHostRegister(address, SIZE, 0)
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
