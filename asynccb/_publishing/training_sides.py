"""
The training sides of trackers, connected to their lanes.

Promises: the values of a side go through the ring and the journal like an event, to its own tracker
alone, in order with the events around it; only a full ring makes telling wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from asynccb.callbacks.tracking import training_side
from asynccb.callbacks.training_side import TrainingSide

if TYPE_CHECKING:
    from asynccb._lanes.member import Member
    from asynccb._publishing.record_writer import RecordWriter
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")


class TrainingSides:
    """The sides of one run's trackers."""

    def __init__(
        self, records: Callable[[], RecordWriter | None], state: Callable[[], TrainerState]
    ) -> None:
        """
        Begin without sides.

        `records` returns the writer of the companion's records, once there is one; `state` returns
        the state of the moment.
        """
        self._records = records
        self._state = state
        self._sides: list[tuple[Member, TrainingSide]] = []

    def add(self, member: Member) -> None:
        """Connect and open a callback's side, if it has one."""
        side = training_side(member.callback)
        if side is None:
            return
        warned = False

        def tell(what: str, values: Mapping[str, Any]) -> None:
            nonlocal warned
            records = self._records()
            if records is not None and member.in_companion:
                records.tell(member.name, what, values, self._state())
            elif not warned:
                warned = True
                _say_untold(member, what)

        side.tell = tell
        side.open()
        self._sides.append((member, side))

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return what the sides say of this process, by the names of their trackers."""
        said: dict[str, dict[str, Any]] = {}
        for member, side in self._sides:
            if values := side.describe():
                if member.in_companion:
                    said[member.name] = values
                else:
                    _say_untold(member, ", ".join(values))
        return said

    def drain(self, *, whole: bool = False) -> None:
        """Have each side send the values that it has gathered."""
        for _, side in self._sides:
            side.drain(whole=whole)

    def close(self) -> None:
        """Close all sides and let go of them."""
        for _, side in self._sides:
            side.close()
            side.tell = None
        self._sides.clear()


def _say_untold(member: Member, what: str) -> None:
    logger.warning("%s gets no %s: that needs the companion", member.name, what)
