"""
Make a journal smaller if its records exceed the room.

Promises: records that begin, end or describe a run, and records whose hooks decide, are kept
unchanged. A sequence of other records becomes one small record with their changes to the state, so
that later records keep their meaning.
"""

from __future__ import annotations

from typing import Any

import msgspec

from asynccb._journal.segments import frames_after, payload_at
from asynccb._ring.frame import HEADER, frame
from asynccb._ring.record import HISTORY_BIT, LOST, NEVER_DROPPED, Record

_decode = msgspec.msgpack.Decoder(Record).decode
_encode = msgspec.msgpack.Encoder().encode


def thin(frames: bytes, previous: int = -1) -> tuple[bytes, int]:
    """Return the frames with ids above `previous` that are kept, and the number dropped."""
    parts: list[bytes] = []
    dropped = _Dropped()
    count = 0
    for number, payload, end in frames_after(previous, frames):
        record = _record_in(payload_at(frames, payload))
        if record is not None and (record.kind in NEVER_DROPPED or record.ticket):
            parts += [dropped.take(), frames[payload - HEADER.size : end]]
        else:
            dropped.add(number, record)
            count += record is None or record.kind != LOST
    return b"".join([*parts, dropped.take()]), count


class _Dropped:
    """Neighboring records that are dropped together."""

    def __init__(self) -> None:
        self._last: tuple[int, Record] | None = None
        self._changes: dict[str, Any] = {}

    def add(self, number: int, record: Record | None) -> None:
        """Drop one more record; a damaged record leaves nothing."""
        if record is not None:
            self._last = number, record
            self._changes.update(record.changes or {})

    def take(self) -> bytes:
        """Return the frame for the records dropped since the last call, or nothing."""
        if self._last is None:
            return b""
        number, last = self._last
        head = (LOST, last.time, last.step, last.epoch, last.flags & ~HISTORY_BIT, None)
        stand_in = frame(_encode((*head, self._changes or None)), number)
        self._last, self._changes = None, {}
        return stand_in


def _record_in(payload: bytes) -> Record | None:
    try:
        return _decode(payload)
    except msgspec.DecodeError:
        return None
