"""
Which decisions are due at which boundary.

Promises: decisions apply in the order of the events and, within an event, of the callbacks; the
order of arrival does not matter. A decision is taken once, at its boundary; if the loop has jumped
over that boundary, at the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from asynccb._compiled.shared import Shared
from asynccb._lanes.routes import Decider
from asynccb._state.control import NO_OPINION, Decision
from asynccb.callbacks.decides import Deciding

Outcome: TypeAlias = Literal["decided", "skipped", "lost"]
"""A decision came in (perhaps without an opinion), was not waited for, or can never come."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One decision that a callback was asked for."""

    emission: int
    """Number of the event, from 1 on, counting only events that ask for decisions."""
    position: int
    """Place of the callback among the callbacks."""
    name: str
    event: str
    step: int
    """`global_step` as the hook sees it."""
    due: int
    """Step at whose boundary it is applied."""
    terms: Deciding
    decision: Decision = NO_OPINION
    outcome: Outcome | None = None
    """None while the ticket is open; set after `decision`, since another thread looks."""
    waited: float = 0.0
    """Seconds for which the training waited for it."""

    @classmethod
    def to(cls, decider: Decider, emission: int, event: str, step: int) -> Self:
        """Return the ticket of a callback that decides on an event of this step."""
        terms = decider.terms
        return cls(emission, decider.position, decider.name, event, step, step + terms.lag, terms)

    def settle(self, decision: Decision, outcome: Outcome) -> None:
        """Settle the ticket with the answer."""
        self.decision = decision
        self.outcome = outcome

    def lose(self) -> None:
        """Settle the ticket without an answer: none will come, or none is wanted."""
        self.settle(NO_OPINION, "lost")


class Schedule:
    """The tickets that are not due yet."""

    def __init__(self, shared: Shared) -> None:
        """Begin without tickets; a ticket ends that the boundaries of `shared` are quiet."""
        self._shared = shared
        self.waiting: list[Ticket] = []
        """All tickets, in any order."""

    @property
    def tickets(self) -> list[Ticket]:
        """All tickets, in the order in which they apply within a boundary."""
        return sorted(self.waiting, key=_order)

    def add(self, tickets: Iterable[Ticket]) -> None:
        """Add tickets: new ones, or tickets that were taken in vain."""
        self.waiting.extend(tickets)
        self._shared.quiet = False

    def take(self, step: int) -> list[Ticket]:
        """Take out the tickets that are due at the boundary of a step or before, in order."""
        if not self.waiting:  # nearly always
            return []
        return self._take([ticket for ticket in self.waiting if ticket.due <= step])

    def take_prompt(self, emission: int) -> list[Ticket]:
        """Take out the tickets that the event itself waits for, in order."""
        return self._take(
            [
                ticket
                for ticket in self.waiting
                if ticket.emission == emission and not ticket.terms.lag
            ]
        )

    def _take(self, taken: list[Ticket]) -> list[Ticket]:
        if taken:
            self.waiting = [ticket for ticket in self.waiting if ticket not in taken]
        return sorted(taken, key=_order)


def _order(ticket: Ticket) -> tuple[int, int]:
    return ticket.emission, ticket.position


def fingerprint(*what: object) -> int:
    """Return 63 bits that stand for plain values; ranks compare them."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
