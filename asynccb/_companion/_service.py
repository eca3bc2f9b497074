"""
The companion's event loop: ring to journal, journal to lanes, and the conversation with the
training.

Promises: the ring's room is given back only after the journal has its records; without the training
process it goes on until everything is delivered or `orphan_timeout` is over, and marks the run as
crashed unless its end was recorded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from asynccb._callback import find_hooks
from asynccb._companion._arrivals import Arrivals
from asynccb._companion._journal_lane import Bell, JournalLane
from asynccb._companion._messages import (
    AddLane,
    CloseBy,
    Closed,
    Counts,
    Fault,
    Flushed,
    FlushUpTo,
    FromCompanion,
    Hello,
    LaneFailed,
    LaneSpec,
    Ready,
    ToCompanion,
    pack,
    to_companion,
)
from asynccb._companion._run_folder import RunFolder, StoredLane
from asynccb._ring import RingReader
from asynccb._stall import LANE_PREFIX, StallWatch

logger = logging.getLogger("asynccb")

POLL: Final = 0.005
"""Seconds between two looks at the ring while records come."""
_IDLE_POLL: Final = 0.02
_LAST_LANDING: Final = 0.05
"""Seconds for which values that a dying training has sent from the device are waited for."""
_REPORT: Final = 0.5
"""Seconds between two reports of the counts."""
_FAREWELL: Final = 0.3
"""Seconds of the deadline that are kept for saying goodbye."""


class Conversation:
    """Receive and send whole messages."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def receive(self) -> ToCompanion:
        """Return the next message; raises what `GONE` lists where the other side is gone."""
        length = int.from_bytes(await self._buffered.receive_exactly(4), "little")
        return to_companion(await self._buffered.receive_exactly(length))

    async def send(self, messages: list[FromCompanion]) -> None:
        """Send messages; raises what `GONE` lists where the other side is gone."""
        await self._stream.send(b"".join(pack(message) for message in messages))


GONE: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.IncompleteRead,
)


