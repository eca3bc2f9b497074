"""
A table of log forms in shared memory, so that a record can refer to its form by number.

Promises: a number leads to its form for as long as the memory lasts, also in a companion that was
started later. Nothing is ever removed.

Layout: entries one after the other. Each is `<I` (length) and the form's bytes, padded to 8. An
entry's number is its offset in units of 8 bytes, plus 1; 0 means that there is no entry.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

TABLE_SIZE: Final = 1 << 16
"""Bytes of the table: room for some 230 forms of 20 scalars."""

_LENGTH: Final = Struct("<I")


class FormTable:
    """The numbered forms; both sides create a table, only the training's side adds forms."""

    def __init__(self, memory: memoryview) -> None:
        """Take the memory, `TABLE_SIZE` bytes."""
        self._memory = memory
        self._end = 0
        self._numbers: dict[bytes, int] = {}

    def add(self, form: bytes) -> int:
        """Return the form's number, the same for equal forms; 0 if the table is full."""
        number = self._numbers.get(form, 0)
        end = self._end + _LENGTH.size + len(form)
        if not number and end <= len(self._memory):
            _LENGTH.pack_into(self._memory, self._end, len(form))
            self._memory[self._end + _LENGTH.size : end] = form
            number = self._numbers[form] = self._end // 8 + 1
            self._end = end + 7 & ~7
        return number

    def find(self, number: int) -> bytes:
        """Return the form with this number."""
        begin = (number - 1) * 8
        (length,) = _LENGTH.unpack_from(self._memory, begin)
        return bytes(self._memory[begin + _LENGTH.size :][:length])

    def release(self) -> None:
        """Release the view of the memory."""
        self._memory.release()
