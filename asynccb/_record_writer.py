"""
What the companion is told: events as records, and what it must know to understand them.

Promises: a state's fields and the log history are sent once, with the first record after they
changed; a log of a few scalars costs little more than the scalars.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from asynccb._control import pack_flags
from asynccb._log_group import Head, LogGroup
from asynccb._outlet import Outlet
from asynccb._record import END, HISTORY, HISTORY_BIT, LEAVE, RUN
from asynccb._run import RunStatus
from asynccb._state import ChangeTracker, TrainerState
from asynccb.staging import Staging

_HISTORY_PART: Final = 1000
"""Entries of the log history in one record, which must fit into the ring."""


class RecordWriter:
    """Put a run's records into an outlet."""

    def __init__(self, outlet: Outlet, staging: Staging) -> None:
        self._outlet = outlet
        self._staging = staging
        self._changes = ChangeTracker()
        self._wants_history = False
        self._history: list[dict[str, Any]] | None = None
        self._sent = 0
        self._group = LogGroup(staging, outlet.put)

    def send_history(self) -> None:
        """Send the whole log history with the next event: a callback has come that reads it."""
        self._wants_history, self._history = True, None

    def describe(self, run: dict[str, Any]) -> None:
        """Tell what the run is like, from here on; the next event carries the whole state."""
        self._changes = ChangeTracker()
        self._tell(RUN, run)

    def leave(self, lane: str) -> None:
        """Tell that a callback gets no more events."""
        self._tell(LEAVE, {"lane": lane})

    def end(self, status: RunStatus) -> None:
        """Tell that the run has ended."""
        self._outlet.settle()
        self._tell(END, {"status": status})

    def write(
        self,
        number: int,
        now: int,
        state: TrainerState,
        control: Any,
        history: int,
        extra: dict[str, Any],
        ticket: int,
    ) -> bool:
        """
        Write an event's record; return False where it was dropped.

        `history` is the record's bit, or 0; `ticket` is 0 where no decision is waited for.
        """
        self._group.write()
        put = self._outlet.put
        if self._wants_history:
            self._send_history(state, now, 1 if history else 0)
        changes = self._changes.changes(state)
        head = _head(number, now, state, control, history)
        if "logs" in extra and len(extra) == 1 and not ticket:  # nearly always
            logs = self._staging.for_record(extra["logs"])
            return put((*head, logs) if changes is None else (*head, logs, changes))
        rest = dict(extra)
        logs = self._staging.for_record(rest.pop("logs", None))
        record = (*head, logs, changes, rest.pop("metrics", None), rest or None)
        return put((*record, ticket) if ticket else record)

    def put_off(
        self,
        number: int,
        now: int,
        state: TrainerState,
        control: Any,
        logs: Mapping[str, Any],
        made_on: int,
    ) -> bool:
        """
        Append logs to the history now and write their record with others; False if that cannot be.

        Its tensors are fresh ones that were made on the stream `made_on`.
        """
        if self._wants_history or "step" in logs:
            return False
        entry = {**logs, "step": state.global_step}
        state.log_history.append(entry)
        head = _head(number, now, state, control, HISTORY_BIT)
        self._group.add(head, entry, self._changes.changes(state), made_on)
        return True

    def catch_up(self) -> None:
        """Write the records that were put off."""
        self._group.write()

    def _send_history(self, state: TrainerState, now: int, own: int) -> None:
        """Write the entries that no record has carried; the event's `own` one follows with it."""
        entries = state.log_history
        if entries is not self._history:
            self._history, self._sent = entries, 0
        end = len(entries) - own
        while self._sent < end:
            part = entries[self._sent : min(end, self._sent + _HISTORY_PART)]
            self._tell(HISTORY, {"start": self._sent, "entries": part}, now)
            self._sent += len(part)
        self._sent = end + own

    def _tell(self, kind: int, extra: dict[str, Any], now: int | None = None) -> None:
        self._group.write()
        when = time.time_ns() if now is None else now
        self._outlet.put((kind, when, 0, 0.0, 0, None, None, None, extra))


def _head(number: int, now: int, state: TrainerState, control: Any, history: int) -> Head:
    return number, now, state.global_step, state.epoch or 0.0, pack_flags(control) | history
