"""
The contract of a tracker, written once.

A tracker is a deterministic function from the events of a run to requests. Its lane reads the
journal and, for a group of records at a time, calls

    describe(run)                 once, and again when a run record comes by (a resumed training)
    await on_log(...), ...        for each event: add to the outbox; no input or output here
    await flush()                 send the outbox; return when the server has acknowledged all of it
    await finish(status)          once, after the last record, the outbox empty

and then moves the cursor past the group, with `state()["attributes"]` beside it. After a crash the
same records come again, to a new object with those attributes; a tracker therefore takes every
timestamp, id and offset from the record and its attributes, never from the clock or the dice, and
sends the same bytes again.

What `flush` and `finish` raise decides what happens next: `TransientError`, that they are called
again later, for as long as it takes; `AccessError`, that this tracker gives up and its journal is
kept for `asynccb sync`. A record that the server refuses is the tracker's to set aside, with
`reject`. Anything else is a bug and is handled as the callback's `on_error` says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from asynccb._callback import Placement, Ranks, TrainerCallback
from asynccb._run import RunDescription, RunStatus
from asynccb._state import ExportableState

logger = logging.getLogger("asynccb")


class Tracker(TrainerCallback, ExportableState):
    """
    Send a run's events to an experiment tracker, from the companion process.

    Constructors take every setting as a keyword; None takes the environment variable, read in the
    training process when the tracker is made. Credentials are never constructor arguments: they are
    looked up where they are used, so that no state, journal or `repr` can hold one.
    """

    placement: Placement = "process"
    ranks: Ranks = "world_zero"
    needs_history: bool = False

    name: ClassVar[str]
    """Name in `report_to`."""

    interval: ClassVar[float] = 1.0
    """Seconds for which events are gathered before they are sent together."""

    run: RunDescription
    """The run whose events come; set before the first hook."""

    time: int = 0
    """When the record that a hook is called for was emitted: Unix time in nanoseconds."""

    address: str | None = None
    """Where a person looks at the run, a URL or a directory; set when known."""

    rejected: int = 0
    """Records that were set aside because they can never be delivered."""

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Tell whether `report_to="all"` includes it: its address, key or directory is there."""
        raise NotImplementedError

    def describe(self, run: RunDescription) -> None:
        """Take the description of the run."""
        self.run = run

    async def flush(self) -> None:
        """Send the outbox and return when it is acknowledged; called again after a failure."""
        raise NotImplementedError

    async def finish(self, status: RunStatus) -> None:
        """Mark the run as ended; may be called again after a failure."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of connections and files; called once, in every case, with little time."""

    def state(self) -> dict[str, Any]:
        """Return the settings as `args`, and as `attributes` what a new object needs to go on."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker that goes on where the one that gave the state had come."""
        tracker = cls(**state["args"])
        tracker.restore(state["attributes"])
        return tracker

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take back the attributes that `state()` gave."""
        for name, value in attributes.items():
            setattr(self, name, value)

    def reject(self, what: str, why: str) -> None:
        """Count a record that can never be delivered, and say so."""
        self.rejected += 1
        logger.warning("%s cannot deliver %s: %s", type(self).__name__, what, why)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address or ''}>"
