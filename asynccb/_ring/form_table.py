"""
Forms of logs in shared memory, so that a record names its form by a number.

Promises: who has a number can read its form for as long as the memory lasts, a companion that was
started later too; nothing is taken out.

Layout: one entry after the other, each `<I` (length) and so many bytes, padded to 8. The number of
an entry is its place in units of 8 bytes, plus 1; 0 is the number of none.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

TABLE_SIZE: Final = 1 << 16
"""Bytes of the table: some 230 forms of 20 scalars."""

_LENGTH: Final = Struct("<I")


class FormTable:
    """Number forms; made on both sides, where the training's alone adds."""

    def __init__(self, memory: memoryview) -> None:
        """Take the memory, `TABLE_SIZE` bytes."""
        self._memory = memory
        self._end = 0
        self._numbers: dict[bytes, int] = {}

    def add(self, form: bytes) -> int:
        """Return the form's number, the same for equal ones; 0 where there is no room for it."""
        number = self._numbers.get(form, 0)
        end = self._end + _LENGTH.size + len(form)
        if not number and end <= len(self._memory):
            _LENGTH.pack_into(self._memory, self._end, len(form))
            self._memory[self._end + _LENGTH.size : end] = form
            number = self._numbers[form] = self._end // 8 + 1
            self._end = end + 7 & ~7
        return number

    def find(self, number: int) -> bytes:
        """Return the form of a number."""
        begin = (number - 1) * 8
        (length,) = _LENGTH.unpack_from(self._memory, begin)
        return bytes(self._memory[begin + _LENGTH.size :][:length])

    def release(self) -> None:
        """Let go of the memory."""
        self._memory.release()
