"""Lanes and letters made by hand, for tests below the dispatcher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asynccb._ground.events import Event
from asynccb._lanes.lane import Lane
from asynccb._lanes.loop_thread import LoopThread
from asynccb._lanes.mailbox import Letter, Mailbox
from asynccb._lanes.thread_lane import ThreadLane
from asynccb._state.snapshot import snapshot
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks.base import find_hooks

Fault = Callable[[BaseException], None]


def no_fault(error: BaseException) -> None:
    raise AssertionError("nothing is to be raised on the training thread") from error


def lane(callback: Any, fault: Fault = no_fault) -> Lane:
    hooks = find_hooks(callback).asynchronous
    return Lane(type(callback).__name__, callback, hooks, fault)


def thread_lane(callback: Any, fault: Fault = no_fault, capacity: int = 10_000) -> ThreadLane:
    hooks = find_hooks(callback).asynchronous
    box = Mailbox(capacity, "block", lambda: None)
    return ThreadLane(type(callback).__name__, callback, hooks, fault, mailbox=box)


def letter(step: int = 0, event: Event = Event.LOG, flags: int = 0, **keywords: Any) -> Letter:
    return Letter(event, None, snapshot(TrainerState(global_step=step)), flags, keywords, step)


@contextmanager
def looping(*lanes: ThreadLane) -> Iterator[LoopThread]:
    """Serve lanes on an event-loop thread; they end, within five seconds, with the block."""
    loop = LoopThread()
    for each in lanes:
        loop.start_lane(each)
    try:
        yield loop
    finally:
        if not loop._closing.is_set():
            loop.close("finished", time.monotonic() + 5.0)


def put(loop: LoopThread, lane: ThreadLane, *letters: Letter) -> None:
    for each in letters:
        lane.mailbox.put(each, loop.wake)
    loop.wake()
