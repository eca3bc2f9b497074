"""
Staging values that lie on devices: into slots on the training's stream, without waiting.

Promises: one launch for each dtype of a log, however many scalars it has; what was staged is copied
out at most every 10 ms, and at once when logs are rarer than that; the training thread waits only
where every slot is taken, and only under `overflow = "block"`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from asynccb._callback import Overflow
from asynccb._device_ring import DeviceRing, PinnedSlots, is_capturing
from asynccb._exceptions import ConfigurationError, MailboxFullError
from asynccb._slots import COUNT, Kind, Part, Slots, Staged, StagedLog

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
            for key, value in zip(self.log.keys, self.log.values, strict=True):
                if type(self.entry.get(key)) is Staged:
                    self.entry[key] = value


class _Group(NamedTuple):
    """Values of one device and one dtype, which one launch copies."""

    device: int
    dtype: torch.dtype


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
        self._due = 0
        self.dropped = 0
        """Values for which there was no slot."""
        self.blocked = 0.0
        """Seconds for which the training thread waited for slots, or for a number it asked for."""

    def stage(self, tensors: Mapping[str, torch.Tensor]) -> StagedLog | None:
        """
        Start the tensors on their way, 0-d or short 1-d ones; return None where there is no slot.

        Raises `ConfigurationError` while the stream is captured into a CUDA graph, and
        `MailboxFullError` under `overflow = "raise"`.
        """
        if is_capturing():
            raise ConfigurationError(
                "logging a tensor of the device while a CUDA graph is captured would put the copy "
                "into the graph; log the graph's output after its replay"
            )
        with torch.no_grad():
            groups, rows = _group(tensors)
            count = sum(map(len, groups.values())) + sum(row.numel() for _, row in rows)
            position = self._reserve(count)
            if position is None:
                return None
            parts = self._put(position, groups, rows)
        log = StagedLog(position, parts, self._arrive)
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
        if now >= self._due:
            self._due = now + INTERVAL
            self.copy_out()
            self.settle()

    def copy_out(self) -> None:
        """Send everything that was staged on its way to the host."""
        for ring in self._rings.values():
            ring.copy_out()

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
        self, position: int, groups: _Groups, rows: list[tuple[str, torch.Tensor]]
    ) -> dict[str, Part]:
        """Copy the values into the slots from `position` on; return how each one lies there."""
        parts: dict[str, Part] = {}
        place = position % COUNT
        for group, members in groups.items():
            part = Part(_kind(group.dtype), 0)
            ring = self._ring(group.device)
            ring.put(place, list(members.values()), floating=part.kind == Kind.FLOAT)
            parts.update(dict.fromkeys(members, part))
            place += len(members)
        for key, row in rows:
            length, kind = len(row), _kind(row.dtype)
            self._ring(row.get_device()).put_row(place, row, floating=kind == Kind.FLOAT)
            parts[key] = Part(kind, length if length > 1 else 0)
            place += length
        return parts

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
        if position + count - self._oldest() > COUNT:
            self.copy_out()
            self.settle()
            if position + count - self._oldest() > COUNT and not self._wait(position + count):
                self.dropped += count
                return None
        self._next = position + count
        self._slots.clear(position, count)
        self._pinned.clear(position % COUNT, count)
        return position

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
        self._pinned.mirror(log.position % COUNT, log.count)
        if not log.take_in(self._slots):
            return False
        pending.fill_entry()
        self._settled = log.position + log.count
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


_Groups: TypeAlias = dict[_Group, dict[str, torch.Tensor]]


def _group(tensors: Mapping[str, torch.Tensor]) -> tuple[_Groups, list[tuple[str, torch.Tensor]]]:
    """Sort the tensors into numbers, by device and dtype, and rows."""
    groups: _Groups = {}
    rows: list[tuple[str, torch.Tensor]] = []
    last: _Group | None = None
    members: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if tensor.ndim:
            rows.append((key, tensor.reshape(-1)))
            continue
        device, dtype = tensor.get_device(), tensor.dtype
        if last is None or last.dtype is not dtype or last.device != device:
            last = _Group(device, dtype)
            members = groups.setdefault(last, {})
        members[key] = tensor
    return groups, rows


def _kind(dtype: torch.dtype) -> Kind:
    if dtype.is_floating_point:
        return Kind.FLOAT
    return Kind.BOOLEAN if dtype == torch.bool else Kind.INTEGER
