"""
The folder of one run: journal, cursors, and everything `asynccb sync` needs to serve them.

    run.json             format, run key, and each tracker's class and settings; no secrets
    journal/*.segment    the records (`writer.py`)
    cursors/*.cursor     how far each tracker has come (`cursor.py`)
    runs/*.record        descriptions of the run that cursors refer to
    uploads/             files that wait to be uploaded (`uploads.py`)
    companion.log        the companion's log; locked as long as the companion or its training lives
    lock                 held by the one process that delivers

Other modules add files that outlive the delivery: `decisions.jsonl` and `rejected/`. If a
checkpoint refers to the run, they also add `resumable`, which keeps the cursors, and `continued`
(`tracker_runs.py`).

Promises: one process at a time serves the folder. If a journal has no end, the end `crashed` is
appended when the journal is next served.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from anyio import to_thread

from asynccb._ground.exceptions import AsyncCCBError, BusyError, JournalError
from asynccb._journal.cursor import Cursor, load_cursor, replace
from asynccb._journal.file_lock import FileLock, is_locked
from asynccb._journal.reader import JournalReader
from asynccb._journal.segments import last_record
from asynccb._journal.settings import JournalSettings
from asynccb._journal.tracker_runs import RESUMABLE
from asynccb._journal.writer import SEGMENT_SIZE, JournalWriter
from asynccb._ring.frame import frame
from asynccb._ring.record import END, decode

logger = logging.getLogger("asynccb")

FORMAT: Final = 1

_LOOKED_AT: Final = 1.0
"""Seconds to wait for a lock, because `asynccb ls` holds it for a moment."""
_OWN: Final = ("run.json", "uploads", "cursors", "runs", "journal", "companion.log", "lock")
"""The run's own files in its folder, in the order of their removal."""


class StoredLane(msgspec.Struct, frozen=True):
    """A callback's description for a later `asynccb sync`."""

    name: str
    path: str
    """`module:qualified name` of its class."""
    state: dict[str, Any] | None
    """The value of its `state()`; None if only the program itself can make the callback again."""
    first: int


class _Versioned(msgspec.Struct, frozen=True):
    """The fields that `run.json` contains in every format."""

    format: int


class Description(_Versioned, frozen=True):
    """The content of `run.json`."""

    key: str
    lanes: list[StoredLane]


class GoneError(AsyncCCBError):
    """Signal that a run's folder has been removed, as happens once everything is delivered."""

    def __init__(self, path: Path) -> None:
        """Take the folder."""
        super().__init__(f"{path} no longer holds a run: it has been removed")


