"""The lanes on the event-loop thread: letters into their mailboxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from asynccb._decisions.tickets import Tickets
from asynccb._ground.exceptions import MailboxFullError
from asynccb._ground.types import RunStatus
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.loop_thread import LoopThread
from asynccb._lanes.mailbox import Letter
from asynccb._lanes.member import Member
from asynccb._lanes.thread_lane import ThreadLane


class ThreadEnd:
    """A `LaneEnd` for the event-loop thread, which starts with the first lane."""

    def __init__(self, tickets: Tickets) -> None:
        """Begin without lanes; a letter that is dropped settles its ticket."""
        self.loop = LoopThread()
        self._tickets = tickets

    def post(self, lanes: Sequence[ThreadLane], letter: Letter, ticket: int) -> None:
        """Put the letter into the lanes' mailboxes; lanes that decide answer to the `ticket`."""
        asking = dataclasses.replace(letter, ticket=ticket) if ticket else letter
        refusal: MailboxFullError | None = None
        for lane in lanes:
            asked = asking if letter.event in lane.deciding else letter
            try:
                if not lane.mailbox.put(asked, self.loop.wake) and asked.ticket:
                    self._tickets.answer(lane.name, ticket, None)
            except MailboxFullError as error:
                refusal = error  # raised once every other lane has the event
        self.loop.wake()
        if refusal is not None:
            raise refusal

    def end_lane(self, member: Member) -> None:
        """Let the lane empty its mailbox, and end."""
        if member.lane is not None:
            self.loop.end_lane(member.lane, "finished")

    def counts_of(self, member: Member) -> LaneCounts:
        """Return the lane's counts of this moment."""
        return LaneCounts() if member.lane is None else member.lane.count()

    def pending(self) -> dict[str, int]:
        """Return the events of lanes that have not ended, by callback."""
        return self.loop.pending()

    def flush(self, deadline: float) -> bool:
        """Wait until every lane is idle; return False at the deadline."""
        return self.loop.wait(lambda lane: lane.idle or lane.done, deadline)

    def begin_close(self, status: RunStatus, deadline: float) -> None:
        """Have every lane end when its mailbox is empty."""
        self.loop.end_lanes(status)

    def close(
        self, status: RunStatus, deadline: float, on_wait: Callable[[], None]
    ) -> dict[str, int]:
        """End every lane by the deadline; return the events that are left, by callback."""
        return self.loop.close(status, deadline, on_wait)

    def release(self) -> None:
        """Stop the thread, whatever its lanes are doing."""
        self.loop.stop()

    def abandon(self) -> None:
        """In a forked child: forget the thread, which does not exist there."""
        self.loop.abandon()
