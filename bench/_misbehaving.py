"""Three callbacks of the kinds that training must be kept safe from."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio

from asynccb import TrainerCallback


class Slow(TrainerCallback):
    """Take 100 ms for every log; its mailbox fills, and it loses the oldest events."""

    overflow = "drop_oldest"

    async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.sleep(0.1)


class Raising(TrainerCallback):
    """Raise at every log; it too loses events, while another callback blocks its event loop."""

    overflow = "drop_oldest"

    async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise RuntimeError("this callback always raises")


class Blocking(TrainerCallback):
    """Block the event loop at every evaluation, as a network library without `await` does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.asleep = threading.Event()
        """Set while it blocks."""

    async def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.asleep.set()
        time.sleep(self._seconds)  # noqa: ASYNC251 - what is to be contained
        self.asleep.clear()
