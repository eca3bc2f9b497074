"""A lane on the event-loop thread: a mailbox, and the tasks that empty it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from asynccb._ground.types import RunStatus
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.lane import Lane
from asynccb._lanes.mailbox import Mailbox
from asynccb._lanes.stall_watch import LANE_PREFIX
from asynccb._state.run_description import RunDescription
from asynccb.callbacks.tracking import Tracking

logger = logging.getLogger("asynccb")

_PENANCE: Final = 30.0
"""Longest time, in seconds, for which a lane that blocked the loop lets the others go first."""


@dataclass(eq=False)
class ThreadLane(Lane):
    """The lane of a callback whose hooks see live objects, or that cannot live in the companion."""

    mailbox: Mailbox = field(kw_only=True)
    description: RunDescription | None = None
    """The run, for a tracker that has to be served here; set before the first letter."""
    others_have_mail: Callable[[], bool] = lambda: False
    """Tells whether another lane of the same event loop has something to do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._bell = asyncio.Event()
        self.active = 0
        """Hooks and deliveries that are under way."""
        self._due = math.inf
        """Time at which a tracker's gathered events are sent, in monotonic seconds."""
        self._stalls_seen = 0
        self._status: RunStatus | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.done = False

    @property
    def idle(self) -> bool:
        """Whether every event that was put has been dealt with."""
        return not self.mailbox and not self.active and self._due == math.inf

    @property
    def waiting(self) -> int:
        """Events that have not been dealt with."""
        return len(self.mailbox) + self.active

    def count(self) -> LaneCounts:
        """Return the counts, including the mailbox's."""
        box = self.mailbox
        dropped = self.counts.dropped + box.dropped
        return replace(self.counts, pending=self.waiting, dropped=dropped, blocked=box.blocked)

    def ring(self) -> None:
        """Wake the lane; on the event loop's thread."""
        self._bell.set()

    def hurry(self) -> None:
        """Have the mailbox looked at now, not at the next tick; from any thread."""
        if self._loop is not None and self.mailbox:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.ring)

    def end(self, status: RunStatus) -> None:
        """Have the lane end once its mailbox is empty; on the event loop's thread."""
        self._status = status
        self.ring()

    async def run(self) -> None:
        """Serve until `end`; close the callback in every case."""
        self._loop = asyncio.get_running_loop()
        try:
            if not await self._survive(self._serve):
                self.mailbox.stopped = True
                self.counts.dropped += self.mailbox.clear()
        finally:
            self.done = True
            self.mailbox.stopped = True
            with anyio.CancelScope(shield=True):
                await self.close()

    async def _serve(self) -> None:
        if self.tracker is not None and self.description is not None:
            self.tracker.describe(self.description)
        if isinstance(self.callback, Tracking) and self.callback.uploads:
            logger.warning("%s uploads no files without a companion process", self.name)
        async with anyio.create_task_group() as group:
            for _ in range(self.options.concurrency):
                group.start_soon(self._work, name=LANE_PREFIX + self.name)
        if self._status is not None:
            await self.flush()
            await self.finish(self._status, time.time_ns())
            self._due = math.inf

    async def _work(self) -> None:
        while True:
            if time.monotonic() >= self._due:  # also where letters come without a pause
                await self._flush()
            if await self._serve_next():
                await self._be_fair()
                continue
            if self._status is not None:
                return
            if self._due < math.inf:
                await self._wait(max(0.0, self._due - time.monotonic()))
            else:
                await self.beat()
                await self._wait(None if self.tracker is None else self.tracker.beat)

    async def _serve_next(self) -> bool:
        """Call the hook for the next letter; return False if the mailbox is empty."""
        self.active += 1  # before the letter leaves the mailbox, for `idle` to see one or the other
        try:
            letter = self.mailbox.take()
            if letter is None:
                return False
            await self.call(letter)
            if self.tracker is not None:
                self._due = min(self._due, time.monotonic() + self.tracker.interval)
            self.mailbox.stopped = self.counts.disabled
        finally:
            self.active -= 1
        return True

    async def _be_fair(self) -> None:
        """Let other lanes run; a lane that has blocked the loop lets the others catch up first."""
        if self.mailbox:  # without a letter it waits anyway
            await cancel_shielded_checkpoint()
        if self.counts.stalled > self._stalls_seen:
            self._stalls_seen = self.counts.stalled
            with anyio.move_on_after(_PENANCE):
                while self.others_have_mail():
                    await anyio.sleep(0.01)

    async def _flush(self) -> None:
        """Deliver the events that were gathered for a while."""
        self.active += 1
        self._due = math.inf
        try:
            await self.flush()
            await self.beat()
        finally:
            self.active -= 1

    async def _wait(self, timeout: float | None) -> None:
        self._bell.clear()
        if self.mailbox or self._status is not None:
            return
        if timeout is None:  # as nearly always; a scope would cost as much as a hook's call
            await self._bell.wait()
            return
        with anyio.move_on_after(timeout):
            await self._bell.wait()
