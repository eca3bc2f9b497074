"""
Try again, for as long as it takes.

Promises: only a `TransientError` leads to another attempt. Waits grow, with jitter, up to a
ceiling, so that many runs do not return at once. A wait lasts at least a server's `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import stamina

from asynccb._ground.exceptions import TransientError

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 15.0


async def until_acknowledged(
    attempt: Callable[[], Awaitable[None]], on_failure: Callable[[TransientError], None]
) -> None:
    """
    Call `attempt` until it returns; wait 0.2 s to 15 s, or as long as the server asked, in between.

    `on_failure` is called with each failure before the wait. Any error other than `TransientError`
    ends the attempts, and so does cancellation.
    """

    def wait_or_give_up(error: Exception) -> bool | float:
        if not isinstance(error, TransientError):
            return False
        on_failure(error)
        return True if error.retry_after is None else max(error.retry_after, FIRST_WAIT)

    async for trial in stamina.retry_context(
        on=wait_or_give_up,
        attempts=None,
        timeout=None,
        wait_initial=FIRST_WAIT,
        wait_max=LONGEST_WAIT,
        wait_jitter=1.0,
    ):
        with trial:
            await attempt()
