"""
The folder of one run: journal, cursors, and what `asynccb sync` needs to serve them.

    run.json             format, run key, and each tracker's class and settings; no secrets
    journal/*.segment    the records (`delivery/journal.py`)
    cursors/*.cursor     how far each tracker has come (`delivery/cursor.py`)
    runs/*.record        descriptions of the run that cursors refer to
    uploads/             files that wait to be uploaded (`delivery/uploads.py`)
    companion.log        what the companion logged; locked as long as it or its training lives
    lock                 held by the one process that delivers

Others add to it what outlives the delivery: `decisions.jsonl`, `rejected/`; and where a checkpoint
refers to the run, `resumable`, with which the cursors stay, and `continued` (`_tracker_runs.py`).

Promises: one process at a time; a journal without an end gets one, `crashed`, when it is next
served.
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
"""Seconds for which a lock is waited for: `asynccb ls` holds it for a moment."""
_OWN: Final = ("run.json", "uploads", "cursors", "runs", "journal", "companion.log", "lock")
"""What a run's folder is made of, in the order in which it is removed."""


class StoredLane(msgspec.Struct, frozen=True):
    """Describe a callback for a later `asynccb sync`."""

    name: str
    path: str
    """`module:qualified name` of its class."""
    state: dict[str, Any] | None
    """What its `state()` returned; None for one that cannot be made again without the program."""
    first: int


class _Versioned(msgspec.Struct, frozen=True):
    """Hold what `run.json` says in every format."""

    format: int


class Description(_Versioned, frozen=True):
    """Hold what `run.json` says."""

    key: str
    lanes: list[StoredLane]


class GoneError(AsyncCCBError):
    """Signal that a run's folder has been removed, which is done when all is delivered."""

    def __init__(self, path: Path) -> None:
        """Take the folder."""
        super().__init__(f"{path} holds no run any more: it has been removed")


class RunFolder:
    """Own a run's folder, from `open` to `close`."""

    def __init__(self, path: Path, settings: JournalSettings | None = None) -> None:
        """Take the folder and how its journal is kept; nothing is read or written yet."""
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
        Keep other processes away until `close`; `BusyError` where one is at it.

        That is for the companion, which makes the folder a run's. Whoever else wants a run that is
        `left_behind` gets it once its training has ended, too. Raises `GoneError` where the run is
        removed meanwhile.
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
            # A power cut may have taken records that were delivered; their ids are used up.
            positions = [cursor.position for cursor in self.cursors().values()]
            if left_behind:  # nor has a ring what is missing before a lane's first record
                positions += self._first_ids()
            await self.journal.open(max(positions, default=0))
        except BaseException:
            self._let_go_of_lock()
            raise

    def _first_ids(self) -> list[int]:
        """Return the ids from which on callbacks listen, where `run.json` can be read."""
        try:
            return [lane.first for lane in self.description().lanes]
        except JournalError:
            return []

    async def close(self) -> None:
        """Let go of the journal and the lock."""
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
        """Read `run.json`; raise `JournalError` where there is none of this format."""
        path = self.path / "run.json"
        try:
            data = path.read_bytes()
            found = msgspec.json.decode(data, type=_Versioned).format
            if found != FORMAT:  # whatever else it holds
                raise JournalError(f"{path} has format {found}; this version reads {FORMAT}")
            return msgspec.json.decode(data, type=Description)
        except FileNotFoundError:
            raise JournalError(f"{self.path} holds no run: there is no run.json") from None
        except msgspec.DecodeError as error:
            raise JournalError(f"{path} cannot be read: {error}") from None

    def cursors(self) -> dict[str, Cursor]:
        """Read the cursors that there are, by the names of their lanes; leave damaged ones out."""
        found = {}
        for path in (self.path / "cursors").glob("*.cursor"):
            try:
                found[path.stem] = load_cursor(path)
            except (JournalError, OSError) as error:
                logger.error("%s", error)  # those of the other lanes are good all the same
        return found

    async def record_crash_unless_ended(self) -> None:
        """Write the end that the training process did not live to write."""
        last = await to_thread.run_sync(last_record, self.path / "journal")
        if last is not None and decode(last[1]).kind == END:
            return
        number = self.journal.next
        await self.journal.append(frame(crash_record(), number), number, number)

    async def has_end_before(self, position: int) -> bool:
        """Tell whether the record before a position is an end; True where it cannot be read."""
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
        Delete what is the run's own; return the names of what others have put there, which stays.

        The folder goes too where nothing stays. `run.json` goes first: without it nothing can be
        taken for a run that is still to be delivered. The cursors stay where a checkpoint refers to
        them.
        """
        resumable = (self.path / RESUMABLE).exists()
        for name in _OWN:
            if name == "cursors" and resumable:
                continue
            path = self.path / name
            if path.is_dir() and not path.is_symlink():  # a link goes, what is behind it stays
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        left = sorted(path.name for path in self.path.iterdir())
        if not left:
            os.rmdir(os.path.realpath(self.path))
        return left


def crash_record() -> bytes:
    """Return the end of a run whose training process did not live to write one."""
    # Kind, time, step, epoch, flags, logs, changes, metrics, extra: see `_record.Record`.
    return msgspec.msgpack.encode(
        (END, time.time_ns(), 0, 0.0, 0, None, None, None, {"status": "crashed"})
    )


def is_live(path: Path) -> bool:
    """Tell whether a process is serving the run in a folder now, or will: its training lives."""
    return is_locked(path / "lock") or _is_held(path)


def is_starting(path: Path) -> bool:
    """Tell whether a companion has been started that has not yet made the folder a run's."""
    return not (path / "run.json").exists() and _is_held(path)


def _is_held(path: Path) -> bool:
    """Tell whether the training lives that writes to a folder, or a companion of it."""
    try:
        return is_locked(path / "companion.log")
    except FileNotFoundError:
        return False
