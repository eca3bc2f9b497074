"""
The part of a tracker that stays in the training process.

Promises: what it tells goes through the ring and the journal like an event, to its own tracker
alone, in order with the events around it; telling waits for nothing but a full ring. A rank that
does not serve the tracker tells nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from asynccb.callbacks.training_side import TrainingSide

if TYPE_CHECKING:
    from asynccb._lanes.member import Member
    from asynccb._publishing.record_writer import RecordWriter
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")


class TrainingSides:
    """Connect them to their lanes."""

    def __init__(self, records: Callable[[], RecordWriter | None]) -> None:
        """Take what returns the writer of the companion's records, once there is one."""
        self._records = records
        self._sides: list[TrainingSide] = []

    def add(self, member: Member, state: Callable[[], TrainerState]) -> None:
        """Connect a callback's side, if it has one; `state` returns the state of the moment."""
        side: TrainingSide | None = getattr(member.callback, "training_side", None)
        if side is None:
            return
        deaf = False

        def tell(what: str, values: Mapping[str, Any]) -> None:
            nonlocal deaf
            records = self._records()
            if records is not None and member.in_companion:
                records.tell(member.name, what, values, state())
            elif not deaf:
                deaf = True
                logger.warning("%s gets no %s: that needs the companion", member.name, what)

        side.tell = tell
        side.open()
        self._sides.append(side)

    def drain(self, *, whole: bool = False) -> None:
        """Have each tell what has gathered."""
        for side in self._sides:
            side.drain(whole=whole)

    def close(self) -> None:
        """Let go of all."""
        for side in self._sides:
            side.close()
            side.tell = None
        self._sides.clear()
