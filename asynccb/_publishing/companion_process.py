"""
One start of the companion process, and the socket to it.

Promises: a failed start leaves nothing open. No call waits beyond the time that it was given. A
process that was let go is waited for, so that no zombie stays.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Final

from asynccb._companion.messages import (
    FromCompanion,
    ToCompanion,
    Unpacker,
    from_companion,
    pack,
)

_PATIENCE: Final = 5.0
"""Seconds for which a message may wait for a companion that does not read."""


class Child:
    """One process, and the socket to it."""

    def __init__(self, ring: int, lock: int, log: Path) -> None:
        """
        Start the process with the descriptors of the ring, and of the lock that it shares with us.

        Raises OSError if no process can be started.
        """
        if not sys.executable:
            raise OSError("no Python can run the companion: sys.executable is empty")
        with contextlib.ExitStack() as opened:
            ours, theirs = socket.socketpair()
            opened.callback(theirs.close)
            on_failure = opened.enter_context(contextlib.ExitStack())
            on_failure.callback(ours.close)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            opened.callback(os.close, output)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "asynccb._companion"),
                    *(str(ring), str(theirs.fileno()), str(lock)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(ring, theirs.fileno(), lock),
                env=_environment(),
                start_new_session=True,  # the terminal's signals are not for it
            )
            on_failure.pop_all()
        self._socket = ours
        self._socket.settimeout(_PATIENCE)
        # Not select(), which refuses the descriptors from 1024 on that a training may well have.
        self._poller = select.poll()
        self._poller.register(ours, select.POLLIN)
        self._unpacker = Unpacker()
        self.alive = True
        """Whether the socket is open; the process itself may already have ended."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def descriptor(self) -> int | None:
        """Descriptor that is readable when a message has arrived; None if none ever will."""
        return self._socket.fileno() if self.alive else None

    def send(self, message: ToCompanion) -> None:
        """Send a message; if that is not possible, the child counts as dead."""
        if self.alive:
            try:
                self._socket.sendall(pack(message))
            except TimeoutError:
                self._hang_up()
            except OSError:
                pass  # it is dead: `hear` reads its last messages, and then hangs up

    def hear(self, timeout: float) -> list[FromCompanion]:
        """Return the messages that have arrived, waiting at most `timeout` seconds."""
        if not self.alive:
            return []
        if not self._poller.poll(timeout * 1000):
            # It is dead, and a child of its own holds the socket; unless it has just spoken.
            if self._process.poll() is not None and not self._poller.poll(0):
                self._hang_up()
            return []
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
        return [from_companion(body) for body in self._unpacker.feed(data)]

    def kill(self) -> int:
        """End the process, if it has not ended, and return its exit code, negative for a signal."""
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.05)
        self._process.kill()
        return self._process.wait()

    def leave(self, patience: float) -> None:
        """Hang up, and let the process end by itself; wait at most `patience` seconds for that."""
        self._hang_up()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(RuntimeError):  # no threads any more: we are ending too
                threading.Thread(
                    target=self._process.wait, name="asynccb-wait", daemon=True
                ).start()

    def abandon(self) -> None:
        """In a forked child: close inherited descriptors; only the parent waits for the process."""
        self._hang_up()
        self._process.returncode = 0

    def _hang_up(self) -> None:
        self.alive = False
        self._socket.close()


def _environment() -> dict[str, str]:
    """Return our environment, with asynccb importable even if it is not installed."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        old = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + old if old else "")
    return environment
