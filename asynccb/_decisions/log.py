"""
The log of decisions: they are counted, reported and traced.

Promises: each decision that is applied, lost or late has its line. The trace begins with a
description of the run, and only a trace with the same description is replayed.
"""

from __future__ import annotations

import logging
from collections import Counter

from asynccb._decisions.replay import Replay
from asynccb._decisions.schedule import Ticket
from asynccb._decisions.trace import FORMAT, Entry, Header, Trace
from asynccb._ground.events import Event
from asynccb._lanes.registry import Registry
from asynccb._state.control import Decision

logger = logging.getLogger("asynccb")


class DecisionLog:
    """The writer of one run's decisions."""

    def __init__(
        self, trace: Trace, replay: Replay | None, registry: Registry, seed: object
    ) -> None:
        """Write to `trace`; `replay` is another run's, `registry` names the hooks that decide."""
        self._trace = trace
        self._replay = replay
        self._registry = registry
        self._seed = seed if isinstance(seed, int) else None
        self._header: Header | None = None
        self._lost: set[str] = set()
        self.decided: Counter[str] = Counter()
        """Decisions with an opinion that were applied, by callback."""

    def identify(self, max_steps: int) -> None:
        """Describe this run; raise `TraceError` if the replayed trace is another run's."""
        # Only once there is a decision: boundaries without any are passed by.
        if self._header is None:
            self._header = Header(FORMAT, self._registry.deciders, max_steps, self._seed)
            if self._replay is not None:
                self._replay.check(self._header)

    def note(self, ticket: Ticket, step: int, training: int) -> None:
        """Count and trace a decision that is applied at a step, or will never be."""
        opinions = ticket.decision.opinions
        if ticket.outcome == "lost" and ticket.name not in self._lost:
            self._lost.add(ticket.name)
            logger.warning(
                "%s does not decide any more: it was removed or disabled, or its lane has ended "
                "(said once; the trace has each decision that is lost)",
                ticket.name,
            )
        if not opinions and ticket.outcome == "decided":
            return
        self.decided[ticket.name] += ticket.outcome == "decided"
        self._write(
            Entry(
                step,
                ticket.event,
                ticket.step,
                ticket.name,
                opinions,
                ticket.outcome or "decided",
                round(ticket.waited, 6),
                ticket.emission,
                training,
            )
        )

    def note_other(
        self, callback: str, decision: Decision, step: int, emission: int, training: int
    ) -> None:
        """Trace a decision from outside or from other ranks."""
        self._write(
            Entry(
                step,
                Event.STEP_END,
                step,
                callback,
                decision.opinions,
                "decided",
                0.0,
                emission,
                training,
            )
        )

    def _write(self, entry: Entry) -> None:
        assert self._header is not None
        self._trace.write(self._header, entry)
