"""Waking the tasks of one event loop that wait for the same thing."""

from __future__ import annotations

import anyio


class Bell:
    """Wake every task that waits, once."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake them."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the next ring, at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            await self._event.wait()
