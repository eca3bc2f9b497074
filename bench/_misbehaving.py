"""Three kinds of misbehaving callbacks, which must not disturb a training."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio

from asynccb import TrainerCallback


class Slow(TrainerCallback):
    """Takes 100 ms for every log, so that its mailbox fills and drops the oldest events."""

    overflow = "drop_oldest"

    async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        await anyio.sleep(0.1)


class Raising(TrainerCallback):
    """Raises at every log; it drops events too, while another callback blocks the event loop."""

    overflow = "drop_oldest"

    async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise RuntimeError("this callback always raises")


class Blocking(TrainerCallback):
    """Blocks the event loop at every evaluation, as a network library without `await` does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.asleep = threading.Event()
        """Set while the hook blocks."""

    async def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.asleep.set()
        time.sleep(self._seconds)  # noqa: ASYNC251 - the misbehavior to be contained
        self.asleep.clear()
