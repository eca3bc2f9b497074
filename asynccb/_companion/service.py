"""
The companion's main event loop: moves the ring to the journal and talks to the training process.

Promises: the ring's room is released only after its records are in the journal (`intake.py` has
the one exception). No hook runs here, so no hook delays the journal. After the training process has
died, the service continues until everything is delivered or `orphan_timeout` has passed, and marks
the run as crashed unless its end was recorded.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import time
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from asynccb._companion.connection import GONE, Conversation, Outgoing
from asynccb._companion.intake import Intake
from asynccb._companion.landing import Arrivals
from asynccb._companion.lane_thread import LaneLoop
from asynccb._companion.messages import (
    AddLane,
    CloseBy,
    Closed,
    Counts,
    Flushed,
    FlushUpTo,
    Hello,
    LaneFailed,
    LaneSpec,
    Ready,
    ToCompanion,
)
from asynccb._journal.run_folder import RunFolder, StoredLane, crash_record
from asynccb._ring.record import END, decode
from asynccb._ring.ring import RingReader

logger = logging.getLogger("asynccb")

POLL: Final = 0.005
"""Seconds between two looks at the ring while records arrive; each empty look doubles them."""
_IDLE_POLL: Final = 0.02
_LAST_LANDING: Final = 0.05
"""Seconds to wait for values that a dead training had on their way from the device."""
_REPORT: Final = 0.5
"""Seconds between two reports of the counts."""
_FAREWELL: Final = 0.3
"""Seconds before the deadline that are reserved for the last messages."""
_LAST_DRAIN: Final = 10.0
"""Seconds beyond the deadline for retrying to write the ring's records to a refusing disk."""
_LAST_WRITES: Final = 2.5
"""Seconds after the last message for lanes to close their callbacks and write their cursors."""


