"""
A lane in the companion: reads the journal for one callback.

Promises: records reach the callback in order. A record is repeated only if the companion died
before the cursor passed it. The cursor passes a record when the server has acknowledged it. If the
training waits for a decision, the cursor is written to disk only after the answer has been sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiofiles
import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from asynccb._companion.replica import Replica
from asynccb._companion.resumption import Earlier, Resumption
from asynccb._companion.upload_task import uploads_of
from asynccb._ground.events import EVENTS
from asynccb._journal.cursor import load_cursor, replace, save_cursor
from asynccb._journal.reader import JournalReader
from asynccb._journal.rejected import RejectedFile
from asynccb._journal.tail import Tail
from asynccb._journal.uploads import LIMIT
from asynccb._lanes.bell import Bell
from asynccb._lanes.lane import Lane
from asynccb._lanes.mailbox import Letter
from asynccb._ring.record import ADDED_BIT, AGAIN_BIT, END, LEAVE, LOST, RUN, TOLD, Record, decode
from asynccb._state.run_description import PROCESS, SIDES
from asynccb._state.trainer_state import whole_state

logger = logging.getLogger("asynccb")

GROUP: Final = 2000
"""Most records delivered together."""
_ABOUT_RUN: Final = (RUN, END, LEAVE)
_LOOK: Final = 0.1
"""Seconds between two checks for enough records while gathering, and for finished uploads."""
_AGAIN: Final = 0.5
"""Seconds between two attempts to read the journal after the disk refused."""
_COMMIT: Final = 0.2
"""Least seconds between two writes of the cursor, for callbacks that acknowledge immediately."""


@dataclass(eq=False)
class JournalLane(Lane):
    """The lane that serves one callback from the journal in `directory`."""

    directory: Path = field(kw_only=True)
    journaled: Callable[[], int] = field(kw_only=True)
    """Returns the number of records in the journal, including its end in memory."""
    tail: Tail | None = field(default=None, kw_only=True)
    """The end of the journal in memory, while the disk refuses it."""
    upload_limit: int = field(default=LIMIT, kw_only=True)
    """Most bytes of files waiting to be uploaded."""
    grown: Bell = field(kw_only=True)
    """Rings when the journal has grown."""
    first: int = 0
    """Id of the first record for this callback; above 0 if the callback was added later."""
    spoken: Callable[[], Awaitable[bool]] | None = field(default=None, kw_only=True)
    """Waits a while; returns whether the answers would survive the death of this process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cursor_path = self.directory / "cursors" / f"{self.name}.cursor"
        self.cursor = load_cursor(self._cursor_path)
        self._saved = self.cursor.position
        self.cursor.position = max(self.cursor.position, self.first)
        self._run_record: bytes | None = None  # in the journal, not yet in a file
        self._refused: set[str] = set()
        self._resumption = Resumption(self.name, self.callback, self.cursor, self.directory)
        self.counts.delivered = self.cursor.delivered
        if self.tracker is not None:
            self.tracker.rejected = self.counts.rejected = self.cursor.rejected
        self._urgent = Bell()
        self.hurried = 0
        """Id below which records are delivered without gathering."""
        self.done = False
        self._committed = self._delivered = 0.0
        self._answered = False  # since the cursor was last written
        self._group = getattr(self.tracker, "group", GROUP)
        self._keep_history = self.options.needs_history
        self.aside = RejectedFile(self.directory / "rejected" / f"{self.name}.jsonl").append
        where = self.directory, self.name, self.journaled
        limit, tail = self.upload_limit, self.tail
        self._uploads = uploads_of(self.callback, *where, self._deliver, tail, limit)

    @property
    def position(self) -> int:
        """Id of the first unacknowledged record."""
        return self.cursor.position

    @property
    def retained(self) -> int:
        """Id of the first record that this lane may read again."""
        if self._keep_history:
            return self.first
        return min(self._saved, self._uploads.position if self._uploads else self._saved)

    @property
    def passed(self) -> int:
        """Id of the first record that this lane has yet to read, if the lane is not recreated."""
        looked = self.position if self._uploads is None else self._uploads.position
        return min(self.position, looked)

    def hurry(self, end: int) -> None:
        """Deliver everything below `end` without gathering."""
        self.hurried = max(self.hurried, end)
        self.grown.ring()
        self._urgent.ring()

    async def run(self, earlier: Earlier) -> None:
        """Deliver until the run's end; no error of the callback leaves the lane."""
        self._resumption.earlier = earlier
        self.done = not await self._survive(self._serve) or self.done

    async def _serve(self) -> None:
        try:
            async with anyio.create_task_group() as beside:
                if self._uploads is not None:
                    beside.start_soon(self._uploads.run)
                if not await self._contain("delivery", self._deliver_all, None):
                    self.counts.disabled = True
                beside.cancel_scope.cancel()
        finally:
            self.done = self.cursor.finished or self.counts.disabled
            with anyio.CancelScope(shield=True):
                await self.close()

    async def wait_for_sync(self) -> None:
        """Only keep the files for a later sync to upload; runs until cancelled."""
        self.done = True
        if self._uploads is not None:
            self._uploads.begin(self.cursor, None)
            async with anyio.create_task_group() as group:
                group.start_soon(self._uploads.keep)
                while True:
                    self.done = self._uploads.position >= self.journaled()
                    await anyio.sleep(_LOOK)

    async def _deliver_all(self) -> None:
        replica = await self._restore()
        reader = JournalReader(self.directory / "journal", self.cursor.position, self.tail)
        try:
            while not self.cursor.finished and not self.counts.disabled:
                await self.beat()
                if self.position >= self.journaled():
                    await self._commit(force=False)
                    await self.grown.wait(_COMMIT)
                    continue
                await self._gather()
                records = await self._read(reader, self.journaled())
                await self._deliver_group(replica, records, reader.position)
        finally:
            await reader.close()
            with anyio.CancelScope(shield=True):
                await self._commit(force=True)

    async def _gather(self) -> None:
        """For a tracker, wait for more records, up to a full group; `hurry` ends the wait."""
        if self.tracker is None or self.deciding:
            return
        until = self._delivered + self.tracker.interval
        while (
            self.journaled() - self.position < self._group
            and self.position >= self.hurried
            and (left := until - time.monotonic()) > 0
        ):
            await self._urgent.wait(min(left, _LOOK))

    async def _read(self, reader: JournalReader, end: int) -> list[tuple[int, bytes]]:
        """Read a group of records, retrying while the disk refuses; count missing records."""
        lost = reader.lost
        while True:
            try:
                records = await reader.read(end, self._group)
            except OSError as error:
                self._say_refused("the journal cannot be read", error)
                await anyio.sleep(_AGAIN)
            else:
                self._count_lost(reader.lost - lost)
                return records

    async def _deliver_group(
        self, replica: Replica, records: list[tuple[int, bytes]], end: int
    ) -> None:
        """Deliver records, then move the cursor to `end`."""
        letters: list[Letter] = []
        for number, payload in records:
            record = decode(payload)
            if record.kind in _ABOUT_RUN:
                await self._call_all(letters)
                await self._about_run(replica, number, record, payload)
                if self.cursor.finished:
                    break
                continue
            if record.kind == TOLD:
                await self._call_all(letters)
                await self.hear(record.extra or {}, record.logs or {}, record.step, record.time)
                continue
            replica.apply(record)
            if record.kind == LOST:
                self._count_lost(1)
            if self._wants(record) and not self._resumption.skips(record):
                letters.append(replica.letter(record))
        await self._call_all(letters)
        await self.flush()
        if self.counts.disabled:
            return
        self._delivered = time.monotonic()
        self._advance(end, replica)
        await self._commit(force=self.tracker is not None)

    def _wants(self, record: Record) -> bool:
        called = self.deciding if record.flags & AGAIN_BIT else self.hooks
        if record.flags & ADDED_BIT and self.tracker is None:
            return False
        return record.kind < len(EVENTS) and EVENTS[record.kind] in called

    def _advance(self, position: int, replica: Replica) -> None:
        """Move the cursor, and save the tracker's state at the same position in it."""
        self.cursor.position = position
        self.cursor.values = replica.saved_values()
        self.cursor.delivered = self.counts.delivered
        self._resumption.save(self.cursor)
        if self.tracker is not None:
            self.cursor.rejected = self.tracker.rejected
            self.cursor.attributes = whole_state(self.callback.state())["attributes"]

    async def _call_all(self, letters: list[Letter]) -> None:
        """Call the hooks, `concurrency` at a time, then empty the list."""
        if any(letter.ticket and letter.event in self.deciding for letter in letters):
            self._answered = True
        if self.options.concurrency == 1:
            for letter in letters:
                await self.call(letter)
                if self.tracker is None:  # a tracker's hooks do no input or output
                    await cancel_shielded_checkpoint()
        else:
            waiting = iter(letters)

            async def work() -> None:
                for letter in waiting:
                    await self.call(letter)

            async with anyio.create_task_group() as group:
                for _ in range(self.options.concurrency):
                    group.start_soon(work)
        letters.clear()

    async def _about_run(
        self, replica: Replica, number: int, record: Record, payload: bytes
    ) -> None:
        if record.kind == RUN:
            self.cursor.run, self._run_record = number, payload
            await self._describe(replica, record, begins=True)
            return
        extra = record.extra or {}
        if record.kind == LEAVE and extra["lane"] != self.name:
            return
        await self.flush()
        if self.counts.disabled:
            return
        self._advance(number, replica)
        while self._uploads is not None and not self._uploads.reached(number):
            await self.beat()
            await anyio.sleep(_LOOK)
            if self.counts.disabled:
                return
        await self.finish(extra.get("status", "finished"), record.time)
        self.cursor.finished = not self.counts.disabled

    async def _describe(self, replica: Replica, record: Record, *, begins: bool = False) -> None:
        """Give a tracker what its training side says of the process, and the run."""
        extra = record.extra or {}
        if self.name in (said := extra.get(SIDES, {})):  # it may decide which run is resumed
            await self.hear({"lane": self.name, "what": PROCESS}, said[self.name], 0, record.time)
        if begins:
            await self._resumption.begin(extra)
        description = replica.describe(record)
        if self.tracker is not None:
            self.tracker.describe(description)

    async def _restore(self) -> Replica:
        """Return a replica of the state at the cursor; restore the tracker from the cursor."""
        cursor = self.cursor
        replica = Replica(cursor.values, keep_history=self._keep_history)
        if cursor.attributes and self.tracker is not None:
            self.callback.restore(cursor.attributes)
        if cursor.run is not None:
            async with aiofiles.open(self._run_path(cursor.run), "rb") as file:
                await self._describe(replica, decode(await file.read()))
        if self._uploads is not None:
            self._uploads.begin(cursor, replica.run)
        if self._keep_history and cursor.position > self.first:
            reader = JournalReader(self.directory / "journal", self.first)
            await replica.reread(reader, cursor.position)
        return replica

    async def _commit(self, *, force: bool) -> None:
        """Write the cursor to disk if a write is due and the cursor has moved."""
        now = time.monotonic()
        if not force and (now - self._committed < _COMMIT or self._saved == self.position):
            return
        self._committed = now
        position = self.position
        if self._answered and self.spoken and not await self.spoken():
            return
        self._answered = False
        try:
            if self._run_record and self.cursor.run is not None:
                await replace(self._run_path(self.cursor.run), self._run_record)
                self._run_record = None
            await save_cursor(self._cursor_path, self.cursor)
        except OSError as error:
            self._say_refused("the cursor cannot be written", error)
        else:
            self._saved = position

    def _say_refused(self, what: str, error: OSError) -> None:
        if what not in self._refused:
            self._refused.add(what)
            logger.warning("%s: %s (%s); continuing and retrying", self.name, what, error)

    def _count_lost(self, records: int) -> None:
        """Count records dropped or damaged before this lane could read them."""
        if records and not self.cursor.lost:
            logger.warning(
                "%s missed records that are no longer in the journal, %d so far (said once; "
                "statistics() counts them as dropped)",
                self.name,
                records,
            )
        self.cursor.lost += records
        self.counts.dropped += records

    def _run_path(self, number: int) -> Path:
        return self.directory / "runs" / f"{number}.record"
