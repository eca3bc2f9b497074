"""
Metrics that callbacks of the companion add to a run, on the training thread.

What such a callback measures comes through the socket and goes into the ring as a log that only
trackers get, from where it is journaled, in its place among the events, like everything else: after
a crash each tracker has the same numbers at the same steps. The training's own hooks and its
history do not see it, so that nothing which it decides depends on when that came.

Promises: nothing here waits but `settle`, for which there is a limit; what comes is written when
the training thread comes by.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from asynccb._ground.exceptions import MailboxFullError
from asynccb._publishing.companion import Companion

if TYPE_CHECKING:
    from asynccb._lanes.member import Member
    from asynccb._publishing.record_writer import RecordWriter
    from asynccb._state.trainer_state import TrainerState

_LAST: Final = 5.0
"""Longest time, in seconds, for which a close waits for the last metrics of a run; half of what it
has, if that is less."""


class Offers:
    """Take what is offered to one dispatcher's run."""

    def __init__(self, records: Callable[[], RecordWriter | None]) -> None:
        """Take what returns the writer of the companion's records, once there is one."""
        self._records = records
        self._names: list[str] = []
        self._waiting: deque[Mapping[str, float]] = deque()

    def add(self, member: Member, state: Callable[[], TrainerState]) -> None:
        """Expect metrics of a callback that has any; `state` returns the state of the moment."""
        if getattr(member.callback, "offers", False) and member.in_companion:
            self._names.append(member.name)
            self._state = state

    def post(self, metrics: Mapping[str, float]) -> None:
        """Keep metrics until `write`."""
        self._waiting.append(metrics)

    def write(self) -> None:
        """Write what has come; where the ring is full and events are refused, it is dropped."""
        records = self._records()
        while self._waiting and records is not None:
            with contextlib.suppress(MailboxFullError):  # which the outlet has counted
                records.add(self._waiting.popleft(), self._state())

    def settle(self, companion: Companion, deadline: float) -> None:
        """Before the run's end is written, write the last that comes, waiting a little for it."""
        if self._names:
            now = time.monotonic()
            companion.flush(now + min(_LAST, (deadline - now) / 2), tuple(self._names))
        self.write()
