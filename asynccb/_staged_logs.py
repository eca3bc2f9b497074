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

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec

from asynccb._slots import Layout, Slots, Staged, StagedLog

LOGS_EXTENSION: Final = 2
"""MessagePack extension type of logs with values on their way."""
_HEAD: Final = Struct("<QI")
_NO_OTHERS: Final = msgspec.msgpack.encode({})
_KEPT: Final = 256
"""Layouts that are remembered."""

LayoutKey: TypeAlias = tuple[Layout, tuple[str, ...]]


class StagedLogs(dict[str, Any]):
    """Hold logs as a dict, with stand-ins for the values that land together as `log`."""

    __slots__ = ("log",)

    def __init__(self, values: Mapping[str, Any], log: StagedLog) -> None:
        """Take the values, and the log that their stand-ins belong to."""
        super().__init__(values)
        self.log = log

    @property
    def is_whole(self) -> bool:
        """Whether every staged value is still there, which a hook may have changed."""
        log, staged = self.log, 0
        for value in self.values():
            if type(value) is Staged:
                if value.log is not log:
                    return False
                staged += 1
        return staged == len(log.layout.parts)


class LogPacker:
    """Give staged logs the form that a record holds."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        """Take what encodes the other values."""
        self._encode = encode
        self._layouts: dict[LayoutKey, bytes] = {}

    def pack(self, logs: StagedLogs) -> msgspec.msgpack.Ext:
        """Return the form of logs that are whole."""
        log = logs.log
        key = (log.layout, tuple(logs))
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _KEPT:
                self._layouts.clear()
            layout = self._layouts[key] = self._encode(_rows(logs))
        others = _NO_OTHERS
        if len(logs) > len(log.layout.parts):
            plain = {key: value for key, value in logs.items() if type(value) is not Staged}
            others = self._encode(plain)
        body = _HEAD.pack(log.position, len(layout)) + layout + others
        return msgspec.msgpack.Ext(LOGS_EXTENSION, body)


def _rows(logs: StagedLogs) -> list[list[Any]]:
    layout = logs.log.layout
    rows: list[list[Any]] = []
    for key, value in logs.items():
        if type(value) is Staged:
            kind, length = layout.parts[value.index]
            rows.append([key, int(kind), length, layout.offsets[value.index]])
        else:
            rows.append([key])
    return rows


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
        start = _HEAD.size
        rows, count = self._read_layout(bytes(body[start : start + size]))
        others = msgspec.msgpack.decode(body[start + size :])
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
