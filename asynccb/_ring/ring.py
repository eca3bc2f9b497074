"""
A single-producer, single-consumer ring of framed records in shared memory.

Promises: `write` never waits and makes no system call. The reader sees a record whole or not at
all. Written records survive the writer's death. The reader removes nothing until it calls
`release`, so a reader that dies loses nothing either.

Layout: a page of 64-bit words (`_WORD_*`), then `capacity` bytes of frames, then the forms of logs
(`form_table.py`), then the slots that devices write to (`slots.py`). A frame is `<IIQ` (payload
length, CRC-32, record id), then the payload, padded to 8 bytes. Frames do not wrap: a length of
`_SKIP` sends the reader back to the start. The journal consists of the same frames.

On a machine that reorders stores, a ring is checked: the CRC makes a frame whose bytes have not all
arrived look unfinished, never wrong. On other machines the writer leaves the CRC 0, which saves it
some microseconds, and the reader computes the CRC for the journal.

In an unchecked ring, a log of a known form may use a brief frame. It has the number of the log's
form in place of the CRC, and `BRIEF` as payload. The reader builds the record from it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from typing import Final, TypeAlias

from asynccb._compiled.load import REORDERS
from asynccb._ground.exceptions import JournalError
from asynccb._ring.form_table import TABLE_SIZE, FormTable
from asynccb._ring.frame import HEADER, checksum, frame, frame_size
from asynccb._ring.frame_writer import BRIEF_BIT, SKIP, WORD_HEAD, WORD_TAIL, frame_writer
from asynccb._ring.slots import COUNT, SIZE, Slots

_MAGIC: Final = 0x31_42_43_43_4E_59_53_41
_PAGE: Final = 4096
_SKIPPED: Final = SKIP.to_bytes(4, "little")
_WORD_MAGIC, _WORD_CAPACITY, _WORD_SLOTS_READ, _WORD_CHECKED = 0, 1, 4, 5
_LENGTH: Final = BRIEF_BIT - 1

Resolve: TypeAlias = Callable[[bytes, int], tuple[bytes, int] | None]
"""Puts landed values into a payload. The arguments are the payload and, if it is brief, the number
of its form, else 0. Returns the whole record and the end of its slots; None if a value is missing.
"""


class _Ring:
    """The mapped memory of a ring; both ends share this class."""

    def __init__(self, fd: int, size: int, flags: int = mmap.MAP_SHARED) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, size, flags)
        self._words = memoryview(self._map).cast("Q")
        self.capacity = size - _PAGE - TABLE_SIZE - SIZE
        rest = memoryview(self._map)[_PAGE + self.capacity :]
        self.forms = FormTable(rest[:TABLE_SIZE])
        self.slots = Slots(rest[TABLE_SIZE:])

    def close(self) -> None:
        """Unmap the memory and close the descriptor."""
        if self.fd >= 0:
            self._words.release()
            self._release()
            self.forms.release()
            self.slots.release()
            # A device's view of the slots keeps the mapping open, above all in a forked child.
            with contextlib.suppress(BufferError):
                self._map.close()
            os.close(self.fd)
            self.fd = -1

    def _release(self) -> None:
        """Release this end's own views of the memory."""

    @property
    def used(self) -> int:
        """Bytes written and not yet released."""
        return int(self._words[WORD_HEAD] - self._words[WORD_TAIL])


