"""
Hearing what the lanes have decided, on the training thread.

Promises: the wait sleeps, and is woken by an answer from the event-loop thread or from the
companion; a callback that will not answer any more holds nobody up.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from asynccb._decisions.schedule import Ticket
from asynccb._decisions.tickets import Tickets
from asynccb._lanes.member import Member
from asynccb._publishing.companion import Companion

_LOOK: Final = 0.5
"""Longest time, in seconds, between two looks whether those who are to decide still live."""


class Listening:
    """Own the open tickets of one dispatcher, and know who can still answer."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        """Take all callbacks with lanes."""
        self.tickets = Tickets()
        self.companion: Companion | None = None
        self._members = members
        self._silent: set[str] = set()

    def listen(self, missing: Sequence[Ticket], timeout: float) -> None:
        """
        Take in answers, for at most `timeout` seconds; return earlier where one may have come.

        The tickets of those who will never answer are settled as lost.
        """
        if self.companion is not None:
            self.companion.poll()
        names = {ticket.name for ticket in missing}
        self.tickets.lose(name for name in names if not self._can_answer(name))
        if timeout <= 0:
            return
        for name in names:
            if (lane := self._members[name].lane) is not None:
                lane.hurry()
        with self.tickets.listening() as bell:
            if all(ticket.outcome is None for ticket in missing):
                self._sleep(bell, min(timeout, _LOOK))

    def fall_silent(self, name: str) -> None:
        """Take it that a callback's lane in the companion has ended for good."""
        self._silent.add(name)
        self.tickets.lose([name])

    def lose_record(self) -> None:
        """Lose what was asked of the companion: the event has not reached it."""
        self.tickets.lose(name for name, member in self._members.items() if member.in_companion)

    def _sleep(self, bell: socket.socket, timeout: float) -> None:
        poller = select.poll()  # select() refuses descriptors from 1024 on
        poller.register(bell, select.POLLIN)
        if self.companion is not None and self.companion.descriptor is not None:
            poller.register(self.companion.descriptor, select.POLLIN)
        poller.poll(timeout * 1000)

    def _can_answer(self, name: str) -> bool:
        member = self._members.get(name)
        if member is None or name in self._silent:
            return False
        if member.lane is not None:
            return not member.lane.done
        return self.companion is not None and not self.companion.given_up
