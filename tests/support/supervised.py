"""Callbacks for the tests of supervision, exit and fork: importable in the companion."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import warnings

import anyio

from tests.support.callbacks_for_tests import FileTracker, InCompanion


class CancelsItsTask(InCompanion):
    """Cancel the task that calls its hook, a little late, as some timers do."""

    async def on_log(self, args, state, control, **kwargs):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        raise TimeoutError


class ExitsInATask(InCompanion):
    """Try to end the companion from a task that the hook starts."""

    async def on_log(self, args, state, control, **kwargs):
        async def leave() -> None:
            sys.exit(3)

        async with anyio.create_task_group() as group:
            group.start_soon(leave)


class FailsAndWrites(InCompanion):
    """Note the step, then fail."""

    async def on_log(self, args, state, control, **kwargs):
        self.write(step=state.global_step)
        raise RuntimeError("every time")


class SlowTracker(FileTracker):
    """Take a second for each delivery."""

    async def flush(self) -> None:
        await anyio.sleep(1.0)
        await super().flush()


class Forks(InCompanion):
    """Fork at each log, and start a program; the child notes its step and returns."""

    placement = "thread"

    async def on_log(self, args, state, control, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads
            child = os.fork()
        if child == 0:
            self.write(child=state.global_step)
            return
        os.waitpid(child, 0)  # noqa: ASYNC222 - a child that does not end is to be seen
        subprocess.run([sys.executable, "-S", "-c", ""], check=True)  # noqa: ASYNC221
        self.write(step=state.global_step)


class ForksInCompanion(Forks):
    placement = "process"
