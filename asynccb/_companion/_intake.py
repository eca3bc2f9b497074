"""
From the ring to the journal, also where the disk refuses.

Promises: the ring's room is given back only after the journal has its records, or while the disk
refuses and the ring gets full: then events are dropped, counted and said, so that the training goes
on; what begins, ends or describes the run waits here, in little memory, until the disk takes it.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from asynccb._companion._arrivals import Arrivals
from asynccb._ring import RingReader
from asynccb.delivery.journal import JournalWriter
from asynccb.delivery.thinning import thin

logger = logging.getLogger("asynccb")

_AGAIN: Final = 0.5
"""Seconds between two attempts while the disk refuses."""
_CROWDED: Final = 0.5
"""Fullness of the ring from which on events are dropped while the disk refuses."""


class Intake:
    """Move records from the ring to the journal; for one task."""

    def __init__(self, ring: RingReader, arrivals: Arrivals, journal: JournalWriter) -> None:
        """Take what it connects."""
        self._ring = ring
        self._arrivals = arrivals
        self._journal = journal
        self._held: list[bytes] = []
        self._first = 0
        self._end = 0
        self._refused_until = 0.0
        self._said = False
        self._dropped = 0

    @property
    def taken(self) -> int:
        """Number of records that were taken from the ring, those that were dropped included."""
        return max(self._end, self._journal.next)

    @property
    def is_empty(self) -> bool:
        """Whether the journal has everything that was taken."""
        return not self._held

    async def take(self) -> bool:
        """Move what there is; tell whether the journal has grown."""
        frames, first, last = self._ring.read(self._arrivals)
        if frames:
            self._first = self._first if self._held else first
            self._held.append(frames)
            self._end = last + 1
        if not self._held:
            return False
        if time.monotonic() < self._refused_until:
            self._make_room()
            return False
        try:
            await self._journal.append(b"".join(self._held), self._first, self._end - 1)
        except OSError as error:
            self._refuse(error)
            return False
        self._held.clear()
        self._ring.release()
        self._accept()
        return True

    def _refuse(self, error: OSError) -> None:
        self._refused_until = time.monotonic() + _AGAIN
        if not self._said:
            self._said = True
            logger.error(
                "the journal cannot be written (%s); it is tried again, and the training goes on: "
                "events that find the ring half full are dropped",
                error,
            )
        self._make_room()

    def _accept(self) -> None:
        if self._said:
            self._said = False
            logger.warning(
                "the journal can be written again; %d events were dropped meanwhile", self._dropped
            )
            self._dropped = 0

    def _make_room(self) -> None:
        """Drop what may be dropped, before the training has to wait for room in the ring."""
        if self._ring.fullness > _CROWDED:
            kept, dropped = thin(b"".join(self._held), self._first - 1)
            self._held[:] = [kept]
            self._dropped += dropped
            self._ring.release()