class Service:
    """The companion's service of one training process; `run` returns when it is over."""

    def __init__(self, ring: RingReader, conversation: Conversation, hello: Hello) -> None:
        """Take the ring, the conversation over the socket, and its first message."""
        self._ring = ring
        self._arrivals = Arrivals(ring.slots, ring.forms)
        if hello.overwritten:
            self._arrivals.forget()
        self._conversation = conversation
        self._outgoing = Outgoing(conversation)
        self.say = self._outgoing.say
        self._hello = hello
        self._folder = RunFolder(Path(hello.directory), hello.settings)
        self._journal = self._folder.journal
        self._intake = Intake(
            ring, self._arrivals, self._journal, passed=lambda: self._lanes.passed
        )
        self._lanes = LaneLoop(
            self._folder.path,
            lambda: self._intake.taken,
            self._intake.tail,
            self.say,
            self._lane_failed,
            spoken=self._outgoing.spoken,
            settings=hello.settings,
        )
        self._stored: list[StoredLane] = []
        self._described = True
        self._known: set[str] = set()  # earlier lanes, which may need every segment
        self._cut_off: set[str] = set()  # stopped at an end record although more followed it
        self._loop = asyncio.get_running_loop()
        self._obeying = False
        self._obeyed = 0
        """Number of the training process's messages that were carried out."""
        self._orphaned = False
        self._closing = False
        self._dismissed = False
        """Whether the training process has used up its time to wait for the companion."""
        self._drain_scope = anyio.CancelScope()
        self._delivery_scope = anyio.CancelScope()

    async def run(self) -> None:
        """Drain and deliver until the end of the run or the deadline."""
        await self._folder.open()
        self._known.update(self._folder.cursors())
        self._lanes.start()
        self.say(Ready(os.getpid()))
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._listen)
            group.start_soon(self._outgoing.speak)
            group.start_soon(self._report)
            group.start_soon(self._watch)
            group.start_soon(self._journal.keep_synced)
            with self._drain_scope:
                await self._drain()
            with self._delivery_scope:
                await self._finish_lanes()
            group.cancel_scope.cancel()
        left = self._delivery_scope.deadline - anyio.current_time()
        self._lanes.cancel(time.monotonic() + left)
        await self._lanes.wait(max(left, 1.0) if self._lanes.done else _FAREWELL / 3)
        self._cut_off = await self._find_cut_off()
        over = self._is_over()
        if over and not self._hello.settings.keep:
            await self._remove_folder()
        await self._say_goodbye(over)
        await self._lanes.wait(_LAST_WRITES)
        if not over:
            with anyio.CancelScope(deadline=self._drain_scope.deadline):
                await self._write_rest()
        await self._folder.close()

    # -- ring to journal ---------------------------------------------------------------------------

    async def _drain(self) -> None:
        while not (self._stored or self._orphaned or self._closing):
            await anyio.sleep(POLL)  # `asynccb sync` cannot use a journal without run.json
        pause = POLL
        while True:
            leaving = self._orphaned or self._closing
            if await self._intake.take():
                self._lanes.ring()
                pause = POLL
            elif leaving and await self._is_drained():
                break
            elif leaving or self._ring.unread:
                pause = POLL
            await anyio.sleep(pause)
            pause = min(2 * pause, _IDLE_POLL)
        if self._orphaned:
            await self._record_crash()
            self._lanes.ring()

    async def _record_crash(self) -> None:
        """Write the end record that the training process died before writing."""
        last = self._intake.tail.last
        try:
            if last is None:
                await self._folder.record_crash_unless_ended()
            elif decode(last).kind != END:
                self._intake.hold(crash_record())
        except OSError:  # a full disk: trackers receive the record even so
            self._intake.hold(crash_record())

    async def _write_rest(self) -> None:
        """Write the records that the disk has refused so far, retrying until cancelled."""
        while not self._intake.is_empty:
            await self._intake.take()
            await anyio.sleep(POLL)

    async def _is_drained(self) -> bool:
        """Return whether the ring is empty; give a dead training's values a moment to land."""
        if self._ring.unread and self._orphaned and not self._arrivals.over:
            await anyio.sleep(_LAST_LANDING)
            self._arrivals.over = True
            return False
        if self._arrivals.lost:
            logger.warning(
                "%d values from a device are lost: they were still on the device when the training "
                "died, or no companion was running to read them",
                self._arrivals.lost,
            )
        return not self._ring.unread

    # -- journal to lanes --------------------------------------------------------------------------

    async def _add_lane(self, spec: LaneSpec) -> None:
        """Write the callback's entry in `run.json`, for a later sync, then serve the callback."""
        self._stored.append(StoredLane(spec.name, spec.path, spec.state, spec.first))
        await self._describe()
        self._lanes.add(spec)

    def _lane_failed(self, failure: LaneFailed) -> None:
        """Return a callback to the training process, which serves it; runs on the lanes' thread."""

        def forget() -> None:
            self._stored = [lane for lane in self._stored if lane.name != failure.name]
            self._group.start_soon(self._describe)

        self._loop.call_soon_threadsafe(forget)
        self.say(failure)

    async def _describe(self) -> None:
        """Write `run.json`; if the disk refuses, retry with a later report."""
        try:
            await self._folder.describe(self._hello.key, self._stored)
        except OSError as error:
            if self._described:
                logger.error("run.json cannot be written (%s); retrying", error)
            self._described = False
        else:
            self._described = True

    async def _finish_lanes(self) -> None:
        """Wait for every lane to deliver everything."""
        self._lanes.hurry(self._journal.next)
        while not self._lanes.done:
            await anyio.sleep(POLL)

    def _end_by(self, timeout: float) -> None:
        """End everything within `timeout` seconds; records in the ring are journaled even so."""
        end = anyio.current_time() + max(0.0, timeout - _FAREWELL)
        self._delivery_scope.deadline = end
        self._drain_scope.deadline = end + _LAST_DRAIN
        # If a hook holds the GIL, nothing above gets to run.
        faulthandler.dump_traceback_later(timeout + _LAST_DRAIN + _LAST_WRITES + 5.0, exit=True)

    # -- the conversation --------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._conversation.receive()
                self._obeying = True
                await self._obey(message)
                self._obeying = False
                self._obeyed += 1
        except GONE:
            self._become_orphan()

    async def _obey(self, message: ToCompanion) -> None:
        match message:
            case AddLane(lane):
                await self._add_lane(lane)
            case FlushUpTo(end, lanes):
                self._group.start_soon(self._answer_flush, end, lanes)
            case CloseBy(timeout):
                self._closing = True
                self._dismissed = timeout <= 0
                self._end_by(timeout)

    def _become_orphan(self) -> None:
        if not self._orphaned:
            self._orphaned = self._outgoing.moot = True
            if not self._dismissed:
                self._end_by(self._hello.orphan_timeout)

    async def _answer_flush(self, end: int, lanes: tuple[str, ...]) -> None:
        self._lanes.hurry(end)
        pause = POLL
        while not self._lanes.has_delivered(end, lanes):
            await anyio.sleep(pause)
            pause = min(1.2 * pause, _IDLE_POLL)
        self._report_now()
        self.say(Flushed(end, lanes))

    async def _say_goodbye(self, over: bool) -> None:
        if not (over or self._intake.is_empty):
            logger.error(
                "the disk has not taken the end of the journal. If it still refuses in %.0f s, "
                "records %d to %d are lost, except those already delivered",
                _LAST_DRAIN,
                self._journal.next,
                self._intake.taken - 1,
            )
        lanes = self._lanes.lanes.items()
        pending = {
            name: self._intake.taken - lane.position
            for name, lane in lanes
            if not lane.cursor.finished or name in self._cut_off
        }
        self._report_now()
        self.say(Closed({name: count for name, count in pending.items() if count}))
        await anyio.lowlevel.checkpoint()  # so that the loop queues the last messages
        with anyio.move_on_after(_FAREWELL):
            await self._outgoing.speak_last()

    async def _report(self) -> None:
        while True:
            await anyio.sleep(_REPORT)
            self._report_now()
            if not self._described:
                await self._describe()
            lanes = dict(self._lanes.lanes)
            if lanes and self._known <= lanes.keys():
                await self._journal.remove_below(min(ln.retained for ln in lanes.values()))

    def _report_now(self) -> None:
        counts = {}
        for name, lane in list(self._lanes.lanes.items()):
            lane.counts.pending = self._intake.taken - lane.position
            counts[name] = lane.counts
        self.say(Counts(counts, self._intake.taken))

    def _is_over(self) -> bool:
        """Return whether all is delivered and nothing happened that needs a look at the folder."""
        return (
            self._closing
            and not self._lanes.alive
            and not self._cut_off
            and all(
                lane.cursor.finished and not lane.counts.is_troubled
                for lane in self._lanes.lanes.values()
            )
        )

    async def _find_cut_off(self) -> set[str]:
        return {
            name
            for name, lane in list(self._lanes.lanes.items())
            if lane.cursor.finished
            and lane.position < self._intake.taken
            and await self._folder.has_end_before(lane.position)  # false after a removal
        }

    async def _remove_folder(self) -> None:
        """Remove the run's folder under its lock, so no other process serves a half-removed run."""
        await self._journal.close()
        try:
            self._folder.remove()
        except OSError as error:
            logger.warning("%s cannot be removed: %s", self._folder.path, error)

    async def _watch(self) -> None:
        """
        Watch for the end of the training process and of the lanes' thread.

        The socket does not show the end of the training if a forked child of it holds the socket.
        """
        while os.getppid() == self._hello.training_pid:
            await anyio.sleep(0.1)
            if not self._lanes.alive:
                raise RuntimeError("the thread of the lanes has ended")
        obeyed = -1
        while self._obeying or obeyed != self._obeyed:  # first carry out messages it had sent
            obeyed = self._obeyed
            await anyio.sleep(0.05)
        self._become_orphan()
