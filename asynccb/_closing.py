"""
The end of a dispatcher: one deadline over everything, and an honest last line.

Promises: returns within the deadline and half a second; Ctrl-C cuts it short and is raised again
when all is let go; what is left is said by callback, with the command that delivers it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from asynccb._publisher import Publisher
from asynccb._run import RunStatus
from asynccb._statistics import Statistics

_PATIENCE: Final = 2.0
"""Seconds after which a close that is still waiting says so."""


def close_publisher(
    publisher: Publisher,
    statistics: Callable[[], Statistics],
    timeout: float,
    status: RunStatus,
) -> None:
    """Close the lanes, print the summary, and let go of everything."""
    begin = time.monotonic()
    progress = _Progress(begin, timeout)
    interrupted: KeyboardInterrupt | None = None
    try:
        pending = publisher.close(status, begin + timeout, progress.show)
    except KeyboardInterrupt as interrupt:
        interrupted = interrupt
        pending = {
            name: counts.pending for name, counts in publisher.counts().items() if counts.pending
        }
    progress.clear()
    counted = statistics()
    if counted.callbacks:
        print(counted.summary(pending), file=sys.stderr)
    in_journal = [name for name in pending if publisher.is_journaled(name)]
    if in_journal:
        print(
            f"asynccb: to deliver what is left of {', '.join(in_journal)}: "
            f"asynccb sync {publisher.directory}",
            file=sys.stderr,
        )
    publisher.release()
    if interrupted is not None:
        raise interrupted


class _Progress:
    """Say on the terminal, once a close takes long, how much is waiting."""

    def __init__(self, begin: float, timeout: float) -> None:
        self._begin = begin
        self._timeout = timeout
        self._shown = False

    def show(self, waiting: int) -> None:
        passed = time.monotonic() - self._begin
        if passed >= _PATIENCE and sys.stderr.isatty():
            self._shown = True
            line = f"asynccb: {waiting} events to deliver, {self._timeout - passed:.0f} s left"
            print(f"\r{line} (Ctrl-C to leave them in the journal)", end="", file=sys.stderr)

    def clear(self) -> None:
        if self._shown:
            print(file=sys.stderr)