class RunFolder:
    """A run's folder, held from `open` to `close`."""

    def __init__(self, path: Path, settings: JournalSettings | None = None) -> None:
        """Take the folder and its journal's settings; nothing is read or written yet."""
        settings = settings or JournalSettings()
        self.path = path
        self.journal = JournalWriter(
            path / "journal",
            min(SEGMENT_SIZE, settings.limit >> 2),
            limit=settings.limit,
            fsync=settings.fsync,
        )
        self._lock: FileLock | None = None

    async def lock(self, *, left_behind: bool = False) -> None:
        """
        Keep other processes away until `close`; raise `BusyError` if another serves the run.

        The companion calls this without `left_behind`, which creates the lock's file. All other
        processes set `left_behind`: then `BusyError` is also raised until the training has ended.
        Raises `GoneError` if the run is removed meanwhile.
        """
        path = self.path / "lock"
        try:
            self._lock = FileLock.on(path, 0 if left_behind else os.O_CREAT)
        except FileNotFoundError:
            raise GoneError(self.path) from None
        try:
            await self._take(self._lock)
            if not self._lock.is_on(path):
                raise GoneError(self.path)
            if left_behind and _is_held(self.path):
                raise BusyError(
                    f"{self.path} belongs to a training that is running; wait for that to end"
                )
        except BaseException:
            self._let_go_of_lock()
            raise

    async def _take(self, lock: FileLock) -> None:
        deadline = time.monotonic() + _LOOKED_AT
        while not lock.take():
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{self.path} is being delivered by another process; wait for that to end"
                )
            await anyio.sleep(_LOOKED_AT / 20)

    async def open(self, *, left_behind: bool = False) -> None:
        """Take the lock, as `lock` does, and find the journal's end."""
        await self.lock(left_behind=left_behind)
        try:
            # A power cut may have erased records that were delivered; their ids stay used.
            positions = [cursor.position for cursor in self.cursors().values()]
            if left_behind:  # no ring has the records missing before a lane's first one either
                positions += self._first_ids()
            await self.journal.open(max(positions, default=0))
        except BaseException:
            self._let_go_of_lock()
            raise

    def _first_ids(self) -> list[int]:
        """Return the ids from which on callbacks listen; none if `run.json` cannot be read."""
        try:
            return [lane.first for lane in self.description().lanes]
        except JournalError:
            return []

    async def close(self) -> None:
        """Close the journal and release the lock."""
        try:
            await self.journal.close()
        finally:
            self._let_go_of_lock()

    def _let_go_of_lock(self) -> None:
        if self._lock is not None:
            self._lock.let_go()
            self._lock = None

    async def describe(self, key: str, lanes: list[StoredLane]) -> None:
        """Write `run.json`."""
        data = msgspec.json.encode(Description(FORMAT, key, lanes))
        await replace(self.path / "run.json", msgspec.json.format(data))

    def description(self) -> Description:
        """Read `run.json`; raise `JournalError` if it is missing or has another format."""
        path = self.path / "run.json"
        try:
            data = path.read_bytes()
            found = msgspec.json.decode(data, type=_Versioned).format
            if found != FORMAT:  # whatever else the file contains
                raise JournalError(f"{path} has format {found}; this version reads {FORMAT}")
            return msgspec.json.decode(data, type=Description)
        except FileNotFoundError:
            raise JournalError(f"{self.path} holds no run: run.json is missing") from None
        except msgspec.DecodeError as error:
            raise JournalError(f"{path} cannot be read: {error}") from None

    def cursors(self) -> dict[str, Cursor]:
        """Read the existing cursors, by the names of their lanes; leave damaged ones out."""
        found = {}
        for path in (self.path / "cursors").glob("*.cursor"):
            try:
                found[path.stem] = load_cursor(path)
            except (JournalError, OSError) as error:
                logger.error("%s", error)  # the other lanes' cursors are still good
        return found

    async def record_crash_unless_ended(self) -> None:
        """Append the end that the training process did not live to write."""
        last = await to_thread.run_sync(last_record, self.path / "journal")
        if last is not None and decode(last[1]).kind == END:
            return
        number = self.journal.next
        await self.journal.append(frame(crash_record(), number), number, number)

    async def has_end_before(self, position: int) -> bool:
        """Return whether the record before a position is an end; True if it cannot be read."""
        reader = JournalReader(self.path / "journal", position - 1)
        try:
            records = await reader.read(position, 1)
        except (JournalError, OSError):
            return True
        finally:
            await reader.close()
        return any(decode(payload).kind == END for _, payload in records)

    def remove(self) -> list[str]:
        """
        Delete the run's own files; return the names of all other files there, which stay.

        If nothing stays, the folder is removed, too. `run.json` is removed first: without it the
        folder cannot be mistaken for a run that is still to be delivered. The cursors stay if a
        checkpoint refers to them.
        """
        resumable = (self.path / RESUMABLE).exists()
        for name in _OWN:
            if name == "cursors" and resumable:
                continue
            path = self.path / name
            if path.is_dir() and not path.is_symlink():  # a link is removed, its target stays
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        left = sorted(path.name for path in self.path.iterdir())
        if not left:
            os.rmdir(os.path.realpath(self.path))
        return left


def crash_record() -> bytes:
    """Return the end of a run whose training process did not live to write it."""
    # Kind, time, step, epoch, flags, logs, changes, metrics, extra: see `_ring/record.py`.
    return msgspec.msgpack.encode(
        (END, time.time_ns(), 0, 0.0, 0, None, None, None, {"status": "crashed"})
    )


def is_live(path: Path) -> bool:
    """Return whether a process serves the run in a folder, or will because the training lives."""
    return is_locked(path / "lock") or _is_held(path)


def is_starting(path: Path) -> bool:
    """Return whether a companion has been started and has not yet written `run.json`."""
    return not (path / "run.json").exists() and _is_held(path)


def _is_held(path: Path) -> bool:
    """Return whether the training that writes to a folder lives, or its companion does."""
    try:
        return is_locked(path / "companion.log")
    except FileNotFoundError:
        return False