class RingWriter(_Ring):
    """The writing end of a ring; for one thread of one process."""

    def __init__(self, capacity: int = 8 << 20, *, checked: bool = REORDERS) -> None:
        """
        Create a ring of `capacity` bytes, a multiple of 4096.

        `checked` may be False only if other cores see stores in order. Raises OSError if the system
        has no memfd, or no memory for the ring.
        """
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd")
        if capacity % _PAGE or capacity < _PAGE:
            raise ValueError(f"a ring's capacity is a multiple of {_PAGE} bytes, not {capacity}")
        fd = os.memfd_create("asynccb-ring", os.MFD_CLOEXEC)
        try:
            size = _PAGE + capacity + TABLE_SIZE + SIZE
            os.ftruncate(fd, size)
            # Faulting the pages in now saves 4 us for each page in the first lap of the ring.
            super().__init__(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except (OSError, ValueError):  # no memory for the ring
            os.close(fd)
            raise
        self._words[_WORD_CHECKED] = checked
        self._words[_WORD_CAPACITY] = capacity
        self._words[_WORD_MAGIC] = _MAGIC
        self._checked = checked
        self._most = capacity >> 1
        self.frames = frame_writer(self._map, _PAGE, capacity, checked=checked)
        self.write = self.frames.write
        """As `FrameWriter.write`."""

    def _release(self) -> None:
        self.frames.release()

    @property
    def largest(self) -> int:
        """Bytes of the largest payload that `write` accepts."""
        return self._most - HEADER.size

    @property
    def slots_read(self) -> int:
        """Position below which the reader has finished with the slots."""
        return int(self._words[_WORD_SLOTS_READ])

    @property
    def written(self) -> int:
        """Number of records written so far, which is the id of the next record."""
        return self.frames.written

    def number_form(self, form: bytes) -> int:
        """Return a form's number for brief frames; 0 if logs of this form cannot be brief."""
        return 0 if self._checked else self.forms.add(form)


class RingReader(_Ring):
    """The reading end of a ring; for one thread of one process."""

    def __init__(self, fd: int) -> None:
        """Map the ring behind a descriptor; raise `JournalError` if it is not a ring."""
        super().__init__(fd, os.fstat(fd).st_size)
        if self._words[_WORD_MAGIC] != _MAGIC or self._words[_WORD_CAPACITY] != self.capacity:
            raise JournalError(f"descriptor {fd} holds no asynccb ring")
        self._data = memoryview(self._map)[_PAGE : _PAGE + self.capacity]
        self._checked = bool(self._words[_WORD_CHECKED])
        self._slots_read = self._words[_WORD_SLOTS_READ]
        self._seen = self._words[WORD_TAIL]

    def _release(self) -> None:
        self._data.release()

    def read(self, resolve: Resolve | None = None) -> tuple[bytes, int, int]:
        """
        Return all whole frames since the last call as one string, and the first and the last id.

        Staged values are put into their record with `resolve`. If they have not landed, the string
        ends before that record. The frames stay in the ring until `release`. The string is empty
        if there are no new frames.
        """
        head = self._words[WORD_HEAD]
        parts: list[bytes] = []
        first = last = -1
        while self._seen < head:
            place = self._seen % self.capacity
            if self._data[place : place + 4] == _SKIPPED:
                self._seen += self.capacity - place
                continue
            size, crc, record = HEADER.unpack_from(self._data, place)
            length = size & _LENGTH
            end = place + frame_size(length)
            if end > self.capacity:
                break
            payload = bytes(self._data[place + 16 : place + 16 + length])
            if self._checked and checksum(payload, record) != crc:
                break  # not all of its bytes have arrived; the next call finds them
            if size == length:
                parts.append(frame(payload, record))
            elif resolve is None:
                break
            elif (resolved := resolve(payload, crc if size & BRIEF_BIT else 0)) is not None:
                parts.append(frame(resolved[0], record))
                self._slots_read = resolved[1]
            else:
                break
            first = record if first < 0 else first
            last = record
            self._seen += end - place
        return b"".join(parts), first, last

    @property
    def unread(self) -> bool:
        """Whether the ring has records that `read` has not returned yet."""
        return bool(self._seen < self._words[WORD_HEAD])

    @property
    def fullness(self) -> float:
        """Share of the room in use, from 0 to 1: for records or values, whichever is greater."""
        values = self._slots_read - self._words[_WORD_SLOTS_READ]
        return max(self.used / self.capacity, values / COUNT)

    def release(self) -> None:
        """Free the room and the slots of all frames that `read` has returned."""
        self._words[_WORD_SLOTS_READ] = self._slots_read
        self._words[WORD_TAIL] = self._seen
