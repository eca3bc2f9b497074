"""
Logs some of whose values are on their way, and their form in a record.

Promises: the form costs about as much as plain logs, however many values are on their way; what it
is unpacked to has the keys in their order and each value in its place.

The form is a MessagePack extension: `<QI` (position of the first slot, length of the layout), the
layout, and the other values as a map. The layout is an array of `[key]` for each other value and
`[key, kind, length, offset]` for each staged one; it is the same for every step of a run, and made
and read once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from operator import is_
from struct import Struct
from typing import Any, Final, Self, TypeAlias

import msgspec

from asynccb._ring.slots import Slots
from asynccb._staging.staged import Layout, Staged, StagedLog

LOGS_EXTENSION: Final = 2
"""MessagePack extension type of logs with values on their way."""
_HEAD: Final = Struct("<QI")
_NO_OTHERS: Final = msgspec.msgpack.encode({})
_KEPT: Final = 256
"""Layouts that are remembered."""

LayoutKey: TypeAlias = tuple[Layout, tuple[str, ...]]


class StagedLogs(dict[str, Any]):
    """Hold logs as a dict, with stand-ins for the values that land together as `log`."""

    __slots__ = ("log", "size", "stand_ins")

    log: StagedLog
    stand_ins: tuple[Staged, ...]
    size: int

    @classmethod
    def of(cls, values: Mapping[str, Any], log: StagedLog) -> Self:
        """Return the values with stand-ins for those of the log."""
        # No __init__: a Python one would take as long as all the rest.
        logs = cls(values)
        logs.log = log
        logs.stand_ins = log.stand_ins()
        logs.update(zip(log.layout.keys, logs.stand_ins, strict=True))
        logs.size = len(logs)
        return logs

    @property
    def is_whole(self) -> bool:
        """Whether every stand-in is still in its place, which a hook may have changed."""
        placed = map(self.get, self.log.layout.keys)
        return len(self) == self.size and all(map(is_, placed, self.stand_ins))


def with_numbers(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `def` hook that gets numbers where values are on their way, and waits for them."""

    @functools.wraps(hook)
    def read(*args: Any, **kwargs: Any) -> Any:
        for name in ("logs", "metrics"):
            values = kwargs.get(name)
            if isinstance(values, Mapping) and any(type(v) is Staged for v in values.values()):
                kwargs[name] = {
                    key: value.value() if type(value) is Staged else value
                    for key, value in values.items()
                }
        return hook(*args, **kwargs)

    return read


class LogPacker:
    """Give staged logs the form that a record holds."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        """Take what encodes the other values."""
        self.encode = encode
        self._layouts: dict[LayoutKey, bytes] = {}

    def pack(self, logs: StagedLogs) -> msgspec.msgpack.Ext:
        """Return the form of logs that are whole."""
        log = logs.log
        key = (log.layout, tuple(logs))
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _KEPT:
                self._layouts.clear()
            layout = self._layouts[key] = pack_layout(logs, log.layout)
        others = None
        if len(logs) > len(log.layout.parts):
            others = {key: value for key, value in logs.items() if type(value) is not Staged}
        return self.join(log.position, layout, others)

    def join(
        self, position: int, layout: bytes, others: Mapping[str, Any] | None
    ) -> msgspec.msgpack.Ext:
        """Return the form of logs from its parts."""
        plain = _NO_OTHERS if others is None else self.encode(others)
        body = _HEAD.pack(position, len(layout)) + layout + plain
        return msgspec.msgpack.Ext(LOGS_EXTENSION, body)


def pack_layout(names: Iterable[str], layout: Layout) -> bytes:
    """Return the layout of logs with these names, in their order."""
    staged = {
        key: [key, int(part.kind), part.length, offset]
        for key, part, offset in zip(layout.keys, layout.parts, layout.offsets, strict=True)
    }
    return msgspec.msgpack.encode([staged.get(name, [name]) for name in names])


class LogUnpacker:
    """Read the form back."""

    def __init__(self, slots: Slots) -> None:
        """Take the slots that the values land in."""
        self._slots = slots
        self._layouts: dict[bytes, tuple[list[list[Any]], int]] = {}

    def unpack(
        self, body: memoryview, look_up: Callable[[int, int, int], Any]
    ) -> tuple[dict[str, Any], int]:
        """
        Return the logs, and the position after their slots.

        `look_up(position, kind, length)` is called for a value that is not there, if any is not.
        """
        position, size = _HEAD.unpack_from(body)
        end = _HEAD.size + size
        layout, others = bytes(body[_HEAD.size : end]), msgspec.msgpack.decode(body[end:])
        return self.join(position, layout, others, look_up)

    def join(
        self,
        position: int,
        layout: bytes,
        others: Mapping[str, Any],
        look_up: Callable[[int, int, int], Any],
    ) -> tuple[dict[str, Any], int]:
        """Do as `unpack` with the parts of a form."""
        rows, count = self._read_layout(layout)
        read = self._slots.read if self._slots.landed(position, count) else look_up
        logs = {
            row[0]: others[row[0]] if len(row) == 1 else read(position + row[3], row[1], row[2])
            for row in rows
        }
        return logs, position + count

    def _read_layout(self, layout: bytes) -> tuple[list[list[Any]], int]:
        known = self._layouts.get(layout)
        if known is None:
            if len(self._layouts) >= _KEPT:
                self._layouts.clear()
            rows = msgspec.msgpack.decode(layout)
            count = sum(row[2] or 1 for row in rows if len(row) > 1)
            known = self._layouts[layout] = rows, count
        return known
