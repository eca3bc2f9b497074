"""
Metrics that callbacks of the companion add to a run, on the training thread.

Such metrics arrive over the socket. The training thread writes them into the ring as a log for
trackers only, so they have a fixed place in the journal: after a crash every tracker sees the same
numbers at the same steps. The training's own hooks and its history do not see them, so no decision
depends on when they arrived.

Promises: only `settle` waits, and it has a limit; metrics are written at the training thread's next
look at the companion.
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
    from asynccb._publishing.record_writer import RecordWriter
    from asynccb._state.trainer_state import TrainerState

_LAST: Final = 5.0
"""Longest time, in seconds, for which a close waits for the last metrics of a run; half of the
close's own time, if that is less."""


class Offers:
    """The metrics offered to one run that are not written yet."""

    def __init__(self, state: Callable[[], TrainerState]) -> None:
        """Write metrics at the step of what `state` returns at that moment."""
        self._state = state
        self._names: list[str] = []
        self._waiting: deque[Mapping[str, float]] = deque()

    def expect(self, name: str) -> None:
        """Have `settle` wait for the last metrics of this callback."""
        self._names.append(name)

    def post(self, metrics: Mapping[str, float]) -> None:
        """Keep metrics until `write`."""
        self._waiting.append(metrics)

    def write(self, records: RecordWriter) -> None:
        """Write the metrics that have arrived; a full ring that refuses events drops them."""
        while self._waiting:
            with contextlib.suppress(MailboxFullError):  # which the outlet has counted
                records.add(self._waiting.popleft(), self._state())

    def settle(self, companion: Companion, records: RecordWriter, deadline: float) -> None:
        """Before the run's end is written, wait a little for the last metrics and write them."""
        if self._names:
            now = time.monotonic()
            companion.flush(now + min(_LAST, (deadline - now) / 2), tuple(self._names))
        self.write(records)
