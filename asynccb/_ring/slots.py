"""
Slots in shared memory for numbers on their way from a device: the device writes, anyone reads.

Promises: reading only looks at memory, so no thread except the training's ever calls the device. A
slot is empty (a NaN of a reserved bit pattern) until its value has landed. A slot is not reused
before both the training process and the companion have read it. Needs no torch.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

COUNT: Final = 1 << 16
"""Number of slots, of 8 bytes each; at 20 scalars a step they hold 3,276 unread steps."""
SIZE: Final = COUNT * 8
EMPTY: Final = 0x7FF8_A5CC_B0DE_5107
"""Bits of a slot until its value lands. This is the only integer that cannot be logged."""

_EMPTY_SLOT: Final = EMPTY.to_bytes(8, "little")


class Kind(IntEnum):
    """The type of the 8 bytes of a slot."""

    FLOAT = 0
    INTEGER = 1
    BOOLEAN = 2


class Part(NamedTuple):
    """The place of one value of a log in the slots: its type and length."""

    kind: Kind
    length: int
    """Length of a list; 0 for a number, which uses one slot."""


class Slots:
    """A view of the slots; both sides create one."""

    def __init__(self, memory: memoryview) -> None:
        """Take the writable memory, `SIZE` bytes."""
        self._bits = memory.cast("Q")
        self._floats = memory.cast("d")
        self._integers = memory.cast("q")
        self.memory = memory

    def release(self) -> None:
        """Release the views of the memory."""
        for view in (self._bits, self._floats, self._integers, self.memory):
            view.release()

    def clear(self, position: int, count: int) -> None:
        """Empty `count` slots from a position on; they must not extend past the end."""
        begin = position % COUNT * 8
        self.memory[begin : begin + count * 8] = _EMPTY_SLOT * count

    def landed(self, position: int, count: int) -> bool:
        """Return whether all of these values have landed."""
        place = position % COUNT
        # Check the last slot first: it is the likeliest to be empty.
        if self._bits[place + count - 1] == EMPTY:
            return False
        return EMPTY not in self._bits[place : place + count].tolist()

    def read(self, position: int, kind: int, count: int) -> Any:
        """Return a number, or a list of `count` numbers if `count` is above 0."""
        values = self.row(position, kind, count or 1)
        return values if count else values[0]

    def row(self, position: int, kind: int, count: int) -> list[Any]:
        """Return `count` numbers of one kind from a position on."""
        place = position % COUNT
        view = self._floats if kind == Kind.FLOAT else self._integers
        values: list[Any] = view[place : place + count].tolist()
        return [bool(value) for value in values] if kind == Kind.BOOLEAN else values
