"""
The training process's handle on the companion: start it, watch it, read its messages, end it.

Promises: only `wait_for_room`, `flush` and `close` wait, each with an end. No thread is started
while the companion lives. Its messages are read when the training thread calls `poll`. A companion
that dies is started again, a few times, and goes on from ring and journal. A companion that never
comes to life gives its lanes back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from asynccb._companion.messages import (
    AddLane,
    Answer,
    CloseBy,
    Closed,
    Counts,
    Ended,
    Fault,
    Flushed,
    FlushUpTo,
    FromCompanion,
    Hello,
    LaneFailed,
    LaneSpec,
    Notice,
    Offer,
    Ready,
    Request,
)
from asynccb._journal.file_lock import FileLock
from asynccb._journal.settings import JournalSettings
from asynccb._lanes.counts import LaneCounts, sum_counts
from asynccb._publishing.companion_process import Child
from asynccb._ring.ring import RingWriter
from asynccb._state.control import Decision

logger = logging.getLogger("asynccb")

PAUSES: Final = (0.0, 0.5, 2.0)
"""Seconds before each further start of a companion that dies in a row; then it is given up."""
PROVEN: Final = 60.0
"""Seconds of life after which a companion's death counts as the first again."""
SILENCE: Final = 30.0
"""Seconds without a word after which a companion that training waits for is killed."""
ORPHAN_TIMEOUT: Final = 600.0
"""Seconds for which an orphaned companion goes on trying to deliver."""
_WAITING: Final = (
    "Events wait for the close, which journals them; events that find the ring full are dropped"
)

_LAST_WAIT: Final = 0.25
"""Seconds beyond a deadline for which the end of the process is waited for."""


