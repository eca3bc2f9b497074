"""Hand events to any tracker as its lane does, without the rest of a run."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asynccb._ground.events import Event
from asynccb._ground.exceptions import TransientError
from asynccb._journal.uploads import Kept, Spool
from asynccb._state.control import TrainerControl
from asynccb._state.run_description import ModelDescription, PlainArguments, RunDescription
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks.base import find_hooks
from asynccb.trackers.base import Tracker

START = 1_795_000_000_000_000_000
"""Unix nanoseconds at which the runs of the tests begin."""


@dataclass
class Emitted:
    """One event, as the journal has it."""

    event: str
    step: int
    time: int
    extra: dict[str, Any] = field(default_factory=dict)


def description(**args: Any) -> RunDescription:
    return RunDescription(
        key=uuid.uuid4().hex,
        started=START,
        args=PlainArguments({"learning_rate": 5e-4, **args}),
        model=ModelDescription("Net", {"hidden": 8, "learning_rate": 1.0}, 10, 8),
        host="node7",
        user="ada",
        script="train.py",
    )


def emitted(event: str, step: int, **extra: Any) -> Emitted:
    return Emitted(event, step, START + step * 1_500_000, extra)


def training(steps: int, first: int = 1) -> list[Emitted]:
    """Return a training that logs two values at every step, 1.5 ms apart."""
    return [emitted("on_train_begin", first - 1), *logging(steps, first)]


def logging(steps: int, first: int = 1) -> list[Emitted]:
    """Return its logs alone."""
    return [
        emitted("on_log", step, logs={"loss": 1 / step, "learning_rate": 0.25 * step})
        for step in range(first, first + steps)
    ]


async def kept(made: Tracker, folder: Path, step: int, files: dict[str, bytes]) -> Kept:
    """Return a checkpoint as it waits to be uploaded; `a__b` stands for the path a/b."""
    checkpoint = folder / "out" / f"checkpoint-{step}"
    for name, content in files.items():
        path = checkpoint / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    args = description(output_dir=str(folder / "out")).args
    wanted = made.files(Event.SAVE, args, TrainerState(global_step=step))  # type: ignore[arg-type]
    assert wanted is not None
    spool = Spool(folder / "uploads" / os.urandom(4).hex())
    spool._path.parent.mkdir(exist_ok=True)
    await spool.open()
    await spool.keep(step, step, wanted)
    return await spool.first()


async def play(tracker: Tracker, records: Iterable[Emitted]) -> None:
    """Hand over the records as a lane does: only the hooks that there are, and their time."""
    hooks = find_hooks(tracker).asynchronous
    for record in records:
        tracker.time = record.time
        state = TrainerState(global_step=record.step)
        hook = hooks.get(Event(record.event))
        if hook is not None:
            await hook(tracker.run.args, state, TrainerControl(), **record.extra)


async def deliver(tracker: Tracker, records: Iterable[Emitted]) -> None:
    """Play the records, and flush until they are acknowledged."""
    await play(tracker, records)
    await until_done(tracker.flush)


async def until_done(attempt: Callable[[], Awaitable[None]], tries: int = 20) -> int:
    """Repeat after each transient failure, as a lane does; return how many there were."""
    for failures in range(tries):
        try:
            await attempt()
        except TransientError:
            continue
        return failures
    raise AssertionError(f"still failing after {tries} tries")


def revived(tracker: Tracker, state: dict[str, Any]) -> Tracker:
    """Return the tracker that a new companion builds from what was kept on disk."""
    again = type(tracker).from_state(json.loads(json.dumps(state)))
    again.describe(tracker.run)
    return again
