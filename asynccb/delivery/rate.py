"""
Stay below the rate that a server allows.

Promises: over any time t, at most `burst + per_second * t` tokens are taken. Callers are served in
the order of their calls.
"""

from __future__ import annotations

import math

import anyio

from asynccb._ground.exceptions import ConfigurationError


class Bucket:
    """
    A bucket of tokens that refills with time; it begins full.

    `per_second` tokens are added each second, up to `burst`. Raises `ConfigurationError` unless
    both are above 0.
    """

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        if not (per_second > 0 and burst > 0):
            raise ConfigurationError(
                f"a rate of {per_second} a second with a burst of {burst} lets nothing through; "
                "both must be above 0"
            )
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._counted = -math.inf  # in the event loop's time

    @property
    def spare(self) -> int:
        """Whole tokens that can be taken without a wait; needs a running event loop."""
        self._tokens = self._count()
        return max(0, int(self._tokens))

    async def take(self, count: float = 1.0) -> None:
        """Take tokens, and wait for the missing ones; a `count` above `burst` is lent."""
        self._tokens = self._count() - count
        # A count below zero is the queue: the next caller waits for the tokens of all before it.
        if self._tokens < 0:
            await anyio.sleep(-self._tokens / self._per_second)

    def _count(self) -> float:
        """Return the tokens in the bucket now, below zero if some are lent."""
        now = anyio.current_time()
        back, self._counted = (now - self._counted) * self._per_second, now
        return min(self._tokens + back, self._burst)
