"""Make a callback's lane: its description for the companion, or the lane on the thread."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from importlib import import_module

from asynccb._companion.messages import LaneSpec
from asynccb._ground.types import Overflow
from asynccb._lanes.mailbox import Mailbox
from asynccb._lanes.member import Member
from asynccb._lanes.thread_lane import ThreadLane
from asynccb._state.control import Decision
from asynccb._state.trainer_state import exports_state

logger = logging.getLogger("asynccb")


def pickled(member: Member) -> bytes:
    """Return the callback for another process; raises whatever pickling it raises."""
    if type(member.callback).__module__ == "__main__":
        raise pickle.PicklingError("its class is defined in the main script")
    return pickle.dumps(member.callback)


def lane_spec(member: Member, body: bytes, first: int) -> LaneSpec:
    """Return the companion's description; `first` is the first record that the callback sees."""
    state = member.callback.state() if exports_state(member.callback) else None
    return LaneSpec(member.name, body, class_path(type(member.callback)), state, first)


def class_path(kind: type) -> str:
    """
    Return `module:qualified name` of a callback's class.

    A class of asynccb is named by the shortest package that exports it, since run folders outlive
    a move of the file.
    """
    module, name = kind.__module__, kind.__qualname__
    parts = module.split(".")
    if parts[0] == "asynccb":
        packages = (".".join(parts[:length]) for length in range(1, len(parts)))
        module = next((p for p in packages if _exports(p, name) is kind), module)
    return f"{module}:{name}"


def _exports(package: str, name: str) -> object:
    return getattr(import_module(package), name, None)


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
    Return a lane with a mailbox; `policy` applies unless the callback has an overflow of its own.

    With `offline`, a tracker of a server receives nothing: no journal keeps its events for later.
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
