"""
The record of an event, as sent to the companion and stored in the journal.

A record is a MessagePack array, framed by the ring (`ring.py`). Empty trailing fields are left out,
so a log of a few scalars is little more than the scalars. Format version 1: fields and numbers are
only ever appended, because journals outlive the program that wrote them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from asynccb._ground.events import EVENTS, TERMINAL

FORMAT: Final = 1

RUN: Final = 64
"""Kind of a record that describes the run: `extra` has `args`, `model`, `host` and `process`."""
END: Final = 65
"""Kind of a run's last record: `extra` has `status`."""

HISTORY: Final = 66
"""Kind of a record with a part of the log history: `extra` has `start` and `entries`."""

LEAVE: Final = 67
"""Kind of a removed callback's last record: `extra` has the name of its lane as `lane`."""

LOST: Final = 68
"""Kind of a record that replaces dropped records: `changes` has their changes of the state."""

TOLD: Final = 69
"""Kind of a record for a single callback, from its training side: `logs` has the values, `extra`
has the name of the lane as `lane` and the name of the values as `what`."""

NEVER_DROPPED: Final = frozenset(
    {EVENTS.index(event) for event in TERMINAL} | {RUN, END, HISTORY, LEAVE}
)
"""Kinds of records that are kept when others are dropped for lack of room."""

HISTORY_BIT: Final = 1 << 8
"""Set in `flags` if the logs, with their step, were also appended to the log history."""
AGAIN_BIT: Final = 1 << 9
"""Set in `flags` if a resumed run emits the event again, for deciding callbacks only."""
ADDED_BIT: Final = 1 << 10
"""Set in `flags` of logs that a callback in the companion has added, for trackers only."""


class Record(msgspec.Struct, array_like=True, frozen=True):
    """The record of one event; a `kind` below 64 is the event's index in `EVENTS`."""

    kind: int
    time: int
    """Unix time of the emission, in nanoseconds."""
    step: int
    epoch: float
    flags: int
    """Control flags, packed by `pack_flags` in `_state/control.py`, and `HISTORY_BIT` and so on."""
    logs: dict[Any, Any] | None = None
    changes: dict[str, Any] | None = None
    """State fields that changed since the previous record."""
    metrics: dict[Any, Any] | None = None
    extra: dict[str, Any] | None = None
    ticket: int = 0
    """The number that answers of deciding hooks refer to; 0 if nothing waits for an answer."""

    @property
    def name(self) -> str:
        """The event's name, or `run`, `end`, `history`, `leave`, `lost`, `told` for other kinds."""
        if self.kind < len(EVENTS):
            return EVENTS[self.kind]
        others = {RUN: "run", END: "end", HISTORY: "history", LEAVE: "leave", LOST: "lost"}
        others[TOLD] = "told"
        return others.get(self.kind, f"kind {self.kind}")


_decoder = msgspec.msgpack.Decoder(Record)


def decode(payload: bytes) -> Record:
    """Decode a payload; raise `msgspec.DecodeError` if it is not a record."""
    return _decoder.decode(payload)
