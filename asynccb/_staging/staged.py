"""A log's values that are still on their way from a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, repeat
from struct import Struct
from typing import Any, Final

import msgspec

from asynccb._ring.slots import Part, Slots

EXTENSION: Final = 1
"""MessagePack extension type of a value that is still on its way."""
_REFERENCE: Final = Struct("<QBxH")


class Layout:
    """The places of a log's values in the slots; shared by all logs of one form."""

    __slots__ = ("count", "keys", "kind", "offsets", "parts")

    def __init__(self, parts: Mapping[str, Part]) -> None:
        """Take the parts by the names of their values, in the order of the slots."""
        self.keys = tuple(parts)
        self.parts = tuple(parts.values())
        *offsets, self.count = accumulate((part.length or 1 for part in self.parts), initial=0)
        self.offsets = tuple(offsets)
        """First slot of each value, relative to the log's position."""
        kinds = {part.kind for part in self.parts}
        self.kind = kinds.pop() if len(kinds) == 1 and self.count == len(self.parts) else None
        """The kind of all values, if all are single numbers of the same kind; else None."""

    def read(self, slots: Slots, position: int, times: int) -> Iterator[list[Any]]:
        """Yield the values of `times` logs whose slots follow each other."""
        if self.kind is not None:
            values = slots.row(position, self.kind, self.count * times)
            for begin in range(0, len(values), self.count):
                yield values[begin : begin + self.count]
            return
        for begin in range(position, position + self.count * times, self.count):
            yield [
                slots.read(begin + offset, *part)
                for offset, part in zip(self.offsets, self.parts, strict=True)
            ]


class StagedLog(msgspec.Struct, eq=False):
    """The staged values of one log, which land together."""

    position: int
    layout: Layout
    arrive: Callable[[StagedLog], None]
    """Waits for the values."""
    look: Callable[[], None] = lambda: None
    """Reads the values that have landed."""
    values: list[Any] | None = None
    """The numbers, once they have landed."""
    entry: dict[str, Any] | None = None
    """The history entry that waits for the numbers."""

    def stand_ins(self) -> tuple[Staged, ...]:
        """Return the placeholders for the numbers, in the order of the layout."""
        return tuple(map(Staged, repeat(self), range(len(self.layout.keys))))

    def watch(self, entry: dict[str, Any]) -> None:
        """Put the numbers into a history entry, in place, once they land."""
        # In this order, either this thread or the thread that reads the values fills the entry.
        self.entry = entry
        if self.values is not None:
            self._fill(entry, self.values)

    def take(self, values: list[Any]) -> None:
        """Accept the numbers, which have landed."""
        self.values = values
        if self.entry is not None:
            self._fill(self.entry, values)

    def _fill(self, entry: dict[str, Any], values: list[Any]) -> None:
        """Replace the stand-ins that the entry still has with the numbers."""
        keys = self.layout.keys
        if [*map(type, map(entry.get, keys))].count(Staged) == len(keys):  # nearly always
            entry.update(zip(keys, values, strict=True))
            return
        for key, value in zip(keys, values, strict=True):
            if type(entry.get(key)) is Staged:
                entry[key] = value


class Staged:
    """
    A stand-in for a number that is on its way from a device.

    Operations that need the number itself (`float`, `format`, a comparison, a copy) wait for it,
    which costs the training thread a step or more. `landed` is True if they would not wait.
    """

    __slots__ = ("index", "log")

    def __init__(self, log: StagedLog, index: int) -> None:
        """Take the log that the number lands with, and the number's index there."""
        self.log = log
        self.index = index

    @property
    def landed(self) -> bool:
        """Whether the number has landed."""
        return self.log.values is not None

    def look(self) -> bool:
        """Read landed values, on any thread and without waiting; return whether this one landed."""
        if self.log.values is None:
            self.log.look()
        return self.landed

    def value(self) -> Any:
        """Return the number, or the list of numbers; waits for it."""
        log = self.log
        if log.values is None:
            log.arrive(log)
            assert log.values is not None
        return log.values[self.index]

    def reference(self) -> bytes:
        """Return the body of the MessagePack extension that represents the number in a record."""
        layout = self.log.layout
        kind, count = layout.parts[self.index]
        return _REFERENCE.pack(self.log.position + layout.offsets[self.index], kind, count)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        """Make copies and pickles contain the number; waits for it."""
        return _as_it_is, (self.value(),)

    def __float__(self) -> float:
        return float(self.value())

    def __int__(self) -> int:
        return int(self.value())

    def __bool__(self) -> bool:
        return bool(self.value())

    def __eq__(self, other: object) -> bool:
        return bool(self.value() == (other.value() if isinstance(other, Staged) else other))

    def __lt__(self, other: Any) -> bool:
        return bool(float(self) < float(other))

    def __gt__(self, other: Any) -> bool:
        return bool(float(self) > float(other))

    def __hash__(self) -> int:
        return hash(self.value())

    def __format__(self, specification: str) -> str:
        return format(self.value(), specification)

    def __repr__(self) -> str:
        return repr(self.value()) if self.landed else "<on its way from the device>"


def _as_it_is(value: Any) -> Any:
    return value


def parse_reference(body: bytes | memoryview) -> tuple[int, int, int]:
    """Return the position, kind and count from a `Staged.reference`."""
    position, kind, count = _REFERENCE.unpack(body)
    return position, kind, count