class Service:
    """Serve one training process; `run` returns when everything is over."""

    def __init__(self, ring: RingReader, conversation: Conversation, hello: Hello) -> None:
        """Take the ring, the socket, and the first message that came through it."""
        self._ring = ring
        self._arrivals = Arrivals(ring.slots)
        self._conversation = conversation
        self._hello = hello
        self._folder = RunFolder(Path(hello.directory))
        self._journal = self._folder.journal
        self._grown = Bell()
        self._lanes: dict[str, JournalLane] = {}
        self._specs: dict[str, StoredLane] = {}
        self._outgoing: list[FromCompanion] = []
        self._outgoing_bell = Bell()
        self._orphaned = False
        self._closing = False
        self._drained = anyio.Event()

    async def run(self) -> None:
        """Drain and deliver until the end of the run, or the deadline."""
        await self._folder.open()
        self._watch = StallWatch(
            self._stalled, "the other callbacks in the companion wait meanwhile"
        )
        self.say(Ready(os.getpid()))
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._listen)
            group.start_soon(self._speak)
            group.start_soon(self._report)
            group.start_soon(self._watch_parent)
            group.start_soon(self._drain)
            await self._drained.wait()
            await self._finish_lanes()
            group.cancel_scope.cancel()
        self._watch.close()
        await self._say_goodbye()
        await self._folder.close()

    def say(self, message: FromCompanion) -> None:
        """Queue a message to the training process; lost where that is gone."""
        if not self._orphaned:
            self._outgoing.append(message)
            self._outgoing_bell.ring()

    # -- ring to journal ---------------------------------------------------------------------------

    async def _drain(self) -> None:
        last_busy = time.monotonic()
        while True:
            leaving = self._orphaned or self._closing
            if await self._drain_once():
                last_busy = time.monotonic()
            elif leaving and await self._is_drained():
                break
            self._watch.beat()
            idle = time.monotonic() - last_busy > 1.0
            await anyio.sleep(_IDLE_POLL if idle else POLL)
        if self._orphaned:
            await self._folder.record_crash_unless_ended()
            self._grown.ring()
        self._watch.rest()
        self._drained.set()

    async def _is_drained(self) -> bool:
        """Tell whether the ring is empty; values of a dead training get a moment to land."""
        if self._ring.used and self._orphaned and not self._arrivals.over:
            await anyio.sleep(_LAST_LANDING)
            self._arrivals.over = True
            return False
        if self._arrivals.lost:
            logger.warning(
                "%d values were still on the device when the training died", self._arrivals.lost
            )
        return not self._ring.used

    async def _drain_once(self) -> bool:
        frames, first, last = self._ring.read(self._arrivals)
        if not frames:
            return False
        await self._append(frames, first, last)
        self._ring.release()
        self._grown.ring()
        return True

    async def _append(self, frames: bytes, first: int, last: int) -> None:
        """Append to the journal, again and again where the disk refuses."""
        while True:
            try:
                await self._journal.append(frames, first, last)
            except OSError as error:
                logger.warning("the journal cannot be written (%s); trying again", error)
                await anyio.sleep(1.0)
            else:
                return

    # -- journal to lanes --------------------------------------------------------------------------

    async def _add_lane(self, spec: LaneSpec) -> None:
        try:
            callback = pickle.loads(spec.pickled)
            hooks = find_hooks(callback).asynchronous
        except Exception as error:  # noqa: BLE001 - importing a user's module can raise anything
            self.say(LaneFailed(spec.name, f"{type(error).__name__}: {error}"))
            return
        self._specs[spec.name] = StoredLane(spec.name, spec.path, spec.state, spec.first)
        await self._folder.describe(self._hello.key, list(self._specs.values()))
        lane = JournalLane(
            spec.name,
            callback,
            hooks,
            self._fault_of(spec.name),
            directory=self._folder.path,
            journaled=lambda: self._journal.next,
            grown=self._grown,
            first=spec.first,
        )
        self._lanes[spec.name] = lane
        self._group.start_soon(lane.run, name=LANE_PREFIX + spec.name)

    def _fault_of(self, name: str) -> Callable[[BaseException], None]:
        return lambda error: self.say(Fault(name, f"{type(error).__name__}: {error}"))

    async def _finish_lanes(self) -> None:
        """Wait for every lane to deliver everything, up to the deadline."""
        for lane in self._lanes.values():
            lane.hurry(self._journal.next)
        timeout = None if self._closing else self._hello.orphan_timeout
        with anyio.move_on_after(timeout):
            while not all(lane.done for lane in self._lanes.values()):
                await anyio.sleep(POLL)

    # -- the conversation --------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            while True:
                await self._obey(await self._conversation.receive())
        except GONE:
            self._orphaned = True

    async def _obey(self, message: ToCompanion) -> None:
        match message:
            case AddLane(lane):
                await self._add_lane(lane)
            case FlushUpTo(end):
                self._group.start_soon(self._answer_flush, end)
            case CloseBy(timeout):
                self._closing = True
                self._group.start_soon(self._keep_deadline, timeout)

    async def _keep_deadline(self, timeout: float) -> None:
        await anyio.sleep(max(0.0, timeout - _FAREWELL))
        self._group.cancel_scope.cancel()

    def _stalled(self, name: str) -> None:
        if name in self._lanes:
            self._lanes[name].counts.stalled += 1

    async def _answer_flush(self, end: int) -> None:
        for lane in self._lanes.values():
            lane.hurry(end)
        while any(
            lane.position < end and not lane.counts.disabled and not lane.done
            for lane in self._lanes.values()
        ):
            await anyio.sleep(POLL)
        self._report_now()
        self.say(Flushed(end))

    async def _speak(self) -> None:
        try:
            while True:
                if not self._outgoing:
                    await self._outgoing_bell.wait()
                waiting, self._outgoing = self._outgoing, []
                await self._conversation.send(waiting)
        except GONE:
            self._orphaned = True

    async def _say_goodbye(self) -> None:
        pending = {
            name: self._journal.next - lane.position
            for name, lane in self._lanes.items()
            if not lane.done or lane.counts.disabled
        }
        self._report_now()
        self.say(Closed({name: count for name, count in pending.items() if count}))
        with anyio.move_on_after(_FAREWELL), contextlib.suppress(*GONE):
            await self._conversation.send(self._outgoing)

    async def _report(self) -> None:
        while True:
            await anyio.sleep(_REPORT)
            self._report_now()
            if self._lanes:
                await self._journal.remove_below(min(ln.retained for ln in self._lanes.values()))

    def _report_now(self) -> None:
        counts = {}
        for name, lane in self._lanes.items():
            lane.counts.pending = self._journal.next - lane.position
            counts[name] = lane.counts
        self.say(Counts(counts, self._journal.next))

    async def _watch_parent(self) -> None:
        """Notice the training process's death even where a forked child of it holds the socket."""
        while os.getppid() == self._hello.training_pid:
            await anyio.sleep(0.1)
        self._orphaned = True
