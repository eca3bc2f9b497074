"""
Leave a server alone while it is down, and notice when it is back.

Promises: while an origin is down, all clients of the event loop together send it one request at a
time, at growing intervals up to 15 s, or at the time that the origin asked for. The other requests
wait without being sent. The first answer lets all of them continue. Other origins are not affected.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from asynccb.delivery.retry import FIRST_WAIT, LONGEST_WAIT

_PROBE: Final = 10.0
"""Seconds after which another request may probe the origin while the current probe still has no
answer: the current probe may be a large file."""


class Breaker:
    """A circuit breaker for one origin; every request passes through `turn`."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_until = 0.0
        self._probed_until = 0.0
        self._changed = anyio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the last request found the origin down."""
        return self._failures > 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a request may be sent; the block sends it and calls `up` or `down`."""
        tries = await self._admitted()
        try:
            yield
        finally:
            if tries:  # also if cancelled, or after an error of our own: the next one probes
                self._probed_until = 0.0
                self._ring()

    async def _admitted(self) -> bool:
        """Wait until a request may be sent; return whether this request is the probe."""
        while self.is_open:
            now = anyio.current_time()
            wait = max(self._closed_until, self._probed_until) - now
            if wait <= 0:
                self._probed_until = now + _PROBE
                return True
            with anyio.move_on_after(wait):
                await self._changed.wait()
        return False

    def up(self) -> None:
        """Record that the origin answered."""
        if self.is_open:
            self._failures = 0
            self._ring()

    def down(self, wait: float | None = None) -> None:
        """Record that the origin did not answer, or answered that it is down for `wait` seconds."""
        now = anyio.current_time()
        if now < self._closed_until:
            return  # requests under way at the same time fail together: one failure
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._closed_until = now + max(wait or 0.0, longest * random.uniform(0.5, 1.0))

    def _ring(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
