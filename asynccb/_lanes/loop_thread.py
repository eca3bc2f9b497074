"""
The event loop in a thread: started late, seldom woken, watched, stopped within a deadline.

Promises: the training thread wakes the loop only when it sleeps. While events are dense the loop
does not sleep but looks for them, so that a busy run costs one wake-up in all, not one per event
(2.5 to 4.5 ms at p99 each, in a thread that holds the lock). If events are few, the loop does not
look in vain, since every look takes the lock from the training. A coroutine that blocks the loop is
named while it does so. If no loop or thread can be started, events are dropped and counted. Tasks
that hooks have started are cancelled at the end, and waited for by the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc

from asynccb._ground.types import RunStatus
from asynccb._lanes.stall_watch import STALL, StallWatch
from asynccb._lanes.thread_lane import ThreadLane

logger = logging.getLogger("asynccb")

TICK: Final = 0.01
"""Seconds between two looks at the mailboxes while events come."""
_LEAST: Final = 0.05
"""Least seconds for which cancelled tasks are waited for."""
_GRACE: Final = 1.0
"""Seconds to wait for cancelled tasks without a deadline."""
_DENSE: Final = 3 * TICK
"""Seconds; where events follow each other sooner, the loop looks instead of being woken."""


def run_unstoppably(
    loop: asyncio.AbstractEventLoop,
    main: Coroutine[Any, Any, None],
    deadline: Callable[[], float],
) -> None:
    """
    Run a coroutine to its end, though tasks beside it exit, and close the loop.

    Tasks that hooks have started are cancelled then. `deadline` returns until when they are waited
    for, in monotonic seconds.
    """
    _run(loop, main)
    _end_tasks(loop, max(deadline(), time.monotonic() + _LEAST))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _run(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine to its end, whatever tasks beside it raise."""
    running = loop.create_task(coroutine)
    while not running.done():
        # A task that a hook has spawned may raise these, and asyncio lets them end the loop.
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            try:
                loop.run_until_complete(running)
            except RuntimeError:
                if running.done():
                    raise
                # or a hook has stopped the loop


def _end_tasks(loop: asyncio.AbstractEventLoop, deadline: float) -> None:
    """Cancel the tasks that are left, and those that they start meanwhile; wait for their end."""
    while tasks := asyncio.all_tasks(loop):
        if (left := deadline - time.monotonic()) <= 0:
            logger.warning(
                "a hook has started tasks that do not end though they are cancelled, and are left "
                "behind: %s",
                ", ".join(sorted(task.get_name() for task in tasks)),
            )
            return
        for task in tasks:
            task.cancel()
        _run(loop, asyncio.wait(tasks, timeout=left))


def leave_forked_hook(thread: threading.Thread, loop: asyncio.AbstractEventLoop) -> None:
    """
    End the process, which was forked just now, when the loop comes to run, if a hook has forked it.

    The loop's thread is then the only one in the child, and all that it would go on with belongs to
    the parent.
    """
    if threading.current_thread() is thread:
        loop.call_soon(os._exit, 0)


