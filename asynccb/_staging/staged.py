"""Values of a log that are still on their way from a device."""

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
    """Say how the values of a log lie in the slots; shared by all logs of one form."""

    __slots__ = ("count", "keys", "kind", "offsets", "parts")

    def __init__(self, parts: Mapping[str, Part]) -> None:
        """Take the values by name, in the order of their slots."""
        self.keys = tuple(parts)
        self.parts = tuple(parts.values())
        *offsets, self.count = accumulate((part.length or 1 for part in self.parts), initial=0)
        self.offsets = tuple(offsets)
        """First slot of each value, from the log's position on."""
        kinds = {part.kind for part in self.parts}
        self.kind = kinds.pop() if len(kinds) == 1 and self.count == len(self.parts) else None
        """The kind of all values, where each is a number of one kind."""

    def read(self, slots: Slots, position: int, times: int) -> Iterator[list[Any]]:
        """Yield the values of so many logs whose slots lie one after the other."""
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
    """Hold the values of one log, which land together."""

    position: int
    layout: Layout
    arrive: Callable[[StagedLog], None]
    """Waits for the values."""
    look: Callable[[], None] = lambda: None
    """Takes in those that are here."""
    values: list[Any] | None = None
    """The numbers, once they have landed."""
    entry: dict[str, Any] | None = None
    """The history entry that waits for the numbers."""

    def stand_ins(self) -> tuple[Staged, ...]:
        """Return what stands for the numbers, in the order of the layout."""
        return tuple(map(Staged, repeat(self), range(len(self.layout.keys))))

    def watch(self, entry: dict[str, Any]) -> None:
        """Put the numbers into a history entry, in place, when they land."""
        # In this order, so that one of this thread and the one that takes the values in fills it.
        self.entry = entry
        if self.values is not None:
            self._fill(entry, self.values)

    def take(self, values: list[Any]) -> None:
        """Take the numbers, which have landed."""
        self.values = values
        if self.entry is not None:
            self._fill(self.entry, values)

    def _fill(self, entry: dict[str, Any], values: list[Any]) -> None:
        """Put the numbers into an entry, where it still has their stand-ins."""
        keys = self.layout.keys
        if [*map(type, map(entry.get, keys))].count(Staged) == len(keys):  # nearly always
            entry.update(zip(keys, values, strict=True))
            return
        for key, value in zip(keys, values, strict=True):
            if type(entry.get(key)) is Staged:
                entry[key] = value


class Staged:
    """
    Stand for a number that is on its way from a device.

    Anything that needs the number itself (`float`, `format`, a comparison, a copy) waits for it,
    which costs the training thread a step or more; `landed` tells whether it would.
    """

    __slots__ = ("index", "log")

    def __init__(self, log: StagedLog, index: int) -> None:
        """Take the log that the number lands with, and its place there."""
        self.log = log
        self.index = index

    @property
    def landed(self) -> bool:
        """Whether the number is here."""
        return self.log.values is not None

    def look(self) -> bool:
        """Take in what is here, on any thread and without waiting; tell whether the number is."""
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
        """Return the body of the MessagePack extension that stands for this in a record."""
        layout = self.log.layout
        kind, count = layout.parts[self.index]
        return _REFERENCE.pack(self.log.position + layout.offsets[self.index], kind, count)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        """Have copies and pickles hold the number; waits for it."""
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
    """Return position, kind and count of what `Staged.reference` returned."""
    position, kind, count = _REFERENCE.unpack(body)
    return position, kind, count
