"""
The training process's side of the companion: start it, watch it, hear it out, say goodbye.

Promises: nothing here waits but `flush` and `close`, each with a deadline; no thread is started;
what the companion says is heard when the training thread comes by (`poll`); a companion that dies
is started again, a few times, and goes on from ring and journal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

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
    Notice,
    Ready,
    ToCompanion,
    Unpacker,
    from_companion,
    pack,
)
from asynccb._lane import LaneCounts
from asynccb._ring import RingWriter

logger = logging.getLogger("asynccb")

RESTARTS: Final = 3
"""Times that a companion which died is started again."""
ORPHAN_TIMEOUT: Final = 600.0
"""Seconds for which an orphaned companion goes on trying to deliver."""


class Companion:
    """Own the ring, the process behind it, and the socket between."""

    def __init__(
        self,
        directory: Path,
        key: str,
        *,
        on_fault: Callable[[str, str], None],
        on_lane_failed: Callable[[str, str], None],
    ) -> None:
        """Start it; raises OSError where there is no memfd or no process to be had."""
        self.directory = directory
        self.ring = RingWriter()
        self.counts: dict[str, LaneCounts] = {}
        self.journaled = 0
        self.alive = False
        self._key = key
        self._on_fault = on_fault
        self._on_lane_failed = on_lane_failed
        self._specs: dict[str, LaneSpec] = {}
        self._starts = 0
        self._flushed = 0
        self._closed: Closed | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start()

    # -- lanes -------------------------------------------------------------------------------------

    def add_lane(self, spec: LaneSpec) -> None:
        """Serve one more callback, from the next record on."""
        self._specs[spec.name] = spec
        self._send(AddLane(spec))

    @property
    def slots_read(self) -> int:
        """Position below which slots may be used again; all of them without a companion."""
        if not self.alive:
            self.poll()
        return self.ring.slots_read if self.alive else sys.maxsize

    # -- watching ----------------------------------------------------------------------------------

    def poll(self) -> None:
        """Hear what the companion has said; start it again if it has died. Never waits."""
        if self.alive:
            self._hear(0.0)
        if not self.alive and self._closed is None:
            self._start_again()

    def wait_for_room(self, written: Callable[[], bool]) -> bool:
        """Call `written` until it returns True; return False where no companion will make room."""
        while not written():
            self.poll()
            if not self.alive:
                return False
            self._hear(0.002)
        return True

    # -- the end -----------------------------------------------------------------------------------

    def flush(self, deadline: float) -> bool:
        """Wait until all that was written is delivered; return False at the deadline."""
        end = self.ring.written
        asked = 0
        while self._flushed < end and time.monotonic() < deadline:
            self.poll()
            if not self.alive:
                break
            if asked != self._starts:  # a companion that was started again has not been asked
                asked = self._starts
                self._send(FlushUpTo(end))
            self._hear(max(0.0, min(0.1, deadline - time.monotonic())))
        return self._flushed >= end

    def close(self, deadline: float, on_wait: Callable[[int], None]) -> dict[str, int]:
        """
        Wait until everything is delivered, and end the process; return what is pending, by lane.

        `on_wait` is called now and then with the number of records that are waiting. Ctrl-C is left
        to the caller: the companion goes on to its deadline.
        """
        self.poll()
        self._send(CloseBy(max(0.0, deadline - time.monotonic())))
        while self._closed is None and self.alive and time.monotonic() < deadline:
            self._hear(max(0.0, min(0.25, deadline - time.monotonic())))
            on_wait(sum(counts.pending for counts in self.counts.values()))
        if self._closed is not None:
            return dict(self._closed.pending)
        written = self.ring.written
        return {name: self._pending(name, written) for name in self._specs}

    def release(self) -> None:
        """Let go of process, socket and ring; the process ends by itself."""
        self._closed = self._closed or Closed({})
        self._hang_up()
        try:
            self._process.wait(0.25)
        except subprocess.TimeoutExpired:
            self._process.kill()  # it has had its deadline
            self._process.wait()
        self.ring.close()

    def abandon(self) -> None:
        """In a forked child: close what was inherited, touch nothing that is shared."""
        self.alive = False
        self._closed = Closed({})
        self._socket.close()
        self._process.returncode = 0  # not ours to wait for
        self.ring.close()

    # -- inside ------------------------------------------------------------------------------------

    def _pending(self, name: str, written: int) -> int:
        counts = self.counts.get(name)
        return written if counts is None else counts.pending + max(0, written - self.journaled)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._starts += 1
        log = os.open(
            self.directory / "companion.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "asynccb._companion",
                    str(self.ring.fd),
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self.ring.fd, theirs.fileno()),
                env=_environment(),
                start_new_session=True,  # the terminal's signals are not for it
            )
        except OSError:
            ours.close()
            raise
        finally:
            os.close(log)
            theirs.close()
        self._socket = ours
        self._unpacker = Unpacker()
        self.alive = True
        paths = [os.path.abspath(path) for path in sys.path]
        self._send(Hello(str(self.directory), self._key, paths, os.getpid(), ORPHAN_TIMEOUT))
        for spec in self._specs.values():
            self._send(AddLane(spec))

    def _start_again(self) -> None:
        if self._starts > RESTARTS:
            return
        logger.warning(
            "the companion process ended with %s; it is started again and goes on from the journal "
            "(its log: %s)",
            self._process.poll(),
            self.directory / "companion.log",
        )
        if self._starts == RESTARTS:
            logger.error(
                "that was the companion's last start; after another end trackers get nothing"
            )
        try:
            self._start()
        except OSError as error:
            logger.error("the companion process cannot be started again: %s", error)

    def _send(self, message: ToCompanion) -> None:
        """Send a message; one that cannot be sent is sent again by the next start, or moot."""
        try:
            self._socket.sendall(pack(message))
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        self.alive = False
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)

    def _hear(self, timeout: float) -> None:
        """Take in what has been said, waiting at most `timeout` seconds for it."""
        if not self.alive or not select.select([self._socket], [], [], timeout)[0]:
            return
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        for body in self._unpacker.feed(data):
            self._take(from_companion(body))
        if not data:
            self._hang_up()

    def _take(self, message: FromCompanion) -> None:
        match message:
            case Notice(level, text):
                logger.log(level, "%s", text)
            case Counts(lanes, journaled):
                self.counts.update(lanes)
                self.journaled = journaled
            case Fault(name, text):
                self._on_fault(name, text)
            case LaneFailed(name, reason):
                self._specs.pop(name, None)
                self._on_lane_failed(name, reason)
            case Flushed(end):
                self._flushed = max(self._flushed, end)
            case Closed():
                self._closed = message
            case Ready():
                pass


def _environment() -> dict[str, str]:
    """Return our environment, with asynccb importable where it is not installed."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        old = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + old if old else "")
    return environment