class LoopThread:
    """Run lanes on an event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self._lanes: list[ThreadLane] = []
        self._unstarted: deque[ThreadLane] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._awake = False
        self._found = 0.0  # when a look has found something, in monotonic seconds
        self._next_look: asyncio.TimerHandle | None = None
        self._beating = False
        self._closing = threading.Event()
        self._deadline: float | None = None

    @property
    def lanes(self) -> tuple[ThreadLane, ...]:
        """All lanes that were started."""
        return tuple(self._lanes)

    def start_lane(self, lane: ThreadLane) -> None:
        """Begin to serve a lane; starts the thread with the first one."""
        try:
            loop = self._loop or self._start_thread()
        except (OSError, RuntimeError) as error:  # no descriptor, or no thread, is to be had
            logger.error(
                "%s is not served, and its events are dropped and counted: no event loop can be "
                "started (%s)",
                lane.name,
                error,
            )
            lane.mailbox.stopped = lane.done = True
            return
        self._lanes.append(lane)
        self._unstarted.append(lane)
        loop.call_soon_threadsafe(self._bell.set)

    def wake(self) -> None:
        """Have the mailboxes looked at soon; costs one attribute test while the loop is awake."""
        if not self._awake and self._loop is not None:
            self._awake = True
            self._loop.call_soon_threadsafe(self._look)

    def end_lane(self, lane: ThreadLane, status: RunStatus) -> None:
        """Have one lane end when its mailbox is empty."""
        if self._loop is not None and not lane.done:
            self._loop.call_soon_threadsafe(lane.end, status)

    def end_lanes(self, status: RunStatus) -> None:
        """Have every lane end when its mailbox is empty."""
        for lane in self._lanes:
            self.end_lane(lane, status)

    def wait(
        self,
        condition: Callable[[ThreadLane], bool],
        deadline: float,
        on_wait: Callable[[], None] = lambda: None,
    ) -> bool:
        """Wait until the condition holds for every lane; return False at the deadline."""
        pause = 0.0005
        while not all(condition(lane) for lane in self._lanes):
            left = deadline - time.monotonic()
            if left <= 0 or self._thread is None or not self._thread.is_alive():
                return False
            self.wake()
            on_wait()
            time.sleep(min(pause, left))
            pause = min(pause * 2, TICK)
        return True

    def close(
        self, status: RunStatus, deadline: float, on_wait: Callable[[], None] = lambda: None
    ) -> dict[str, int]:
        """End all lanes by the deadline; return the events that are left, by callback."""
        if self._loop is None or self._thread is None:
            return {}
        self.end_lanes(status)
        self.wait(lambda lane: lane.done, deadline, on_wait)
        left = self.pending()
        self._deadline = deadline - _LEAST  # the thread ends before it is waited for in vain
        self.stop()
        # A blocked loop is left behind: its thread is a daemon.
        self._thread.join(0.05 if left else max(0.05, deadline - time.monotonic()))
        return left

    def stop(self) -> None:
        """Have the thread end, whatever its lanes are at."""
        self._closing.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._bell.set)

    def pending(self) -> dict[str, int]:
        """Return the events of the lanes that have not ended, by callback."""
        return {lane.name: lane.waiting for lane in self._lanes if not lane.done}

    def abandon(self) -> None:
        """Forget the thread, which does not exist in a forked child unless a hook has forked it."""
        if self._loop is not None and self._thread is not None:
            leave_forked_hook(self._thread, self._loop)
        self._lanes = []
        self._loop = None
        self._thread = None

    def _start_thread(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: run_unstoppably(loop, self._serve(started), self._tasks_end),
            name="asynccb-loop",
            daemon=True,
        )
        try:
            self._thread.start()
        except RuntimeError:
            loop.close()
            raise
        started.wait()
        self._loop = loop
        return loop

    def _tasks_end(self) -> float:
        return time.monotonic() + _GRACE if self._deadline is None else self._deadline

    async def _serve(self, started: threading.Event) -> None:
        self._bell = asyncio.Event()
        self._watch = StallWatch(
            self._stalled,
            "other callbacks with placement 'thread' wait meanwhile, training does not",
        )
        started.set()
        async with anyio.create_task_group() as group:
            while not self._closing.is_set():
                self._bell.clear()
                while self._unstarted:
                    lane = self._unstarted.popleft()
                    lane.others_have_mail = partial(self._others_have_mail, lane)
                    group.start_soon(lane.run)
                self._look()
                await self._bell.wait()
            group.cancel_scope.cancel()
        self._watch.close()

    # Looks and beats are plain callbacks: a task that woke for each would cost the training, which
    # waits for the lock meanwhile, twice as much.

    def _look(self) -> None:
        """Ring the lanes that have mail; while events are dense, look again after a tick."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        self._awake = False  # before the look: an event that is put behind it wakes the loop
        if self._ring_lanes() and self._come_densely():
            self._awake = True
            self._next_look = asyncio.get_running_loop().call_later(TICK, self._look)
        if not self._beating:
            self._beat()

    def _beat(self) -> None:
        """Have the watch see that the loop turns, as long as a lane has something to do."""
        self._beating = any(not (lane.idle or lane.done) for lane in self._lanes)
        if self._beating:
            self._watch.beat()
            asyncio.get_running_loop().call_later(STALL / 4, self._beat)
        else:
            self._watch.rest()

    def _come_densely(self) -> bool:
        """Tell whether the events before these were just now; at each look that finds some."""
        now = time.monotonic()
        before, self._found = self._found, now
        return now - before < _DENSE

    def _ring_lanes(self) -> bool:
        full = [lane for lane in self._lanes if lane.mailbox]
        for lane in full:
            lane.ring()
        return bool(full)

    def _others_have_mail(self, lane: ThreadLane) -> bool:
        return any(other.mailbox for other in self._lanes if other is not lane)

    def _stalled(self, name: str) -> None:
        for lane in self._lanes:
            if lane.name == name:
                lane.counts.stalled += 1
