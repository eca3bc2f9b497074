"""Callbacks that decide, and how to read what a run decided."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio

from asynccb import CallbackDispatcher, TrainerCallback, decides
from asynccb._state.control import Decision

Answers = Callable[[int], Decision]


class Decides(TrainerCallback):
    """Decide at each log what `answers` says for its step; held back until `open` is set."""

    def __init__(self, answers: Answers, lag: int = 1, **terms: Any) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked: list[int] = []
        self.answers = answers

        @decides(lag, **terms)
        async def on_log(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.asked.append(state.global_step)
            while not self.open.is_set():
                await anyio.sleep(0.001)
            set_flags(control, answers(state.global_step))

        self.on_log = on_log  # type: ignore[method-assign]


def set_flags(control: Any, decision: Decision) -> None:
    for name, value in decision.opinions.items():
        setattr(control, name, value)


def saves_at(*steps: int) -> Answers:
    """Ask for a save at some steps, and have no opinion at others."""
    return lambda step: Decision(should_save=True if step in steps else None)


class SavesInCompanion(TrainerCallback):
    """Decide in the companion: a save for every third step, a log at odd ones."""

    placement = "process"

    @decides(lag=1)
    async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % 3 == 0:
            control.should_save = True

    @decides(lag=0)
    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = state.global_step % 2 == 1


class SavedInCompanion(TrainerCallback):
    """Decide in the companion, on a save: an evaluation, a step later."""

    placement = "process"

    @decides(lag=1)
    async def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_evaluate = True


class WatchesSaves(TrainerCallback):
    """Write down in the companion each save that it is told of."""

    placement = "process"

    def __init__(self, file: Path) -> None:
        self.file = file

    async def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        async with await anyio.open_file(self.file, "a") as file:
            await file.write(f"{state.global_step}\n")


class StopsInCompanion(TrainerCallback):
    """Press a tracker's stop button: request a stop from the companion, at step 3."""

    placement = "process"

    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            self.request(should_training_stop=True)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return a trace's entries without its header and without what the clock said."""
    _, *lines = (json.loads(line) for line in path.read_text().splitlines())
    for line in lines:
        del line["waited"]
    return lines


def trace_of(run: CallbackDispatcher) -> Path:
    return run._run.publisher.directory / "decisions.jsonl"


def saves(run: CallbackDispatcher, steps: int) -> Iterator[int]:
    """Run steps that log, and yield those after which a save was asked for."""
    for _ in range(steps):
        if run.step(logs={"loss": 1.0}).should_save:
            yield run.state.global_step
