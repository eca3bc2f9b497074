"""
The folder of one run: journal, cursors, and what `asynccb sync` needs to serve them.

    run.json             format, run key, and each tracker's class and settings; no secrets
    journal/*.segment    the records (`delivery/journal.py`)
    cursors/*.cursor     how far each tracker has come (`delivery/cursor.py`)
    runs/*.record        descriptions of the run that cursors refer to
    companion.log        what the companion logged
    lock                 held by the one process that delivers

Promises: one process at a time; a journal without an end gets one, `crashed`, when it is next
served.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from asynccb._companion._replica import decode
from asynccb._exceptions import JournalError
from asynccb._record import END
from asynccb._ring import frame
from asynccb.delivery.cursor import replace
from asynccb.delivery.journal import JournalReader, JournalWriter

FORMAT: Final = 1


class StoredLane(msgspec.Struct, frozen=True):
    """Describe a callback for a later `asynccb sync`."""

    name: str
    path: str
    """`module:qualified name` of its class."""
    state: dict[str, Any] | None
    """What its `state()` returned; None for one that cannot be made again without the program."""
    first: int


class Description(msgspec.Struct, frozen=True):
    """Hold what `run.json` says."""

    format: int
    key: str
    lanes: list[StoredLane]


class RunFolder:
    """Own a run's folder, from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        """Take the folder; nothing is read or written yet."""
        self.path = path
        self.journal = JournalWriter(path / "journal")
        self._lock = -1

    async def open(self) -> None:
        """Take the lock and find the journal's end; `JournalError` where another has the lock."""
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = -1
            raise JournalError(
                f"{self.path} is being delivered by another process; wait for that to end"
            ) from None
        await self.journal.open()

    async def close(self) -> None:
        """Let go of the journal and the lock."""
        await self.journal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def describe(self, key: str, lanes: list[StoredLane]) -> None:
        """Write `run.json`."""
        data = msgspec.json.encode(Description(FORMAT, key, lanes))
        await replace(self.path / "run.json", msgspec.json.format(data))

    def description(self) -> Description:
        """Read `run.json`; raise `JournalError` where there is none of this format."""
        path = self.path / "run.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Description)
        except FileNotFoundError:
            raise JournalError(f"{self.path} holds no run: there is no run.json") from None
        except msgspec.DecodeError as error:
            raise JournalError(f"{path} cannot be read: {error}") from None
        if found.format != FORMAT:
            raise JournalError(f"{path} has format {found.format}; this version reads {FORMAT}")
        return found

    async def record_crash_unless_ended(self) -> None:
        """Write the end that the training process did not live to write."""
        last = await self._last_payload()
        if last is not None and decode(last).kind == END:
            return
        number = self.journal.next
        # Kind, time, step, epoch, flags, logs, changes, metrics, extra: see `_record.Record`.
        payload = msgspec.msgpack.encode(
            (END, time.time_ns(), 0, 0.0, 0, None, None, None, {"status": "crashed"})
        )
        await self.journal.append(frame(payload, number), number, number)

    async def _last_payload(self) -> bytes | None:
        end = self.journal.next
        if end == 0:
            return None
        reader = JournalReader(self.path / "journal", end - 1)
        try:
            return (await reader.read(end, 1))[0][1]
        finally:
            await reader.close()
