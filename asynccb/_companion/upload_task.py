"""
Uploads of one tracker, in a task beside its lane.

Promises: files are kept as soon as their event is in the journal, however far the lane is behind.
They are sent one folder at a time, while metrics keep flowing. No error of an upload leaves the
lane.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import anyio

from asynccb._companion.replica import Replica
from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import DeliveryError
from asynccb._journal.cursor import Cursor
from asynccb._journal.reader import JournalReader
from asynccb._journal.tail import Tail
from asynccb._journal.uploads import LIMIT, Folder, Kept, Spool
from asynccb._ring.record import AGAIN_BIT, RUN, Record, decode
from asynccb._state.run_description import RunDescription
from asynccb.callbacks.tracking import Tracking

_GROUP: Final = 2000
"""Most records read at once."""
_LOOK: Final = 0.05
"""Seconds between two looks for new records in the journal, or for kept folders."""

Deliver: TypeAlias = Callable[[str, Callable[[], Awaitable[None]]], Coroutine[Any, Any, bool]]
"""Calls a function until its request is acknowledged; returns False if the tracker gives up."""


@runtime_checkable
class Uploading(Protocol):
    """The methods called on a tracker for its uploads; the contract is in `trackers/base.py`."""

    uploads: Collection[Event]

    def files(self, event: Event, args: Any, state: Any) -> Folder | None: ...
    async def upload(self, kept: Kept) -> None: ...
    def reject(
        self, what: str, why: str, *, cause: str | None = None, record: Any = None
    ) -> None: ...


class Uploads:
    """The uploads of one tracker: kept in a spool, then sent; `run` runs until cancelled."""

    def __init__(
        self,
        tracker: Uploading,
        directory: Path,
        name: str,
        *,
        journaled: Callable[[], int],
        deliver: Deliver,
        tail: Tail | None = None,
        limit: int = LIMIT,
    ) -> None:
        """Take the tracker, the run's folder, the lane's name, and the end of the journal."""
        self._tail = tail
        self._tracker = tracker
        self._journaled = journaled
        self._deliver = deliver
        self._journal = directory / "journal"
        self._spool = Spool(directory / "uploads" / name, limit)
        self._begun = anyio.Event()
        self._open = False
        self.position = 0
        """Id of the first record not yet checked for files."""

    def begin(self, cursor: Cursor, run: RunDescription | None) -> None:
        """Start at the lane's cursor; `run` describes the run, if the lane knows it."""
        self.position = cursor.position
        self._replica = Replica(cursor.values, keep_history=False)
        self._args: Any = None if run is None else run.args
        self._begun.set()

    def reached(self, end: int) -> bool:
        """Return whether all files of the records below `end` have been uploaded."""
        return self._open and self.position >= end and self._spool.empty

    async def run(self) -> None:
        """Keep and send files until the tracker gives up."""
        await self._begun.wait()
        if not await self._deliver("upload", self._open_spool):
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._deliver, "uploads", self._keep_all)
            while self._spool.empty or await self._deliver("upload", self._send_first):
                await anyio.sleep(_LOOK if self._spool.empty else 0)
            group.cancel_scope.cancel()

    async def keep(self) -> None:
        """Keep files for a later sync, without sending any; runs until cancelled."""
        if await self._deliver("upload", self._open_spool):
            await self._deliver("uploads", self._keep_all)

    async def _open_spool(self) -> None:
        await self._spool.open()
        self._open = True

    async def _send_first(self) -> None:
        kept = await self._spool.first()
        await self._tracker.upload(kept)
        await self._spool.remove_first()

    async def _keep_all(self) -> None:
        reader = JournalReader(self._journal, self.position, self._tail)
        try:
            while True:
                try:
                    records = await reader.read(self._journaled(), _GROUP)
                except OSError:
                    records = []  # no more descriptors, say; the lane's own reader logs it
                for number, payload in records:
                    await self._look_at(number, decode(payload))
                self.position = reader.position
                if not records:
                    await anyio.sleep(_LOOK)
        finally:
            await reader.close()

    async def _look_at(self, number: int, record: Record) -> None:
        if record.kind == RUN:
            self._args = self._replica.describe(record).args
        elif record.kind < len(EVENTS):
            self._replica.apply(record)
            wanted = EVENTS[record.kind] in self._tracker.uploads and not record.flags & AGAIN_BIT
            if wanted and number >= self._spool.next:
                await self._deliver("files", lambda: self._keep(number, record))

    async def _keep(self, number: int, record: Record) -> None:
        letter = self._replica.letter(record)
        folder = self._tracker.files(letter.event, self._args, letter.state)
        if folder is None:
            return
        try:
            await self._spool.keep(number, record.step, folder)
        except (OSError, DeliveryError) as error:
            self._tracker.reject(
                f"{folder.name} in {folder.path}", f"it cannot be kept: {error}", cause="not kept"
            )
        await self._spool.seen(number + 1)


def uploads_of(
    callback: object,
    directory: Path,
    name: str,
    journaled: Callable[[], int],
    deliver: Deliver,
    tail: Tail | None,
    limit: int,
) -> Uploads | None:
    """Return a callback's uploads; None if it uploads nothing."""
    if not (isinstance(callback, Tracking) and isinstance(callback, Uploading)):
        return None
    if not callback.uploads:
        return None
    return Uploads(
        callback, directory, name, journaled=journaled, deliver=deliver, tail=tail, limit=limit
    )
