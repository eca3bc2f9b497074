"""
The ring on a device: what is logged is copied into it, and later out of it, on the training's
stream.

Promises: no call waits for the device; every call is made by the training thread; a value is what
the tensor held when it was logged, whatever is written to the tensor later; device memory is
constant: 32 KiB a device, and what is kept until the next copy.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import torch

from asynccb._slots import COUNT, SIZE

logger = logging.getLogger("asynccb")

RING: Final = 4096
"""Slots of a ring, enough for 20 scalars of 20,000 steps a second."""
_CHUNK: Final = 128
"""Views that are made together; one costs a microsecond."""

_version = attrgetter("_version")
_is_inference = torch.Tensor.is_inference


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


class _Span(NamedTuple):
    """Say which slots of a ring go out to which pinned ones."""

    begin: int
    end: int
    place: int
    """First pinned slot."""


@dataclass(slots=True)
class _Kept:
    """Scalars of one dtype and stream that are still to be copied, each to its view of a slot."""

    views: list[torch.Tensor]
    tensors: list[torch.Tensor]
    versions: int
    """Sum of the tensors' versions as they were kept; writing to one in place makes it greater."""


class DeviceRing:
    """Hold one device's way to the pinned slots; `place` is a pinned slot's number."""

    def __init__(self, device: torch.device, pinned: PinnedSlots) -> None:
        """Allocate the ring; the device must not be capturing a graph."""
        self._device = device
        self._pinned = pinned
        self._floats = torch.empty(RING, dtype=torch.float64, device=device)
        self._integers = self._floats.view(torch.int64)
        self._float_views: list[torch.Tensor] = []
        self._integer_views: list[torch.Tensor] = []
        self._next = 0
        self._spans: list[_Span] = []
        self._stream = self.current_stream()
        self._kept: dict[tuple[int, torch.dtype], _Kept] = {}
        self.overwritten = False
        """Whether something that was kept has been written to before it was copied."""

    def put(self, place: int, tensors: Sequence[torch.Tensor], *, floating: bool) -> None:
        """Copy scalars of one dtype to the slots from `place` on; one launch, for up to `RING`."""
        for start in range(0, len(tensors), RING):
            some = list(tensors[start : start + RING])
            begin = self._allot(place + start, len(some))
            self._follow()
            with torch.no_grad():
                torch._foreach_copy_(self._views(begin, len(some), floating=floating), some)

    def put_row(self, place: int, row: torch.Tensor, *, floating: bool) -> None:
        """Copy a 1-d tensor of up to `RING` elements to the slots from `place` on."""
        begin = self._allot(place, len(row))
        self._follow()
        ring = self._floats if floating else self._integers
        with torch.no_grad():
            ring[begin : begin + len(row)].copy_(row)

    def keep(
        self, place: int, tensors: Sequence[torch.Tensor], *, floating: bool, made_on: int
    ) -> None:
        """
        Do as `put`, at the next `copy_out` and together with others; makes no call to the device.

        `made_on` is the stream that the tensors were made on. Nobody may write to them any more;
        `overwritten` tells whether somebody did.
        """
        if len(tensors) > RING or any(map(_is_inference, tensors)):  # nobody counts their versions
            self.put(place, tensors, floating=floating)
            return
        begin = self._allot(place, len(tensors))
        key = (made_on, tensors[0].dtype)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept([], [], 0)
        kept.views.extend(self._views(begin, len(tensors), floating=floating))
        # Detached, so that nothing else of the step is kept.
        kept.tensors.extend([t.detach() if t.requires_grad else t for t in tensors])
        kept.versions += sum(map(_version, tensors))

    def copy_out(self) -> None:
        """
        Send what was put and kept to the pinned slots, behind the work of the streams it came from.

        Does nothing while the current stream is captured.
        """
        # On the stream itself: that costs the device a few microseconds in 10 ms, and the training
        # thread a fifth of what an event and a stream beside do.
        if not self._spans or is_capturing():
            return
        self._follow()
        self._put_kept()
        for begin, end, place in self._spans:
            target = self._pinned.tensor[place : place + end - begin]
            target.copy_(self._floats[begin:end], non_blocking=True)
        self._spans.clear()

    def _put_kept(self) -> None:
        """Copy what is kept into the ring, one launch for some dozens of scalars."""
        for (stream, _), kept in self._kept.items():
            self._wait_for(stream)
            if sum(map(_version, kept.tensors)) != kept.versions:
                self.overwritten = True
            with torch.no_grad():
                torch._foreach_copy_(kept.views, kept.tensors)
        self._kept.clear()

    def _allot(self, place: int, count: int) -> int:
        """Return the first of so many slots of the ring, which go out to those from `place` on."""
        if self._next + count > RING:
            self.copy_out()
            self._next = 0
        begin = self._next
        self._next = end = begin + count
        last = self._spans[-1] if self._spans else None
        if (
            last is not None
            and last.end == begin
            and last.place + end - last.begin == place + count
        ):
            self._spans[-1] = last._replace(end=end)
        else:
            self._spans.append(_Span(begin, end, place))
        return begin

    def _follow(self) -> None:
        """Put the current stream behind the one that has used the ring before."""
        self._wait_for(self._stream)
        self._stream = self.current_stream()

    def _wait_for(self, stream: int) -> None:
        if stream != self.current_stream():
            before = torch.cuda.ExternalStream(stream, self._device)  # type: ignore[no-untyped-call]
            torch.cuda.current_stream(self._device).wait_stream(before)

    def current_stream(self) -> int:
        """Return the number of the stream that is current on the device."""
        return torch._C._cuda_getCurrentRawStream(self._device.index)

    def _views(self, begin: int, count: int, *, floating: bool) -> list[torch.Tensor]:
        views, ring = (
            (self._float_views, self._floats) if floating else (self._integer_views, self._integers)
        )
        while len(views) < begin + count:
            views.extend(ring[len(views) : len(views) + _CHUNK].unbind())
        return views[begin : begin + count]


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
