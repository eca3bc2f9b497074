"""
Notice from another thread that a coroutine blocks its event loop.

Promises: a warning names the blocking callback and line during the stall, once per stall. Watching
costs four short wake-ups a second, and none of the loop's time beyond `beat`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

logger = logging.getLogger("asynccb")

STALL: Final = 0.5
"""Seconds without a beat after which a loop counts as blocked."""
LANE_PREFIX: Final = "asynccb lane "
"""Tasks that run hooks are named with this and the callback's name."""


class StallWatch:
    """Watch the event loop of the thread that made this, from a daemon thread."""

    def __init__(self, on_stall: Callable[[str], None], consequence: str) -> None:
        """Call `on_stall` with the callback's name; the warning ends with the `consequence`."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._on_stall = on_stall
        self._consequence = consequence
        self._beat = time.monotonic()
        self._resting = False
        self._over = threading.Event()
        with contextlib.suppress(RuntimeError):  # no thread is to be had: nothing is noticed
            threading.Thread(target=self._watch, name="asynccb-watch", daemon=True).start()

    def beat(self) -> None:
        """Note that the loop turns; call this at least twice a second, except at rest."""
        self._resting = False
        self._beat = time.monotonic()

    def rest(self) -> None:
        """Note that the next beat may take long."""
        self._resting = True

    def close(self) -> None:
        """End the watching thread, within a quarter of a second."""
        self._over.set()

    def _watch(self) -> None:
        told = 0.0
        while not self._over.wait(STALL / 2):
            beat = self._beat
            late = time.monotonic() - beat
            if late >= STALL and not self._resting and beat != told:
                told = beat
                self._tell(late)

    def _tell(self, seconds: float) -> None:
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task else ""
        if not name.startswith(LANE_PREFIX):
            return  # the machine was suspended, or is very busy
        name = name.removeprefix(LANE_PREFIX)
        self._on_stall(name)
        logger.warning(
            "%s has blocked the event loop for %.1f s at %s; %s. Await instead, or use "
            "anyio.to_thread.run_sync",
            name,
            seconds,
            _innermost(sys._current_frames().get(self._thread)),
            self._consequence,
        )


def _innermost(frame: FrameType | None) -> str:
    """Return the line that a thread executes."""
    if frame is None:
        return "an unknown line"
    line = traceback.extract_stack(frame, limit=1)[-1]
    return f"{line.filename}:{line.lineno} ({line.name})"
