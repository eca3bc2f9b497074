"""
The answers of hooks that decide, as they reach the training thread.

Promises: the wait sleeps until an answer arrives from the event-loop thread or the companion. A
callback whose lane has ended is not waited for.
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
"""Longest time, in seconds, between two checks whether the callbacks that are to decide live."""


class Answers:
    """The open tickets of one run, and the knowledge of who can still answer them."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        """`members` are the callbacks with lanes, by name."""
        self.tickets = Tickets()
        self._members = members
        self._companion: Companion | None = None
        self._silent: set[str] = set()

    def connect(self, companion: Companion) -> None:
        """Listen to the companion too, from here on."""
        self._companion = companion

    def listen(self, missing: Sequence[Ticket], timeout: float) -> None:
        """
        Wait for answers to the tickets for at most `timeout` seconds, and return at the first one.

        Tickets of callbacks that will never answer are settled as lost.
        """
        if self._companion is not None:
            self._companion.poll()
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
        """Note that a callback's lane in the companion has ended for good."""
        self._silent.add(name)
        self.tickets.lose([name])

    def lose_record(self) -> None:
        """Settle all tickets of the companion as lost: the event has not reached it."""
        self.tickets.lose(name for name, member in self._members.items() if member.in_companion)

    def _sleep(self, bell: socket.socket, timeout: float) -> None:
        poller = select.poll()  # select() refuses descriptors from 1024 on
        poller.register(bell, select.POLLIN)
        if self._companion is not None and self._companion.descriptor is not None:
            poller.register(self._companion.descriptor, select.POLLIN)
        poller.poll(timeout * 1000)

    def _can_answer(self, name: str) -> bool:
        member = self._members.get(name)
        if member is None or name in self._silent:
            return False
        if member.lane is not None:
            return not member.lane.done
        return self._companion is not None and not self._companion.given_up
