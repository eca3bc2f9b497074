"""
Keep the failures of hooks inside their lanes: cancellations, and errors for the training thread.

Promises: a hook may do anything to its task (a timer that cancels it too late, `task.cancel()`);
neither the lane nor the rest of the task's work ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import NoReturn, TypeAlias

import anyio

from asynccb._ground.exceptions import CallbackError


def is_to_end() -> bool:
    """Tell whether the lane is cancelled from outside; a hook may cancel its task, too."""
    return anyio.current_effective_deadline() == -math.inf


async def take_back_cancellation() -> None:
    """Undo a cancellation that a hook has left behind, as a timer of its own does if it is late."""
    task = asyncio.current_task()
    if task is None or not task.cancelling() or is_to_end():
        return
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # raises a cancellation that was requested and has not arrived yet
    while task.cancelling():
        task.uncancel()


Faults: TypeAlias = list[tuple[str, BaseException | str]]
"""Callbacks' names, and the error or, from the companion, its text; oldest first."""


def raise_oldest(faults: Faults) -> NoReturn:
    """Take out the oldest error and raise it as `CallbackError`."""
    name, error = faults.pop(0)
    if isinstance(error, str):
        raise CallbackError(f"{name} failed in the companion: {error}")
    raise CallbackError(f"{name} failed: {type(error).__name__}: {error}") from error
