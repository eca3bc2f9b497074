"""
An event as it travels to the companion and lies in the journal.

A record is a MessagePack array, framed by the ring (`_ring.py`); trailing fields that are empty are
left out, so a log of a few scalars is little more than the scalars. Format version 1: fields and
numbers are only ever appended, because journals outlive the program that wrote them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from asynccb._ground.events import EVENTS, TERMINAL

FORMAT: Final = 1

RUN: Final = 64
"""Kind of a record that describes the run: `extra` holds `args`, `model`, `host` and `process`."""
END: Final = 65
"""Kind of the last record of a run: `extra` holds `status`."""

HISTORY: Final = 66
"""Kind of a record that holds a part of the log history: `extra` has `start` and `entries`."""

LEAVE: Final = 67
"""Kind of the last record for a callback that was removed: `extra` has its lane's name, `lane`."""

LOST: Final = 68
"""Kind of a record that stands for dropped ones: `changes` has what they changed of the state."""

TOLD: Final = 69
"""Kind of a record for one callback alone, from its training side: `logs` has the values, `extra`
the lane and what they are, `lane` and `what`."""

NEVER_DROPPED: Final = frozenset(
    {EVENTS.index(event) for event in TERMINAL} | {RUN, END, HISTORY, LEAVE}
)
"""Kinds of records that are kept where others are dropped for want of room."""

HISTORY_BIT: Final = 1 << 8
"""Set in `flags` where the logs, with the step, were also appended to the log history."""
AGAIN_BIT: Final = 1 << 9
"""Set in `flags` where the event comes again in a resumed run, to those only who decide on it."""
ADDED_BIT: Final = 1 << 10
"""Set in `flags` of logs that a callback of the companion has added, for trackers alone."""


class Record(msgspec.Struct, array_like=True, frozen=True):
    """Hold one event; `kind` below 64 is the event's number in `EVENTS`."""

    kind: int
    time: int
    """Unix time of the emission, in nanoseconds."""
    step: int
    epoch: float
    flags: int
    """Control flags, as `_control.pack_flags` packs them, `HISTORY_BIT` and so on."""
    logs: dict[Any, Any] | None = None
    changes: dict[str, Any] | None = None
    """State fields that changed since the record before."""
    metrics: dict[Any, Any] | None = None
    extra: dict[str, Any] | None = None
    ticket: int = 0
    """What the answers of hooks that decide refer to; 0 where nobody waits for one."""

    @property
    def name(self) -> str:
        """The event's name, or `run`, `end`, `history`, `leave`, `lost`, `told` for the others."""
        if self.kind < len(EVENTS):
            return EVENTS[self.kind]
        others = {RUN: "run", END: "end", HISTORY: "history", LEAVE: "leave", LOST: "lost"}
        others[TOLD] = "told"
        return others.get(self.kind, f"kind {self.kind}")


_decoder = msgspec.msgpack.Decoder(Record)


def decode(payload: bytes) -> Record:
    """Return the record in a payload; raises `msgspec.DecodeError`."""
    return _decoder.decode(payload)
