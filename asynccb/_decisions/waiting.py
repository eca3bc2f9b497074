"""
Waiting for decisions that are due, on the training thread.

Promises: nothing blocks where all are in; past a callback's limit a warning names it, its event and
step, and its `on_late` is obeyed; Ctrl-C ends the wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from asynccb._decisions.schedule import Ticket
from asynccb._decisions.tickets import Tickets
from asynccb._ground.exceptions import LateDecisionError
from asynccb._state.control import NO_OPINION

logger = logging.getLogger("asynccb")


class Waiting:
    """Wait for tickets, and count the cost of waiting by callback."""

    def __init__(self, tickets: Tickets, listen: Callable[[Sequence[Ticket], float], None]) -> None:
        """
        Take the open tickets, and how to wait for answers.

        `listen(missing, timeout)` returns when a ticket may have been answered, at the latest after
        `timeout` seconds; with a timeout of 0 it only takes in answers that are there.
        """
        self._tickets = tickets
        self._listen = listen
        self._skipping: set[str] = set()
        self.waited: dict[str, float] = {}
        """Seconds for which the training has waited, by callback."""
        self.late: dict[str, int] = {}
        """Decisions that were not in at their limit, by callback."""

    def wait(self, due: Sequence[Ticket]) -> None:
        """Return when every ticket is settled; may raise `LateDecisionError`."""
        missing = _missing(due)
        if missing:
            self._listen(missing, 0.0)
            missing = _missing(missing)
        if missing:
            self._block(missing)

    def _block(self, missing: list[Ticket]) -> None:
        begin = time.monotonic()
        alarms = {ticket: ticket.terms.limit for ticket in missing}
        while missing:
            passed = time.monotonic() - begin
            for ticket in missing:
                if passed >= alarms[ticket]:
                    first = alarms[ticket] == ticket.terms.limit
                    alarms[ticket] = 2 * passed
                    self._be_late(ticket, passed, first)
            still = _missing(missing)
            if len(still) == len(missing):
                self._listen(missing, max(0.0, min(alarms[ticket] for ticket in missing) - passed))
                passed, still = time.monotonic() - begin, _missing(missing)
            for ticket in missing:
                if ticket.outcome is not None:
                    ticket.waited = passed
                    self.waited[ticket.name] = self.waited.get(ticket.name, 0.0) + passed
            missing = still

    def _be_late(self, ticket: Ticket, passed: float, first: bool) -> None:
        name, policy = ticket.name, ticket.terms.on_late
        what = f"the decision of {name}.{ticket.event} of step {ticket.step} is not in"
        if first:
            self.late[name] = self.late.get(name, 0) + 1
        if policy == "wait":
            logger.warning("%s after %.1f s, and the training waits for it", what, passed)
            return
        if not self._tickets.close(ticket):
            return  # it is being answered at this very moment
        ticket.settle(NO_OPINION, "skipped")
        if policy == "raise":
            raise LateDecisionError(
                f"{what} after {passed:.1f} s, and it says on_late='raise'; give it a greater "
                "limit or lag, or on_late='wait' or 'skip'"
            )
        if name not in self._skipping:
            self._skipping.add(name)
            logger.warning(
                "%s after %.1f s, and the training goes on without it (said once; statistics() "
                "counts it, and the trace has it)",
                what,
                passed,
            )


def _missing(tickets: Sequence[Ticket]) -> list[Ticket]:
    return [ticket for ticket in tickets if ticket.outcome is None]
