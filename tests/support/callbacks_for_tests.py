"""Callbacks that live in the companion and leave what they saw in files: importable, picklable."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import TransientError
from asynccb._ground.types import RunStatus
from asynccb._state.trainer_state import STATE_FIELDS
from asynccb.callbacks.base import TrainerCallback
from asynccb.trackers.base import Tracker


class InCompanion(TrainerCallback):
    """Append one JSON line for each thing seen."""

    placement = "process"

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def write(self, **what: Any) -> None:
        line = json.dumps({**what, "pid": os.getpid()}, default=vars) + "\n"
        with open(self.path, "a") as file:
            file.write(line)

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written so far, whole lines only."""
        return read_lines(self.path)


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file that may still grow, or not exist yet."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def read_steps(path: str | Path) -> list[int]:
    """Return the steps in the lines that have one."""
    return [line["step"] for line in read_lines(path) if "step" in line]


class LogWitness(InCompanion):
    """Write the step and logs of each log."""

    async def on_log(self, args, state, control, logs=None, **kwargs):
        self.write(step=state.global_step, logs=logs)


class AllEvents(InCompanion):
    """Write every event with the whole state, the control and the keywords."""


class StepsOnly(InCompanion):
    """Write the state's log history at each step, and listen to nothing else."""

    async def on_step_end(self, args, state, control, **kwargs):
        self.write(step=state.global_step, history=list(state.log_history))


class FailsInCompanion(TrainerCallback):
    """Fail at each log, and have that raised on the training thread."""

    placement = "process"
    on_error = "raise"

    async def on_log(self, args, state, control, **kwargs):
        raise RuntimeError("this one always fails")


class WritesConcurrently(InCompanion):
    """Hold events back until as many are under way as may be, then write how many that were."""

    concurrency = 3
    active = most = 0

    async def on_log(self, args, state, control, logs=None, **kwargs):
        self.active += 1
        self.most = max(self.most, self.active)
        while self.most < self.concurrency:
            await anyio.sleep(0.001)
        self.write(step=state.global_step, active=self.active)
        self.active -= 1


class Modules(InCompanion):
    """Write which modules its process has loaded."""

    async def on_log(self, args, state, control, **kwargs):
        self.write(modules=sorted(sys.modules))


class HangsAwaiting(InCompanion):
    """Never come back from the first log, without blocking the loop."""

    async def on_log(self, args, state, control, **kwargs):
        self.write(step=state.global_step)
        await anyio.sleep_forever()


class HangsBlocking(InCompanion):
    """Never come back from the first log, and block the companion's event loop."""

    async def on_log(self, args, state, control, **kwargs):
        self.write(step=state.global_step)
        while True:
            time.sleep(1.0)  # noqa: ASYNC251 - blocking is the point


class Exits(InCompanion):
    """Try to end the companion from a hook."""

    async def on_log(self, args, state, control, **kwargs):
        sys.exit(3)


class Unpicklable(LogWitness):
    """Hold something that cannot leave its process."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.generator: Iterator[int] = (n for n in range(3))


class UnpicklableByValue(LogWitness):
    """Refuse to be pickled with an error that pickle itself would not raise."""

    def __getstate__(self) -> dict[str, Any]:
        raise ValueError("objects of this library cannot be pickled")


class FailsToUnpickle(LogWitness):
    """Cannot be brought to life in another process."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise RuntimeError("not in this process")


class FileTracker(Tracker):
    """Send logs to a file: the smallest tracker there can be."""

    name = "file"
    interval = 0.01

    def __init__(self, path: str) -> None:
        self.path = str(path)
        self.outbox: list[dict[str, Any]] = []

    async def on_log(self, args, state, control, logs=None, **kwargs):
        self.outbox.append({"step": state.global_step, "logs": logs, "pid": os.getpid()})

    async def flush(self) -> None:
        with open(self.path, "a") as file:  # noqa: ASYNC230 - one short line
            file.write("".join(json.dumps(line) + "\n" for line in self.outbox))
        self.outbox.clear()

    async def finish(self, status: RunStatus) -> None:
        self.outbox.append({"status": status, "key": self.run.key})
        await self.flush()

    def state(self) -> dict[str, Any]:
        return {"args": {"path": self.path}, "attributes": {}}


class LocalTracker(FileTracker):
    """Need no server."""

    local = True


class AwayTracker(FileTracker):
    """Find its server away for as long as there is no file `<path>.up`."""

    interval = 0.0

    async def flush(self) -> None:
        if not Path(self.path + ".up").exists():  # noqa: ASYNC240 - one look
            raise TransientError("the server is away")
        await super().flush()


def _all_events_hook(event: Event) -> Any:
    async def hook(self, args, state, control, **kwargs):
        self.write(
            event=event,
            state={
                name: list(value) if name == "log_history" else value
                for name in STATE_FIELDS
                for value in [getattr(state, name)]
            },
            control=control.state()["args"],
            learning_rate=args.learning_rate,
            keywords=kwargs,
        )

    return hook


for _event in EVENTS:
    setattr(AllEvents, _event, _all_events_hook(_event))


class StartsTask(InCompanion):
    """Start a task at the first log; the task writes when it has cleaned up."""

    async def on_log(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.task = asyncio.create_task(self.work())

    async def work(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            self.write(cleaned=True)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "task"}


class StartsDeafTask(StartsTask):
    """Start a task that does not end when it is cancelled."""

    async def work(self) -> None:
        while True:
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                self.write(cancelled=True)
