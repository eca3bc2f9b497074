"""
The writing position in a ring, in plain Python; `_compiled/hot.c` has the same class.

Promises: a frame is visible whole or not at all; `write` returns False, and nothing has changed, if
the ring is full.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from asynccb._compiled.load import load_compiled
from asynccb._ring.frame import HEADER, checksum, frame_size

BRIEF: Final = Struct("<QQQQd")
"""Payload of a brief frame: time, step, flags, position of the first slot, epoch. The numbers of
the host follow, 8 bytes each."""
STAGED_BIT: Final = 1 << 31
"""Set in the length of a frame if some of its values are on their way through the slots."""
BRIEF_BIT: Final = 1 << 30
"""Set in the length of a brief frame."""
SKIP: Final = 0xFFFFFFFF
"""Length that sends the reader back to the start of the ring."""
WORD_HEAD: Final = 2
"""Word of the position after the last frame; the writer's."""
WORD_TAIL: Final = 3
"""Word of the position below which frames are read; the reader's."""


class FrameWriter:
    """The frames of a ring, from one thread of one process."""

    def __init__(self, memory: Any, first: int, capacity: int, *, checked: bool = False) -> None:
        """
        Write to the `capacity` bytes of frames that begin at byte `first` of the memory.

        `checked` gives each frame a checksum; needed where another core may see stores in a
        different order.
        """
        self._memory = memoryview(memory)
        self._words = self._memory.cast("Q")
        self._first = first
        self._capacity = capacity
        self._checked = checked
        self._head = 0
        self.written = 0
        """Number of records written so far, which is the id of the next record."""

    def write(self, payload: bytes, staged: bool = False) -> bool:
        """
        Append a record; if the ring has no room, write nothing and return False.

        `staged` says whether some of the values are on their way through the slots. Raises
        ValueError for a payload of more than half the ring, which might never find room.
        """
        if frame_size(len(payload)) > self._capacity >> 1:
            raise ValueError(
                f"a record of {len(payload)} bytes does not fit a ring of {self._capacity}"
            )
        crc = checksum(payload, self.written) if self._checked else 0
        return self._append(payload, STAGED_BIT if staged else 0, crc)

    def write_brief(
        self,
        form: int,
        time: int,
        step: int,
        flags: int,
        position: int,
        epoch: float,
        numbers: bytes,
        staged: bool,
    ) -> bool:
        """Append a log of a numbered form; return False if the ring has no room, or checks."""
        if self._checked:
            return False
        payload = BRIEF.pack(time, step, flags, position, epoch) + numbers
        return self._append(payload, BRIEF_BIT | (STAGED_BIT if staged else 0), form)

    def release(self) -> None:
        """Release the view of the memory."""
        self._words.release()
        self._memory.release()

    def _append(self, payload: bytes, bits: int, second: int) -> bool:
        """Append a frame with bits in its length; `second` is the checksum, or the form."""
        total = frame_size(len(payload))
        place = self._find_place(total)
        if place is None:
            return False
        start = self._first + place
        HEADER.pack_into(self._memory, start, len(payload) | bits, second, self.written)
        self._memory[start + HEADER.size : start + HEADER.size + len(payload)] = payload
        self.written += 1
        self._head += total
        self._words[WORD_HEAD] = self._head  # last: all frames before it are complete
        return True

    def _find_place(self, total: int) -> int | None:
        """Return the place for a frame of so many bytes, and skip the end of the ring if needed."""
        place = self._head % self._capacity
        skip = self._capacity - place if place + total > self._capacity else 0
        limit = self._words[WORD_TAIL] + self._capacity
        if total > self._capacity >> 1 or self._head + skip + total > limit:
            return None
        if skip:  # at least 8 bytes, maybe too few for a whole header
            self._words[self._first + place >> 3] = SKIP
        self._head += skip  # the reader sees it with the next record
        return 0 if skip else place


def frame_writer(memory: Any, first: int, capacity: int, *, checked: bool) -> FrameWriter:
    """Return a writer of frames, the compiled one unless frames are `checked`."""
    compiled = load_compiled()
    if compiled is None or checked:
        return FrameWriter(memory, first, capacity, checked=checked)
    return compiled.FrameWriter(memory, first, capacity)  # type: ignore[no-any-return]
