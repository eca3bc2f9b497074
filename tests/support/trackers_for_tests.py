"""Trackers that live in the companion and use what the contract offers beside hooks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, TransientError
from asynccb._journal.uploads import Folder, Kept
from asynccb.callbacks.training_side import TrainingSide
from tests.support.callbacks_for_tests import AwayTracker, FileTracker


class Beating(FileTracker):
    """Note each heartbeat; the first two fail."""

    beat = 0.05

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.beats = 0

    async def heartbeat(self) -> None:
        self.beats += 1
        if self.beats <= 2:
            raise TransientError("no beat now")
        self.outbox.append({"beat": self.beats})
        await FileTracker.flush(self)


class Forbidden(Beating):
    """Be told at the third heartbeat that the server takes nothing any more."""

    async def heartbeat(self) -> None:
        await super().heartbeat()
        raise AccessError("403 for the heart")


class Uploading(FileTracker):
    """Copy checkpoints into a folder, while a file `gate` is there; each file is noted."""

    uploads = (Event.SAVE,)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.gate = Path(f"{path}.gate")

    async def on_save(self, args, state, control, **kwargs): ...

    def files(self, event: Event, args: Any, state: Any) -> Folder | None:
        name = f"checkpoint-{state.global_step}"
        return Folder(Path(args.output_dir, name), name)

    async def upload(self, kept: Kept) -> None:
        for file in kept.pending():
            while not self.gate.exists():
                await anyio.sleep(0.01)
            content = file.path.read_text()
            line = {"file": f"{kept.name}/{file.name}", "content": content, "pid": os.getpid()}
            self.outbox.append(line)
            await self.flush()
            await kept.stored(file)


class Slow(AwayTracker):
    """Have a server that, once it is up, answers when there is `<path>.gate`; note a cut."""

    async def flush(self) -> None:
        try:
            while self._has("up") and not self._has("gate"):
                await anyio.sleep(0.01)
        except anyio.get_cancelled_exc_class():
            Path(f"{self.path}.cut").touch()  # noqa: ASYNC240 - there is no time for more
            raise
        await super().flush()

    def _has(self, suffix: str) -> bool:
        return Path(f"{self.path}.{suffix}").exists()


class Unborn(AwayTracker):
    """Fail where it is to be made again from its state."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Unborn:
        raise LookupError("no such thing")


class Numbered(FileTracker):
    """Number its lines, as a server may want it, over all trainings of a run."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.number = 0

    async def on_log(self, args, state, control, logs=None, **kwargs):
        self.number += 1
        line = {"number": self.number, "step": state.global_step, "logs": logs, "key": self.run.key}
        self.outbox.append(line)

    def state(self) -> dict[str, Any]:
        return {"args": {"path": self.path}, "attributes": {"number": self.number}}


class Rewinding(Numbered):
    """Have a server that hides what came after a checkpoint."""

    rewinds = True


class Elsewhere(Numbered):
    """Have settings that name another run."""

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        return False


class Clumsy(Uploading):
    """Fail at every upload in a way that no contract knows."""

    async def upload(self, kept: Kept) -> None:
        raise RuntimeError("no idea how")


class HoldsFile(FileTracker):
    """Open its file once, so that it needs no descriptor later."""

    async def flush(self) -> None:
        if "file" not in vars(self):
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        lines, self.outbox = self.outbox, []
        os.write(self.file, "".join(json.dumps(line) + "\n" for line in lines).encode())


class Side(TrainingSide):
    """Tell what it is asked to, and note the `def` hook's calls."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.state = "new"

    def on_log(self, args, state, control, **kwargs):
        self.heard.append(state.global_step)

    def open(self) -> None:
        self.state = "open"

    def say(self, what: str, row: Any = None) -> None:
        assert self.tell is not None
        self.tell(what, {} if row is None else {"row": row})

    def drain(self, *, whole: bool) -> None:
        if whole and self.state == "open":
            self.state = "drained"
            self.say("whole")

    def close(self) -> None:
        self.state = "closed"


class Telling(FileTracker):
    """Note what its training side tells."""

    training_side: Side

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.training_side = Side()

    async def told(self, what: str, values: Any, step: int) -> None:
        self.outbox.append({"told": [what, step, values], "pid": os.getpid()})


class TellingOnThread(Telling):
    """Do so where there is no companion."""

    placement = "thread"


class Measuring(FileTracker):
    """Add a metric to the run at each log, from a thread, and at the end of the training."""

    local = True
    offers = True

    async def on_log(self, args, state, control, logs=None, **kwargs):
        if "measured" in logs:
            return
        measured = {"measured": float(state.global_step)}
        await anyio.to_thread.run_sync(self.offer, measured)

    async def on_train_end(self, args, state, control, **kwargs):
        await anyio.sleep(0.2)
        self.offer({"measured": -1.0})


class StuckMeasuring(Measuring):
    """Never come to the end of its last measurement."""

    async def on_train_end(self, args, state, control, **kwargs):
        await anyio.sleep_forever()


class Terse(AwayTracker):
    """Export its settings alone."""

    def state(self) -> dict[str, Any]:
        return {"args": {"path": self.path}}
