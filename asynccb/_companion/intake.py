"""
From the ring to the journal, also where the disk refuses.

Promises: the ring's room is given back only after the journal has its records, or while the disk
refuses and the ring gets full: then they are held in memory, where the lanes read on, so that
trackers are served and the training goes on. What does not fit there is dropped, counted and said.
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
"""Seconds between two attempts while the disk refuses."""
_CROWDED: Final = 0.5
"""Fullness of the ring from which on its records are in memory only, while the disk refuses."""


def _nothing_passed() -> int:
    return 0


class Intake:
    """Move records from the ring to the journal; for one task."""

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
        Take what it connects, and where records are held that the disk refuses.

        `passed` returns the id below which no lane needs a record any more.
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
        """Number of records that lanes can read or that were dropped; safe on any thread."""
        return max(self.tail.end, self._journal.next)

    @property
    def is_empty(self) -> bool:
        """Whether the journal has everything that was taken."""
        return self.tail.held is None

    async def take(self) -> bool:
        """Move what there is; tell whether there is more for the lanes, or on the disk."""
        frames, first, last = self._ring.read(self._arrivals)
        if frames:
            written = False
            try:
                written = self.is_empty and await self._append(frames, first, last)
            finally:  # also at the deadline: what was read is not read again
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
        """Add a record of our own behind all others; it goes to the disk with them."""
        number = self.taken
        self.tail.hold(self._journal.next, frame(payload, number), number, number + 1)

    async def _write_held(self) -> bool:
        """Have the disk take what is held, if it is time to try; tell whether it took any."""
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
                "the journal cannot be written (%s); it is tried again. Until then trackers are "
                "served from memory, which a crash would lose; of what does not fit there the "
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
        """Free the ring before the training has to wait for room in it, and bound the memory."""
        if self._ring.fullness > _CROWDED:
            self._ring.release()
        self._dropped += self.tail.make_room(self._passed())
