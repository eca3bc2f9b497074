"""
Logs with some values on their way, and their form in a record.

Promises: the form costs about as much as plain logs, however many values are on their way. The
unpacked logs have the keys in the original order, with each value at its key.

The form is a MessagePack extension: `<QI` (position of the first slot, length of the layout), then
the layout, then the other values as a map. The layout is an array of `[key]` for each other value
and `[key, kind, length, offset]` for each staged value. It is the same for every step of a run, so
it is made and read once. The layout of a brief frame has `[key, kind]` for each number of the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from operator import is_
from struct import Struct
from typing import Any, Final, Self, TypeAlias

import msgspec

from asynccb._ring.slots import Kind, Slots
from asynccb._staging.staged import Layout, Staged, StagedLog

LOGS_EXTENSION: Final = 2
"""MessagePack extension type of logs with values on their way."""
_HEAD: Final = Struct("<QI")
_NO_OTHERS: Final = msgspec.msgpack.encode({})
_KEPT: Final = 256
"""Most layouts to remember."""

LayoutKey: TypeAlias = tuple[Layout, tuple[str, ...]]
LookUp: TypeAlias = Callable[[int, int, int], Any]


class StagedLogs(dict[str, Any]):
    """Logs as a dict, with stand-ins for the values of `log`, which land together."""

    __slots__ = ("log", "size", "stand_ins")

    log: StagedLog
    stand_ins: tuple[Staged, ...]
    size: int

    @classmethod
    def of(cls, values: Mapping[str, Any], log: StagedLog) -> Self:
        """Return the values, with stand-ins for the staged values of `log`."""
        # No __init__: a Python __init__ would take as long as all the rest.
        logs = cls(values)
        logs.log = log
        logs.stand_ins = log.stand_ins()
        logs.update(zip(log.layout.keys, logs.stand_ins, strict=True))
        logs.size = len(logs)
        return logs

    @property
    def is_whole(self) -> bool:
        """Whether every stand-in is still in its place; a hook may have changed the dict."""
        placed = map(self.get, self.log.layout.keys)
        return len(self) == self.size and all(map(is_, placed, self.stand_ins))


def with_numbers(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a `def` hook so that it receives numbers, never stand-ins; waits for the numbers."""

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
    """A packer of staged logs into the form that records contain."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        """Take the encoder for the other values."""
        self.encode = encode
        self._layouts: dict[LayoutKey, bytes] = {}

    def pack(self, logs: StagedLogs) -> msgspec.msgpack.Ext:
        """Return the form of logs; all stand-ins must still be in their places."""
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
        """Build the form of logs from its parts."""
        plain = _NO_OTHERS if others is None else self.encode(others)
        body = _HEAD.pack(position, len(layout)) + layout + plain
        return msgspec.msgpack.Ext(LOGS_EXTENSION, body)


def pack_layout(
    names: Iterable[str], layout: Layout, host: Mapping[str, Kind] | None = None
) -> bytes:
    """
    Return the packed layout of logs with these names, in this order.

    `host` are the kinds of the numbers that a brief frame contains.
    """
    kinds = host or {}
    staged = {
        key: [key, int(part.kind), part.length, offset]
        for key, part, offset in zip(layout.keys, layout.parts, layout.offsets, strict=True)
    }
    others = {name: [name, int(kind)] for name, kind in kinds.items()}
    return msgspec.msgpack.encode(
        [staged.get(name) or others.get(name) or [name] for name in names]
    )


class LogUnpacker:
    """An unpacker of the form back into logs."""

    def __init__(self, slots: Slots) -> None:
        """Take the slots in which the values land."""
        self._slots = slots
        self._layouts: dict[bytes, _Rows] = {}

    def unpack(self, body: memoryview, look_up: LookUp) -> tuple[dict[str, Any], int]:
        """
        Return the logs, and the position after their slots.

        If any value has not landed, `look_up(position, kind, length)` is called for all of them.
        """
        position, size = _HEAD.unpack_from(body)
        end = _HEAD.size + size
        others = msgspec.msgpack.decode(body[end:])
        return self._join(position, self._read(bytes(body[_HEAD.size : end])), others, look_up)

    def unpack_brief(
        self, position: int, layout: bytes, numbers: bytes, look_up: LookUp
    ) -> tuple[dict[str, Any], int]:
        """Return the logs of a brief frame, like `unpack`; `numbers` are those of the host."""
        rows = self._read(layout)
        others = {
            name: bool(number) if kind == Kind.BOOLEAN else number
            for (name, kind), number in zip(rows.host, rows.numbers.unpack(numbers), strict=True)
        }
        if not rows.count:
            return others, position
        return self._join(position, rows, others, look_up)

    def _join(
        self, position: int, rows: _Rows, others: Mapping[str, Any], look_up: LookUp
    ) -> tuple[dict[str, Any], int]:
        whole = not rows.count or self._slots.landed(position, rows.count)
        read = self._slots.read if whole else look_up
        logs = {
            row[0]: read(position + row[3], row[1], row[2]) if len(row) == 4 else others[row[0]]
            for row in rows.rows
        }
        return logs, position + rows.count

    def _read(self, layout: bytes) -> _Rows:
        known = self._layouts.get(layout)
        if known is None:
            if len(self._layouts) >= _KEPT:
                self._layouts.clear()
            known = self._layouts[layout] = _Rows(msgspec.msgpack.decode(layout))
        return known


class _Rows:
    """A layout, read."""

    def __init__(self, rows: list[list[Any]]) -> None:
        self.rows = rows
        self.count = sum(row[2] or 1 for row in rows if len(row) == 4)
        """Number of slots."""
        self.host = [row for row in rows if len(row) == 2]
        """Names and kinds of the numbers in a brief frame."""
        codes = ("d" if kind == Kind.FLOAT else "q" for _, kind in self.host)
        self.numbers = Struct("<" + "".join(codes))
