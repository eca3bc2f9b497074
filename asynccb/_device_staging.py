"""
Staging values that lie on devices: into slots on the training's stream, without waiting.

Promises: one launch for each dtype of a log, however many scalars it has, and none for fresh
tensors but one for all logs of 10 ms; what was staged is copied out at most every 10 ms, and at
once when logs are rarer than that; the training thread waits only where every slot is taken, and
only under `overflow = "block"`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from asynccb._callback import Overflow
from asynccb._device_forms import Form, kind_of
from asynccb._device_ring import DeviceRing, PinnedSlots, is_capturing
from asynccb._exceptions import ConfigurationError, MailboxFullError
from asynccb._slots import COUNT, CURRENT, Kind, Slots, Staged, StagedLog

logger = logging.getLogger("asynccb")

INTERVAL: Final = 10_000_000
"""Least nanoseconds between two copies out of the device."""
_PAUSE: Final = 0.0001


@dataclass(slots=True)
class _Pending:
    """A log that has not landed, and the history entry that waits for its numbers."""

    log: StagedLog
    entry: dict[str, Any] | None = None

    def fill_entry(self) -> None:
        """Put the numbers into the history entry, where it still has their stand-ins."""
        if self.entry is not None and self.log.values is not None:
            entry = self.entry
            for key, value in zip(self.log.layout.keys, self.log.values, strict=True):
                if type(entry.get(key)) is Staged:
                    entry[key] = value


class DeviceStaging:
    """Own the slots and the rings; every method but `settle` is the training thread's."""

    def __init__(self, slots: Slots, consumed: Callable[[], int], overflow: Overflow) -> None:
        """Take the slots, and what tells the position below which the companion has read."""
        self._slots = slots
        self._consumed = consumed
        self._overflow = overflow
        self._pinned = PinnedSlots(slots.memory)
        self._rings: dict[int, DeviceRing] = {}
        self._pending: deque[_Pending] = deque()
        self._last: _Pending
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._next = 0
        self._settled = 0
        self.due = 0
        """When the next copy out is due, on the clock of `tick`."""
        self._free = COUNT
        self.trusts = True
        """Whether tensors that are said to be fresh have been so."""
        self.dropped = 0
        """Values for which there was no slot."""
        self.blocked = 0.0
        """Seconds for which the training thread waited for slots, or for a number it asked for."""

    def check_capture(self) -> None:
        """Raise `ConfigurationError` while the stream is captured into a CUDA graph."""
        if is_capturing():
            raise ConfigurationError(
                "logging a tensor of the device while a CUDA graph is captured would put the copy "
                "into the graph; log the graph's output after its replay"
            )

    @property
    def has_one_stream(self) -> bool:
        """Whether fresh tensors are trusted, and `current_stream` speaks for all of them."""
        return self.trusts and len(self._rings) == 1

    def current_stream(self) -> int:
        """Return the current stream of the one device."""
        return next(iter(self._rings.values())).current_stream()

    def stage(
        self, form: Form, tensors: Sequence[torch.Tensor], made_on: int | None
    ) -> StagedLog | None:
        """
        Start the tensors of a log on their way; return None where there is no slot.

        With `made_on`, the number of a stream or `CURRENT`, they are fresh: they are copied
        together with later ones, and nobody may write to them any more. Raises
        `ConfigurationError` while the stream is captured, but for fresh ones of before, and
        `MailboxFullError` under `overflow = "raise"`.
        """
        if made_on is None or made_on == CURRENT:
            self.check_capture()
        position = self._reserve(form.layout.count)
        if position is None:
            return None
        self._put(position % COUNT, form, tensors, made_on if self.trusts else None)
        log = StagedLog(position, form.layout, self._arrive)
        self._last = _Pending(log)
        self._pending.append(self._last)
        return log

    def watch(self, entry: dict[str, Any]) -> None:
        """Put the numbers of the last `stage` into a history entry, in place, when they land."""
        with self._lock:
            self._last.entry = entry
            self._last.fill_entry()

    def tick(self, now: int) -> None:
        """Copy out what was staged, if that is due, and take in what has landed."""
        if now >= self.due:
            self.due = now + INTERVAL
            self.copy_out()
            self.settle()

    def copy_out(self) -> None:
        """Send everything that was staged on its way to the host."""
        for ring in self._rings.values():
            ring.copy_out()
            if ring.overwritten and self.trusts:
                self._distrust()

    def _distrust(self) -> None:
        self.trusts = False
        logger.error(
            "tensors that were logged with fresh=True have been written to afterwards: what was "
            "logged of them in the last %d ms may hold later values. From here on they are copied "
            "when they are logged; leave fresh=True out for them",
            INTERVAL // 1_000_000,
        )

    def settle(self) -> None:
        """Take in what has landed; looks at memory only, and may be called by any thread."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            while self._pending and self._take_in(self._pending[0]):
                self._pending.popleft()
        finally:
            self._lock.release()

    def finish(self, deadline: float) -> bool:
        """Wait until everything has landed; return False at the (monotonic) deadline."""
        self.copy_out()
        self.settle()
        while self._pending:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
            self.settle()
        return True

    def close(self) -> None:
        """Unpin the slots; to be called after `finish`."""
        self._rings.clear()
        self._pinned.close()

    def _put(
        self, place: int, form: Form, tensors: Sequence[torch.Tensor], made_on: int | None
    ) -> None:
        """Copy the values into the slots from `place` on, or keep them until the copy out."""
        for device, floating, begin, end in form.groups:
            ring = self._ring(device)
            some = tensors[begin:end]
            if made_on is None:
                ring.put(place + begin, some, floating=floating)
            else:
                stream = ring.current_stream() if made_on == CURRENT else made_on
                ring.keep(place + begin, some, floating=floating, made_on=stream)
        for index in range(len(tensors) - form.rows, len(tensors)):
            row = tensors[index].detach().reshape(-1)
            floating = kind_of(row.dtype) == Kind.FLOAT
            start = place + form.layout.offsets[index]
            self._ring(row.get_device()).put_row(start, row, floating=floating)

    def _ring(self, device: int) -> DeviceRing:
        ring = self._rings.get(device)
        if ring is None:
            where = torch.device("cuda", device)
            ring = self._rings[device] = DeviceRing(where, self._pinned)
        return ring

    def _reserve(self, count: int) -> int | None:
        """Return the position of so many free, empty slots in a row."""
        if count > COUNT // 2:
            raise ConfigurationError(
                f"one log holds {count} values of the device; it takes at most {COUNT // 2}"
            )
        position = self._next
        place = position % COUNT
        if place + count > COUNT:
            position += COUNT - place
        if position + count > self._free and not self._find_room(position + count):
            self.dropped += count
            return None
        self._next = position + count
        self._slots.clear(position, count)
        self._pinned.clear(position % COUNT, count)
        return position

    def _find_room(self, end: int) -> bool:
        """Tell whether the slots below `end` may be used, after waiting if that is the policy."""
        self._free = self._oldest() + COUNT
        if end > self._free:
            self.copy_out()
            self.settle()
            self._free = self._oldest() + COUNT
        return end <= self._free or self._wait(end)

    def _oldest(self) -> int:
        """Return the position below which slots may be used again."""
        settled = self._settled if self._pending else self._next
        return min(settled, self._consumed())

    def _wait(self, end: int) -> bool:
        """Wait until the slots below `end` are free; return False where the policy is to drop."""
        if self._overflow == "raise":
            raise MailboxFullError(
                f"{COUNT} values are on their way from the device; log less often or choose "
                "another overflow policy than 'raise'"
            )
        if self._overflow != "block":
            return False
        begin = time.monotonic()
        while end - self._oldest() > COUNT:
            time.sleep(_PAUSE)
            self.settle()
        self.blocked += time.monotonic() - begin
        return True

    def _take_in(self, pending: _Pending) -> bool:
        """Read the values of one log if they have all landed."""
        log = pending.log
        self._pinned.mirror(log.position % COUNT, log.layout.count)
        if not log.take_in(self._slots):
            return False
        pending.fill_entry()
        self._settled = log.position + log.layout.count
        return True

    def _arrive(self, log: StagedLog) -> None:
        """Wait for a log to land; the training thread copies it out first."""
        begin = time.monotonic()
        if threading.get_ident() == self._thread:
            self.copy_out()
        self.settle()
        while log.values is None:
            time.sleep(_PAUSE)
            self.settle()
        self.blocked += time.monotonic() - begin
