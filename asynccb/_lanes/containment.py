"""
Whose a cancellation is: the lane's, or a hook's own.

Promises: what a hook does to its task (a timer that cancels it too late, `task.cancel()`) ends
neither the lane nor what else the task does.
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
    """Take back what a hook has left of a cancellation: as a timer of its own does, too late."""
    task = asyncio.current_task()
    if task is None or not task.cancelling() or is_to_end():
        return
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where one that was asked for, and has not come yet, is raised
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
