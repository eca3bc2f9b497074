"""A dispatcher that is closed in every case, its companion, and callbacks that keep events."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

import asynccb
from asynccb import CallbackDispatcher, Event
from asynccb._ground.events import EVENTS
from asynccb._publishing.companion import Companion
from tests.support.waiting import eventually, is_gone


@contextmanager
def running(*callbacks: Any, **options: Any) -> Iterator[CallbackDispatcher]:
    """Make a dispatcher and close it; no event is emitted by itself."""
    dispatcher = CallbackDispatcher(callbacks, **options)
    dispatcher._emitter._awaits_begin = False  # or the first step would emit `on_train_begin`
    try:
        yield dispatcher
    finally:
        dispatcher.close(timeout=5.0)


def companion_of(run: CallbackDispatcher) -> Companion:
    """Return the companion, which must be there."""
    end = run._run.publisher.companion
    assert end is not None
    return end.process


def kill_companion(run: CallbackDispatcher) -> int:
    """Kill it and return its id; the training does not notice before it comes by."""
    pid = companion_of(run).pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_gone(pid))
    return pid


class Inline(asynccb.TrainerCallback):
    """Note the events of `def` hooks in a list that may be shared."""

    def __init__(self, name: str = "", seen: list[Any] | None = None) -> None:
        self.name = name
        self.seen: list[Any] = [] if seen is None else seen

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(self.name)


class Logs(asynccb.TrainerCallback):
    """Keep the step and the logs of each `on_log`, in a lane."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, Any]]] = []

    async def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append((state.global_step, logs))

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.seen]


class Everything(asynccb.TrainerCallback):
    """Keep every event with what its hook got; holds all of them back until `open` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = 0
        self.seen: list[tuple[str, Any, Any, Any, dict[str, Any]]] = []
        for event in EVENTS:
            setattr(self, event, self._hook(event))

    def _hook(self, event: Event) -> Any:
        async def hook(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.entered += 1
            while not self.open.is_set():
                await anyio.sleep(0.001)
            self.seen.append((event, args, state, control, kwargs))

        return hook
