"""
The end of a dispatcher: one deadline over everything, and an honest last line.

Promises: the close returns within the deadline and half a second. Ctrl-C ends it earlier, and is
raised again once everything is released, without a frame of ours in what Python prints. The last
lines name the events that are left, by callback, and the command that delivers them.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Final

from asynccb._decisions.trace import Trace
from asynccb._dispatch.statistics import Statistics
from asynccb._ground.interruption import hide_own_frames
from asynccb._ground.types import RunStatus
from asynccb._journal.sync_command import sync_command
from asynccb._publishing.publisher import Publisher

_PATIENCE: Final = 1.0
"""Seconds after which a close that is still waiting says for whom."""
_AGAIN: Final = 0.5
"""Seconds between two such lines on a terminal, where each takes the place of the one before."""
_AGAIN_IN_A_LOG: Final = 10.0


def close_publisher(
    publisher: Publisher,
    statistics: Callable[[], Statistics],
    timeout: float,
    status: RunStatus,
    trace: Trace,
) -> None:
    """Close the lanes, print the summary, and let go of everything."""
    deadline = time.monotonic() + timeout
    progress = _Progress(publisher, deadline)
    pending: dict[str, int] | None = None
    interrupted = False
    try:
        try:
            pending = publisher.close(status, deadline, progress.show)
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            progress.clear()
            left = publisher.pending() if pending is None else pending
            _sum_up(publisher, statistics(), left, trace, interrupted=interrupted)
    except KeyboardInterrupt as error:
        hide_own_frames(error)
        raise
    finally:
        publisher.release()


def _sum_up(
    publisher: Publisher,
    counted: Statistics,
    pending: dict[str, int],
    trace: Trace,
    *,
    interrupted: bool,
) -> None:
    kept = {name: count for name, count in pending.items() if publisher.is_journaled(name)}
    if counted.callbacks:
        _say(f"{counted.summary(pending, list(kept))}\n")
    command = sync_command(publisher.directory) if kept else None
    if interrupted:
        lost = {name: count for name, count in pending.items() if name not in kept}
        parts = ["asynccb: Ctrl-C ended the wait for delivery"]
        if lost:
            parts.append(f"lost are {_counted(lost, 'events')}")
        if kept:
            parts.append(f"kept are {_counted(kept, 'records')}; to deliver them: {command}")
        if not pending:
            parts.append("nothing is left to deliver")
        _say("; ".join(parts) + "\n")
    elif kept:
        _say(f"asynccb: to deliver what is left of {', '.join(kept)}: {command}\n")
    if trace.exists:
        _say(f"asynccb: replay={str(trace.path)!r} repeats the decisions of this run\n")


def _counted(counts: dict[str, int], unit: str) -> str:
    return ", ".join(f"{count} {unit} of {name}" for name, count in counts.items())


def _say(text: str) -> None:
    """Write to standard error, which may be closed by now."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


class _Progress:
    """Say, once a close takes long, for whom it waits."""

    def __init__(self, publisher: Publisher, deadline: float) -> None:
        self._publisher = publisher
        self._deadline = deadline
        self._next = time.monotonic() + _PATIENCE
        self._width = 0

    def show(self) -> None:
        """Print the line, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        waiting = ", ".join(
            f"{name} ({count} events)" for name, count in self._publisher.pending().items()
        )
        line = (
            f"asynccb: waiting for {waiting or 'the last acknowledgements'}; "
            f"{max(0.0, self._deadline - now):.0f} s left, Ctrl-C ends it"
        )
        if sys.stderr is not None and sys.stderr.isatty():
            self._next = now + _AGAIN
            _say(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        else:
            self._next = now + _AGAIN_IN_A_LOG
            _say(f"{line}\n")

    def clear(self) -> None:
        """End the line that was written over and over."""
        if self._width:
            _say("\n")
