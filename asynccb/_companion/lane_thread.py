"""
The companion's lanes, on an event loop in their own thread.

Promises: the service's loop keeps running whatever a hook does (hang, block, exit). The ring is
drained, the training is answered and the deadline is kept. A blocking hook is named in the log
while it blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from asynccb._companion.journal_lane import JournalLane
from asynccb._companion.messages import (
    Answer,
    Ended,
    Fault,
    FromCompanion,
    LaneFailed,
    LaneSpec,
    Offer,
    Request,
)
from asynccb._companion.resumption import Earlier
from asynccb._companion.sync import Deliveries
from asynccb._ground.lifetime import in_forked_children
from asynccb._journal.settings import JournalSettings
from asynccb._journal.tail import Tail
from asynccb._lanes.bell import Bell
from asynccb._lanes.loop_thread import leave_forked_hook, run_unstoppably
from asynccb._lanes.stall_watch import LANE_PREFIX, STALL, StallWatch
from asynccb.callbacks.base import find_hooks
from asynccb.callbacks.request import Requesting
from asynccb.callbacks.tracking import Tracking

logger = logging.getLogger("asynccb")


class LaneLoop:
    """
    The lanes' thread: it unpickles callbacks and serves them from the journal.

    Call its methods on the service's thread. It calls the functions given to it on its own thread.
    """

    def __init__(
        self,
        folder: Path,
        journaled: Callable[[], int],
        tail: Tail,
        say: Callable[[FromCompanion], None],
        on_failed: Callable[[LaneFailed], None],
        *,
        spoken: Callable[[], Awaitable[bool]],
        settings: JournalSettings,
    ) -> None:
        """
        Take the run's folder, and its journal: a count of the records, and the end in memory.

        `on_failed` receives callbacks that could not be created here. A lane awaits `spoken` before
        it saves its cursor past a record that needed an answer. If `settings.offline` is set,
        trackers with a server deliver nothing: they wait for `asynccb sync`.
        """
        self.lanes: dict[str, JournalLane] = {}
        self._folder = folder
        self._journaled = journaled
        self._tail = tail
        self._say = say
        self._on_failed = on_failed
        self._spoken = spoken
        self._settings = settings
        self._to_come: deque[LaneSpec] = deque()
        self._grown = Bell()
        self._loop = asyncio.new_event_loop()
        self._scope = anyio.CancelScope()
        self._deadline = 0.0  # in monotonic seconds
        self._thread = threading.Thread(
            target=lambda: run_unstoppably(self._loop, self._serve(), lambda: self._deadline),
            name="asynccb-lanes",
            daemon=True,
        )

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def done(self) -> bool:
        """Whether every lane has ended."""
        return not self._to_come and all(lane.done for lane in list(self.lanes.values()))

    @property
    def passed(self) -> int:
        """Id of the first record that some lane has yet to read."""
        if self._to_come:
            return 0
        return min((lane.passed for lane in list(self.lanes.values())), default=0)

    def start(self) -> None:
        """Start the thread."""
        in_forked_children(self._abandon)
        self._thread.start()

    def add(self, spec: LaneSpec) -> None:
        """Serve one more callback; `on_failed` is called if it cannot be created."""
        self._to_come.append(spec)
        self.ring()

    def ring(self) -> None:
        """Wake the lanes, because the journal has grown."""
        self._call(self._grown.ring)

    def hurry(self, end: int) -> None:
        """Have every lane deliver everything below `end` without gathering."""
        self._call(self._hurry, end)

    def has_delivered(self, end: int, names: tuple[str, ...] = ()) -> bool:
        """Return whether all lanes, or the named lanes, are done with the records below `end`."""
        return not self._to_come and all(
            lane.position >= end or lane.counts.disabled or lane.done
            for lane in list(self.lanes.values())
            if not names or lane.name in names
        )

    def cancel(self, deadline: float) -> None:
        """
        Cancel every lane, then the tasks that hooks have started; a hook that blocks notices none.

        The thread waits for the tasks until `deadline`, in monotonic seconds.
        """
        self._deadline = deadline
        self._call(self._scope.cancel)

    async def wait(self, timeout: float) -> None:
        """Wait until the thread has ended, for at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            while self.alive:
                await anyio.sleep(0.005)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def _abandon(self) -> None:
        """In a child process that a hook forked: exit when the hook returns or awaits."""
        leave_forked_hook(self._thread, self._loop)

    # -- on the thread -----------------------------------------------------------------------------

    def _hurry(self, end: int) -> None:
        for lane in self.lanes.values():
            lane.hurry(end)

    async def _serve(self) -> None:
        watch = StallWatch(self._stalled, "the other callbacks in the companion wait meanwhile")
        with self._scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._beat, watch)
                earlier = Deliveries(group)
                while True:
                    while self._to_come:
                        lane = self._make_lane(self._to_come[0])
                        if lane is not None:
                            self.lanes[lane.name] = lane
                            if lane.waits_for_sync(self._settings.offline):
                                group.start_soon(lane.wait_for_sync)
                            else:
                                group.start_soon(
                                    self._run, lane, earlier, name=LANE_PREFIX + lane.name
                                )
                        self._to_come.popleft()
                    await self._grown.wait(STALL)
        watch.close()

    async def _run(self, lane: JournalLane, earlier: Earlier) -> None:
        try:
            await lane.run(earlier)
        finally:
            self._say(Ended(lane.name))

    async def _beat(self, watch: StallWatch) -> None:
        while True:
            watch.beat()
            await anyio.sleep(STALL / 4)

    def _make_lane(self, spec: LaneSpec) -> JournalLane | None:
        try:
            callback = pickle.loads(spec.pickled)
            lane = JournalLane(
                spec.name,
                callback,
                find_hooks(callback).asynchronous,
                lambda error: self._say(Fault(spec.name, f"{type(error).__name__}: {error}")),
                directory=self._folder,
                journaled=self._journaled,
                tail=self._tail,
                upload_limit=self._settings.upload_limit,
                grown=self._grown,
                first=spec.first,
                answer=lambda name, ticket, decision: self._say(Answer(name, ticket, decision)),
                spoken=self._spoken,
            )
            Requesting(lambda wishes: self._say(Request(spec.name, wishes))).connect(callback)
            if isinstance(callback, Tracking) and callback.offers:
                callback.offer = lambda metrics: self._say(Offer(spec.name, dict(metrics)))
        except Exception as error:  # noqa: BLE001 - importing a user's module can raise anything
            self._on_failed(LaneFailed(spec.name, f"{type(error).__name__}: {error}"))
            return None
        return lane

    def _stalled(self, name: str) -> None:
        if name in self.lanes:
            self.lanes[name].counts.stalled += 1
