"""
Puts values from the device into the records that wait for them.

Promises: a record enters the journal in order and with its numbers. If the training process died
with values still on the device, the record enters without them, and the lost values are counted.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from asynccb._ground.events import EVENTS, Event
from asynccb._ring.form_table import FormTable
from asynccb._ring.frame_writer import BRIEF
from asynccb._ring.slots import Slots
from asynccb._staging.staged import EXTENSION, parse_reference
from asynccb._staging.staged_logs import LOGS_EXTENSION, LogUnpacker

logger = logging.getLogger("asynccb")

_LOG: Final = EVENTS.index(Event.LOG)


class _EarlyError(Exception):
    """Raised if a value has not landed yet."""


class _Lost:
    """A placeholder for a value that will never land."""


class _NoSlots(Slots):
    """A stand-in for slots that were reused for later values: nothing ever lands in it."""

    def __init__(self) -> None: ...

    def landed(self, position: int, count: int) -> bool:
        return False


class Arrivals:
    """Resolves payloads against the slots; `RingReader.read` calls it."""

    def __init__(self, slots: Slots, forms: FormTable) -> None:
        """Take the slots that devices write to, and the table of the brief records' forms."""
        self._slots = slots
        self._forms = forms
        self._logs = LogUnpacker(slots)
        self._decode = msgspec.msgpack.Decoder(ext_hook=self._expand).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._end = 0
        self.over = False
        """Whether no more values will land, because the training process has died."""
        self.lost = 0
        """Number of values that never landed or were overwritten."""

    def forget(self) -> None:
        """Treat all device values as lost: their slots were reused for other values."""
        self._slots = _NoSlots()
        self._logs = LogUnpacker(self._slots)
        self.over = True

    def __call__(self, payload: bytes, form: int) -> tuple[bytes, int] | None:
        """
        Return the record with its numbers, and the position after them; None if one is missing.

        `form` is the number of a brief payload's form, or 0.
        """
        try:
            record = self._unfold(payload, form) if form else self._decode(payload)
        except _EarlyError:
            return None
        return self._encode([self._without_lost(part) for part in record]), self._end

    def _unfold(self, payload: bytes, form: int) -> list[Any]:
        """Return the full record for a brief payload."""
        time, step, flags, position, epoch = BRIEF.unpack_from(payload)
        layout, numbers = self._forms.find(form), payload[BRIEF.size :]
        logs, end = self._logs.unpack_brief(position, layout, numbers, self._look_up)
        self._end = max(self._end, end)
        return [_LOG, time, step, epoch, flags, logs]

    def _expand(self, code: int, body: memoryview) -> Any:
        if code == LOGS_EXTENSION:
            logs, end = self._logs.unpack(body, self._look_up)
            self._end = max(self._end, end)
            return logs
        if code != EXTENSION:
            raise msgspec.DecodeError(f"a record has the unknown MessagePack extension type {code}")
        return self._look_up(*parse_reference(body))

    def _look_up(self, position: int, kind: int, length: int) -> Any:
        if self._slots.landed(position, length or 1):
            self._end = max(self._end, position + (length or 1))
            return self._slots.read(position, kind, length)
        if not self.over:
            raise _EarlyError
        self.lost += 1
        return _Lost

    def _without_lost(self, part: Any) -> Any:
        if type(part) is not dict:
            return part
        return {key: value for key, value in part.items() if value is not _Lost}
