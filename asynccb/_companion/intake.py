"""
Moves records from the ring to the journal, even while the disk refuses writes.

Promises: the ring's room is released only after its records are in the journal. There is one
exception: if the disk refuses writes and the ring fills up, the records stay in memory. The lanes
read them there, so trackers are served and the training continues. Records that do not fit in
memory are dropped, counted and logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from asynccb._companion.landing import Arrivals
from asynccb._journal.tail import Tail
from asynccb._journal.writer import JournalWriter
from asynccb._ring.frame import frame
from asynccb._ring.ring import RingReader

logger = logging.getLogger("asynccb")

_AGAIN: Final = 0.5
"""Seconds between two attempts while the disk refuses writes."""
_CROWDED: Final = 0.5
"""Fullness of the ring above which its records move to memory, while the disk refuses writes."""


def _nothing_passed() -> int:
    return 0


class Intake:
    """The path from the ring to the journal; for use by one task."""

    def __init__(
        self,
        ring: RingReader,
        arrivals: Arrivals,
        journal: JournalWriter,
        *,
        tail: Tail | None = None,
        passed: Callable[[], int] = _nothing_passed,
    ) -> None:
        """
        Take the ring, the journal, and the `tail` that holds records while the disk refuses them.

        `passed` returns an id: no lane needs records below it.
        """
        self._ring = ring
        self._arrivals = arrivals
        self._journal = journal
        self.tail = tail or Tail()
        self._passed = passed
        self._refused_until = 0.0
        self._said = False
        self._dropped = 0

    @property
    def taken(self) -> int:
        """Number of records that lanes can read, plus dropped ones; safe on any thread."""
        return max(self.tail.end, self._journal.next)

    @property
    def is_empty(self) -> bool:
        """Whether every record taken from the ring is in the journal."""
        return self.tail.held is None

    async def take(self) -> bool:
        """Move all available records; return whether lanes or the disk received any."""
        frames, first, last = self._ring.read(self._arrivals)
        if frames:
            written = False
            try:
                written = self.is_empty and await self._append(frames, first, last)
            finally:  # also on cancellation at the deadline: the ring returns each record once
                if not written:
                    self.tail.hold(self._journal.next, frames, first, last + 1)
            if written:
                self._ring.release()
                return True
        if self.is_empty:
            return False
        written = await self._write_held()
        if not self.is_empty:
            self._make_room()
        return written or bool(frames)

    def hold(self, payload: bytes) -> None:
        """Append a record of the companion's own, written to the disk after all others."""
        number = self.taken
        self.tail.hold(self._journal.next, frame(payload, number), number, number + 1)

    async def _write_held(self) -> bool:
        """Retry writing the held records if a retry is due; return whether any were written."""
        written = False
        while time.monotonic() >= self._refused_until and self.tail.chunks:
            chunk = self.tail.chunks[0]
            if not await self._append(chunk.frames, chunk.first, chunk.end - 1):
                break
            self.tail.let_go(self._journal.next)
            written = True
        if self.is_empty:
            self._ring.release()
            self._accept()
        return written

    async def _append(self, frames: bytes, first: int, last: int) -> bool:
        try:
            await self._journal.append(frames, first, last)
        except OSError as error:
            self._refuse(error)
            return False
        return True

    def _refuse(self, error: OSError) -> None:
        self._refused_until = time.monotonic() + _AGAIN
        if not self._said:
            self._said = True
            logger.error(
                "the journal cannot be written (%s); retrying. Until then trackers are served "
                "from memory, which a crash would lose. If the memory limit is reached, the "
                "oldest events are dropped",
                error,
            )

    def _accept(self) -> None:
        if self._said:
            self._said = False
            logger.warning(
                "the journal can be written again; %d events were dropped meanwhile", self._dropped
            )
            self._dropped = 0

    def _make_room(self) -> None:
        """Release the ring before the training has to wait for room, and limit the memory."""
        if self._ring.fullness > _CROWDED:
            self._ring.release()
        self._dropped += self.tail.make_room(self._passed())
