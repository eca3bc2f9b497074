"""
The two places where lanes live, and the one protocol that the publisher uses for both.

`companion_end.py` is the companion; `thread_end.py` is the event-loop thread. An event
reaches them in different forms, so publishing is not part of the protocol: the companion gets a
record in its ring, the thread a letter in the mailbox of each lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from asynccb._ground.types import RunStatus
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.member import Member


class LaneEnd(Protocol):
    """The training thread's end of the lanes in one place."""

    def end_lane(self, member: Member) -> None:
        """Let one lane deliver its events, and end."""

    def counts_of(self, member: Member) -> LaneCounts:
        """Return a lane's counts, as far as this process knows."""

    def pending(self) -> dict[str, int]:
        """Return the events that are not known to be delivered, by callback."""

    def flush(self, deadline: float) -> bool:
        """Wait until everything posted is delivered; return False at the deadline."""

    def begin_close(self, status: RunStatus, deadline: float) -> None:
        """Announce the end, without waiting, so that all places come to their end at once."""

    def close(
        self, status: RunStatus, deadline: float, on_wait: Callable[[], None]
    ) -> dict[str, int]:
        """End every lane by the deadline; return the events that are left, by callback."""

    def release(self) -> None:
        """Let go of threads, processes and memory."""

    def abandon(self) -> None:
        """In a forked child: let go of everything that belongs to the parent."""