class Companion:
    """The ring, the process that reads it, and the socket between."""

    def __init__(
        self,
        directory: Path,
        key: str,
        *,
        on_fault: Callable[[str, str], None],
        on_lane_failed: Callable[[str, str, int], None],
        on_answer: Callable[[str, int, Decision | None], None],
        on_ended: Callable[[str], None],
        on_request: Callable[[Decision], None],
        on_offer: Callable[[dict[str, float]], None],
        settings: JournalSettings | None = None,
    ) -> None:
        """Start the process; raise OSError if no memfd or no process can be made."""
        self.directory = directory
        self.counts: dict[str, LaneCounts] = {}
        self.journaled = 0
        self.deadline = float("inf")
        """When waiting for the companion ends, whatever it is for; `close` brings it forward."""
        self._key = key
        self._settings = settings or JournalSettings()
        self._on_fault = on_fault
        self._on_lane_failed = on_lane_failed
        self._on_answer = on_answer
        self._on_ended = on_ended
        self._on_request = on_request
        self._on_offer = on_offer
        self._specs: dict[str, LaneSpec] = {}
        self._earlier: dict[str, LaneCounts] = {}  # what companions that died had counted
        self._said: set[str] = set()  # by the companion that lives
        self._said_before: set[str] = set()
        self._deaths = 0  # in a row
        self._restart_at = 0.0
        self._over = False
        self._overwritten = False
        self._ready = False
        self._flushed: dict[tuple[str, ...], int] = {}
        self._closed: Closed | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as on_failure:
            # Held by us and each companion: nobody else delivers while one of us may write.
            self._lock = FileLock.on(directory / "companion.log")
            on_failure.callback(self._lock.let_go)
            with contextlib.suppress(OSError):  # a file system without locks
                self._lock.take()
            self.ring = RingWriter()
            on_failure.callback(self.ring.close)
            self._start()
            on_failure.pop_all()

    # -- lanes -------------------------------------------------------------------------------------

    def add_lane(self, spec: LaneSpec) -> None:
        """Serve one more callback, from the next record on."""
        self._specs[spec.name] = spec
        self._child.send(AddLane(spec))

    @property
    def pid(self) -> int:
        """Process id of the companion, which changes when it is started again."""
        return self._child.pid

    @property
    def descriptor(self) -> int | None:
        """Descriptor that is readable when the companion has sent something; None without one."""
        return self._child.descriptor

    @property
    def given_up(self) -> bool:
        """Whether nothing will be read from the ring any more."""
        return self._over or self._closed is not None

    @property
    def slots_read(self) -> int:
        """Position below which slots may be used again; all of them without a companion."""
        if not self._child.alive:
            self.poll()
        if not self.given_up:
            return self.ring.slots_read
        self._overwritten = True  # whoever asks needs them for other values
        return sys.maxsize

    # -- watching ----------------------------------------------------------------------------------

    def poll(self) -> None:
        """Read the companion's messages; start it again if it has died. Never waits."""
        if not self.given_up:
            self._hear(0.0)
            if not self._child.alive and self._closed is None:
                self._follow_death()

    def wait_for_room(self, written: Callable[[], bool]) -> bool:
        """Call `written` until it returns True; return False if no companion will make room."""
        begin = time.monotonic()
        while not written():
            self.poll()
            if self.given_up or time.monotonic() > self.deadline:
                return False
            self._rest(time.monotonic() + 0.002)
            if time.monotonic() - max(begin, self._heard) > SILENCE:
                logger.error("the companion has not said a word for %.0f s and is killed", SILENCE)
                begin = time.monotonic()
                self._child.kill()
        return True

    # -- the end -----------------------------------------------------------------------------------

    def flush(self, deadline: float, lanes: tuple[str, ...] = ()) -> bool:
        """Wait until all lanes, or some, have delivered all records; False at the deadline."""
        end = self.ring.written
        asked: Child | None = None
        while self._flushed.get(lanes, 0) < end and time.monotonic() < deadline:
            self.poll()
            if self.given_up:
                break
            if asked is not self._child:  # a companion that was started again has not been asked
                asked = self._child
                asked.send(FlushUpTo(end, lanes))
            self._rest(deadline)
        return self._flushed.get(lanes, 0) >= end

    def close(self, deadline: float, on_wait: Callable[[], None]) -> dict[str, int]:
        """
        Wait until everything is delivered, and end the process; return pending records by lane.

        `on_wait` is called now and then. Ctrl-C is left to the caller.
        """
        self.deadline = deadline
        asked: Child | None = None
        while self._closed is None and time.monotonic() < deadline:
            self.poll()
            if self.given_up:
                break
            if asked is not self._child:
                asked = self._child
                asked.send(CloseBy(max(0.0, deadline - time.monotonic())))
            self._rest(deadline)
            on_wait()
        if self._closed is not None:
            return dict(self._closed.pending)
        return self.pending()

    def pending(self) -> dict[str, int]:
        """Return the records that are not known to be delivered, by lane."""
        written = self.ring.written
        return {name: self._pending(name, written) for name in self._specs}

    def release(self) -> None:
        """Let go of process, socket and ring; the process journals the rest, and ends."""
        if self._closed is None:
            if not self._child.alive and self._ready and self.ring.used:  # to be journaled
                with contextlib.suppress(OSError):
                    self._start()
            self._child.send(CloseBy(0.0))
        self._closed = self._closed or Closed({})
        self._child.leave(max(_LAST_WAIT, min(2.0, self.deadline - time.monotonic())))
        self._lock.let_go()
        self.ring.close()

    def abandon(self) -> None:
        """In a forked child: close inherited descriptors, and touch nothing shared."""
        self._closed = Closed({})
        self._child.abandon()
        self.ring.close()

    # -- inside ------------------------------------------------------------------------------------

    def _pending(self, name: str, written: int) -> int:
        counts = self.counts.get(name)
        if counts is None:
            return written - self._specs[name].first
        return counts.pending + max(0, written - self.journaled)

    def _rest(self, deadline: float) -> None:
        """Wait a little for messages of the companion, or for the moment to start it again."""
        pause = max(0.0, min(0.1, deadline - time.monotonic()))
        if self._child.alive:
            self._hear(pause)
        else:
            time.sleep(min(pause, 0.01))

    def _start(self) -> None:
        self._earlier = dict(self.counts)
        self._said_before |= self._said
        self._child = Child(self.ring.fd, self._lock.descriptor, self.directory / "companion.log")
        self._born = self._heard = time.monotonic()
        paths = [os.path.abspath(path) for path in sys.path]
        self._child.send(
            Hello(
                str(self.directory),
                self._key,
                paths,
                os.getpid(),
                ORPHAN_TIMEOUT,
                self._settings,
                self._overwritten,
            )
        )
        for spec in self._specs.values():
            self._child.send(AddLane(spec))

    def _follow_death(self) -> None:
        """Start it again if it is time to, or give it up."""
        now = time.monotonic()
        if not self._restart_at:
            self._note_death(now)
        if self._over or now < self._restart_at:
            return
        self._restart_at = 0.0
        try:
            self._start()
        except OSError as error:
            logger.warning("the companion process cannot be started again: %s", error)
            self._note_death(now)

    def _note_death(self, now: float) -> None:
        code = self._child.kill()
        if now - self._born > PROVEN:
            self._deaths = 0
        self._deaths += 1
        if self._deaths > len(PAUSES):
            self._give_up(code)
            return
        self._restart_at = now + PAUSES[self._deaths - 1]
        logger.warning(
            "the companion process ended with %s; it is started again and goes on from the journal "
            "(its log: %s)",
            code,
            self.directory / "companion.log",
        )

    def _give_up(self, code: int) -> None:
        self._over = True
        what = f"it has ended {self._deaths} times, the last time with {code}"
        logger.error(
            "the companion process is not started again: %s (its log: %s). %s",
            what,
            self.directory / "companion.log",
            _WAITING if self._ready else "It has never come to life",
        )
        if not self._ready:
            self._lock.let_go()  # nothing will be written
            for name in list(self._specs):
                self._take(LaneFailed(name, what))

    def _hear(self, timeout: float) -> None:
        """Read messages, waiting at most `timeout` seconds for them."""
        for message in self._child.hear(timeout):
            self._heard = time.monotonic()
            self._take(message)

    def _take(self, message: FromCompanion) -> None:
        match message:
            case Notice(level, text):
                self._said.add(text)
                if text not in self._said_before:  # or it would be said again after each restart
                    logger.log(level, "%s", text)
            case Counts(lanes, journaled):
                for name, counts in lanes.items():
                    self.counts[name] = sum_counts(self._earlier.get(name), counts)
                self.journaled = journaled
            case Fault(name, text):
                self._on_fault(name, text)
            case Answer(name, ticket, decision):
                self._on_answer(name, ticket, decision)
            case Request(name, wishes):
                logger.info("%s requests %s", name, ", ".join(wishes.opinions))
                self._on_request(wishes)
            case Offer(_, metrics):
                self._on_offer(metrics)
            case Ended(name):
                self._on_ended(name)
            case LaneFailed(name, reason):
                missed = self.pending().get(name, 0)
                self._specs.pop(name, None)
                self._on_lane_failed(name, reason, missed)
            case Flushed(end, lanes):
                self._flushed[lanes] = max(self._flushed.get(lanes, 0), end)
            case Closed():
                self._closed = message
            case Ready():
                self._ready = True
