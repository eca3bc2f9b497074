"""What a callback's lane is made of: what the companion needs, or the lane on the thread."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable

from asynccb._companion.messages import LaneSpec
from asynccb._lanes.mailbox import Mailbox
from asynccb._lanes.registry import Member
from asynccb._lanes.thread_lane import ThreadLane
from asynccb._state.control import Decision
from asynccb.callbacks.base import Overflow

logger = logging.getLogger("asynccb")


def pickled(member: Member) -> bytes:
    """Return the callback for another process; raises whatever pickling it raises."""
    if type(member.callback).__module__ == "__main__":
        raise pickle.PicklingError("its class is defined in the main script")
    return pickle.dumps(member.callback)


def lane_spec(member: Member, body: bytes, first: int) -> LaneSpec:
    """Return what the companion needs; `first` is the first record that the callback sees."""
    kind = type(member.callback)
    exports = getattr(member.callback, "state", None)
    state = exports() if callable(exports) else None
    return LaneSpec(member.name, body, f"{kind.__module__}:{kind.__qualname__}", state, first)


def thread_lane(
    member: Member,
    capacity: int,
    policy: Overflow,
    fault: Callable[[BaseException], None],
    answer: Callable[[str, int, Decision | None], None],
    *,
    offline: bool,
) -> ThreadLane:
    """
    Return a lane with a mailbox; `policy` holds where the callback has none of its own.

    Under `offline` a tracker of a server gets nothing: here is no journal that keeps it for later.
    """
    overflow = member.options.overflow or policy

    def complain() -> None:
        logger.warning(
            "%s is behind by %d events; its overflow policy is %r (said once; statistics() counts "
            "what it costs)",
            member.name,
            capacity,
            overflow,
        )

    lane = ThreadLane(
        member.name,
        member.callback,
        member.hooks.asynchronous,
        fault,
        mailbox=Mailbox(capacity, overflow, complain),
        answer=answer,
    )
    if lane.waits_for_sync(offline):
        lane.counts.disabled = True
        logger.error(
            "%s gets nothing: ASYNCCB_OFFLINE is set, or its own switch, and no companion journals "
            "for it",
            member.name,
        )
    return lane
