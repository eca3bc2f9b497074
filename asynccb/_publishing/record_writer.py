"""
The records for the companion: events, and the state that is needed to understand them.

Promises: a state's fields and the log history are sent once, with the first record after they
changed. A log of a few scalars costs little more than the scalars.
"""

from __future__ import annotations

import operator
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from asynccb._compiled.shared import Shared
from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import ConfigurationError
from asynccb._ground.types import RunStatus
from asynccb._publishing.outlet import Outlet
from asynccb._ring.record import ADDED_BIT, END, HISTORY, HISTORY_BIT, LEAVE, RUN, TOLD
from asynccb._staging.staged_logs import StagedLogs
from asynccb._staging.staging import Staging
from asynccb._state.control import pack_flags
from asynccb._state.snapshot import ChangeTracker
from asynccb._state.trainer_state import TrainerState

_LOG: Final = EVENTS.index(Event.LOG)
_HISTORY_PART: Final = 1000
"""Entries of the log history in one record, which must fit into the ring."""


class RecordWriter:
    """The writer of one run's records."""

    def __init__(
        self, outlet: Outlet, staging: Staging, changes: ChangeTracker, shared: Shared
    ) -> None:
        """
        Write to the outlet, which forgets the `changes` with each record that it drops.

        `shared` says how much of the history is sent, since `KnownLogs` sends entries too.
        """
        self._outlet = outlet
        self._staging = staging
        self._changes = changes
        self._training = secrets.token_hex(16)
        self._shared = shared

    def send_history(self) -> None:
        """Send the whole log history with the next event: a callback has come that reads it."""
        self._shared.wants_history, self._shared.history = True, None

    def describe(self, run: dict[str, Any]) -> None:
        """Write a description of the run; the next event carries the whole state."""
        self._changes.forget()
        self._tell(RUN, {**run, "training": self._training})

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
        logs: Any,
        others: dict[str, Any] | None = None,
        ticket: int = 0,
    ) -> bool:
        """
        Write an event's record; return False if it was dropped.

        `history` is `HISTORY_BIT`, `AGAIN_BIT` or 0; `others`, which is changed, contains the
        event's keywords except `logs`; `ticket` is 0 if no decision is asked for. Raises
        `ConfigurationError` unless the state's step and epoch are numbers.
        """
        step, epoch = state.global_step, state.epoch or 0.0
        if type(step) is not int or type(epoch) is not float:
            step, epoch = _whole(step), _real(epoch)
        if self._shared.wants_history:
            self._send_history(state, now, 1 if history & HISTORY_BIT else 0)
        changes = self._changes.changes(state)
        staged = False
        if type(logs) is StagedLogs:  # or it would be a call for nothing, nearly always
            logs, staged = self._staging.for_record(logs)
        head = number, now, step, epoch, pack_flags(control) | history, logs
        if others or ticket:
            rest = others or {}
            record = (*head, changes, rest.pop("metrics", None), rest or None)
            return self._outlet.put((*record, ticket) if ticket else record, staged)
        return self._outlet.put(head if changes is None else (*head, changes), staged)

    def tell(self, lane: str, what: str, values: Mapping[str, Any], state: TrainerState) -> None:
        """Write values from a callback's training side for its lane; they may be staged."""
        logs, staged = self._staging.for_record(self._staging.plain(values))
        head = (TOLD, time.time_ns(), state.global_step, state.epoch or 0.0, 0)
        self._outlet.put((*head, logs, None, None, {"lane": lane, "what": what}), staged)

    def add(self, metrics: Mapping[str, float], state: TrainerState) -> None:
        """Write metrics of a callback in the companion, as a log for trackers alone."""
        head = (_LOG, time.time_ns(), state.global_step, state.epoch or 0.0, ADDED_BIT)
        self._outlet.put((*head, dict(metrics)))

    def _send_history(self, state: TrainerState, now: int, own: int) -> None:
        """Write the entries that no record has carried; the event's `own` one follows with it."""
        entries, shared = state.log_history, self._shared
        if entries is not shared.history:
            shared.history, shared.sent = entries, 0
        end = len(entries) - own
        while shared.sent < end:
            part = entries[shared.sent : min(end, shared.sent + _HISTORY_PART)]
            self._tell(HISTORY, {"start": shared.sent, "entries": part}, now)
            shared.sent += len(part)
        shared.sent = end + own

    def _tell(self, kind: int, extra: dict[str, Any], now: int | None = None) -> None:
        when = time.time_ns() if now is None else now
        self._outlet.put((kind, when, 0, 0.0, 0, None, None, None, extra))


def _whole(step: Any) -> int:
    """Return a step as an integer, which a loop may have as one of NumPy."""
    try:
        return operator.index(step) + 0  # True is 1
    except TypeError:
        raise ConfigurationError(
            f"state.global_step is {step!r}, and trackers need an integer; set it to one"
        ) from None


def _real(epoch: Any) -> float:
    """Return an epoch as a float."""
    try:
        return float(epoch)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"state.epoch is {epoch!r}, and trackers need a number; set it to one"
        ) from None
