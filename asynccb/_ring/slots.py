"""
Numbers on their way from a device: slots in shared memory that the device writes and anyone reads.

Promises: reading looks at memory only, so that no thread but the training's ever makes a call to
the device; a slot is empty (a NaN of a reserved bit pattern) until its value has landed; it is not
used again before both the training process and the companion have read it. Needs no torch.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

COUNT: Final = 1 << 16
"""Slots of 8 bytes; at 20 scalars a step they last for 3,276 steps that nobody has read."""
SIZE: Final = COUNT * 8
EMPTY: Final = 0x7FF8_A5CC_B0DE_5107
"""What a slot holds until its value lands; as an integer it is the one that cannot be logged."""

_EMPTY_SLOT: Final = EMPTY.to_bytes(8, "little")


class Kind(IntEnum):
    """Say how the 8 bytes of a slot are to be read."""

    FLOAT = 0
    INTEGER = 1
    BOOLEAN = 2


class Part(NamedTuple):
    """Say how one value of a log lies in the slots."""

    kind: Kind
    length: int
    """Length of a list; 0 for a number, which takes one slot."""


class Slots:
    """View the slots; made on both sides."""

    def __init__(self, memory: memoryview) -> None:
        """Take the writable memory, `SIZE` bytes."""
        self._bits = memory.cast("Q")
        self._floats = memory.cast("d")
        self._integers = memory.cast("q")
        self.memory = memory

    def release(self) -> None:
        """Let go of the memory."""
        for view in (self._bits, self._floats, self._integers, self.memory):
            view.release()

    def clear(self, position: int, count: int) -> None:
        """Empty the slots from a position on; they must not run over the end."""
        begin = position % COUNT * 8
        self.memory[begin : begin + count * 8] = _EMPTY_SLOT * count

    def landed(self, position: int, count: int) -> bool:
        """Tell whether all of these values have landed."""
        place = position % COUNT
        # The last one first: it is the likeliest to be missing.
        if self._bits[place + count - 1] == EMPTY:
            return False
        return EMPTY not in self._bits[place : place + count].tolist()

    def read(self, position: int, kind: int, count: int) -> Any:
        """Return the number, or for `count` above 0 the list of that many."""
        values = self.row(position, kind, count or 1)
        return values if count else values[0]

    def row(self, position: int, kind: int, count: int) -> list[Any]:
        """Return the numbers of one kind from a position on."""
        place = position % COUNT
        view = self._floats if kind == Kind.FLOAT else self._integers
        values: list[Any] = view[place : place + count].tolist()
        return [bool(value) for value in values] if kind == Kind.BOOLEAN else values
