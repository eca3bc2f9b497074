"""
A clock that jumps: what sleeps for an hour takes no time, and takes it the same way each time.

Promises: time stands still while anything is to be done, and then is that of the next timer; what
happens, and in which order, does not depend on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio

T = TypeVar("T")
P = TypeVarTuple("P")


class Clock:
    """
    Run async code, such as the hooks of a callback, on time of its own.

    In `run`, the loop's time begins at 0 and jumps to the next timer as soon as nothing else is to
    be done: `anyio.sleep`, time-outs, asynccb's retries and rate limits, and all else that waits on
    the event loop. What does not is real: `time.sleep` and `time.time`. Sockets and worker threads
    take their time as well; where those are awaited, `patience` is the real seconds that they may
    take before the clock jumps.

        clock = Clock()
        clock.run(hook_that_sleeps_for_an_hour)
        assert clock.time == 3600
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self.time = 0.0
        """Seconds that have passed on it."""

    def run(self, function: Callable[[Unpack[P]], Awaitable[T]], *arguments: *P) -> T:
        """Run an async function to its end, on an event loop of its own, and return its result."""
        options = {"loop_factory": lambda: _Loop(self)}
        return anyio.run(function, *arguments, backend_options=options)

    def wait(self, look: Callable[[float | None], list[Any]], timeout: float | None) -> list[Any]:
        """Wait for the loop; `look` returns what has really happened within a real time."""
        if timeout is None or timeout <= 0:
            return look(timeout)
        happened = look(self._patience)
        if not happened:
            self.time += timeout
        return happened


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._clock.time


class _Selector(selectors.BaseSelector):
    """Ask the system, and let the clock jump where nothing has happened."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._clock.wait(self._real.select, timeout)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()
