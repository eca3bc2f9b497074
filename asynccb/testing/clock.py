"""
A clock that jumps: a sleep of an hour takes no time, and a test runs the same way each time.

Promises: time stands still while there is anything to do, and then jumps to the next timer. Events
and their order do not depend on the speed of the machine.
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
    A clock for async code, such as the hooks of a callback, that jumps instead of waiting.

    In `run`, the loop's time starts at 0 and jumps to the next timer when there is nothing else to
    do. This applies to `anyio.sleep`, time-outs, asynccb's retries and rate limits, and every other
    wait on the event loop. It does not apply to `time.sleep` and `time.time`, which are real.
    Sockets and worker threads also take real time. If the code awaits them, set `patience` to the
    real seconds that they may take before the clock jumps.

        clock = Clock()
        clock.run(hook_that_sleeps_for_an_hour)
        assert clock.time == 3600
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self.time = 0.0
        """Seconds that have passed on this clock."""

    def run(self, function: Callable[[Unpack[P]], Awaitable[T]], *arguments: *P) -> T:
        """Run an async function to its end, on a new event loop, and return its result."""
        options = {"loop_factory": lambda: _Loop(self)}
        return anyio.run(function, *arguments, backend_options=options)

    def wait(self, look: Callable[[float | None], list[Any]], timeout: float | None) -> list[Any]:
        """
        Wait in place of the loop, and return the events that have occurred.

        `look` waits for real events, at most for the real seconds that it is given. If none occurs
        within `patience`, time jumps by `timeout`.
        """
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
    """A selector that asks the system, and lets the clock jump if no event has occurred."""

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
