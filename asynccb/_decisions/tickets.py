"""
Decisions that were asked for and are not in: answered on any thread, waited for on one.

Promises: the first answer to a ticket counts; later ones are ignored. A thread that waits sleeps in
`poll`, and an answer wakes it. While no thread waits, an answer costs a look in a dict.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from asynccb._decisions.schedule import Ticket
from asynccb._state.control import Decision


class Tickets:
    """The open tickets of one run."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Ticket] = {}
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._asleep = False

    def add(self, ticket: Ticket) -> None:
        """Open a ticket; before anyone can answer it."""
        self._open[ticket.name, ticket.emission] = ticket

    def answer(self, name: str, emission: int, decision: Decision | None) -> None:
        """
        Settle a ticket, on any thread; None means that no decision will come.

        Does nothing if the ticket is settled already.
        """
        ticket = self._open.pop((name, emission), None)
        if ticket is None:
            return
        if decision is None:
            ticket.lose()
        else:
            ticket.settle(decision, "decided")
        if self._asleep and self._bell is not None:
            with contextlib.suppress(OSError):  # full of rings already, or closed
                self._bell[1].send(b"\0")

    def close(self, ticket: Ticket) -> bool:
        """Take no answer to a ticket any more; tell whether none has come."""
        return self._open.pop((ticket.name, ticket.emission), None) is not None

    def lose(self, names: Iterable[str]) -> None:
        """Settle the open tickets of callbacks that will not answer any more."""
        gone = set(names)
        for name, emission in list(self._open):
            if name in gone:
                self.answer(name, emission, None)

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """Give a socket that becomes readable when a ticket is answered meanwhile."""
        if self._bell is None:
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
        self._asleep = True
        try:
            yield self._bell[0]
        finally:
            self._asleep = False
            with contextlib.suppress(BlockingIOError):
                while self._bell[0].recv(4096):
                    pass

    def release(self) -> None:
        """Let go of the sockets."""
        bell, self._bell = self._bell, None
        for end in bell or ():
            end.close()
